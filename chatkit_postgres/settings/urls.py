"""Checks hosts and URLs: loopback, private network, https."""

import ipaddress
import re
from urllib.parse import urlsplit


def is_loopback(host: str | None) -> bool:
    if host is None:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_trustworthy(url: str) -> bool:
    """Whether keys may be fetched from this URL: by https, or by http within this machine or a private network."""
    parsed = urlsplit(url)
    host = parsed.hostname or ""
    return bool(host) and (parsed.scheme == "https" or (parsed.scheme == "http" and _is_private(host)))


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        # A name without dots is one of the network's own; a number is an address in disguise.
        return host.endswith((".internal", ".local")) or re.fullmatch(r"[a-z][a-z0-9-]*", host) is not None
