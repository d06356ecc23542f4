"""Chooses the proxy for a model server from ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``."""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx2

DEFAULT_PORTS = {"http": 80, "https": 443}


class ProxyRefused(ValueError):
    """The environment names a proxy that cannot be used."""


class Proxies:
    """``given`` is what ``urllib.request.getproxies()`` returns. Raises ProxyRefused."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._proxies = {scheme: _checked(given[scheme]) for scheme in ("http", "https", "all") if given.get(scheme)}
        self._exceptions = [entry.strip() for entry in given.get("no", "").split(",") if entry.strip()]

    def url_for(self, url: httpx2.URL) -> str | None:
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        return None if proxy is None or any(_matches(entry, url) for entry in self._exceptions) else proxy


def _checked(proxy: str) -> str:
    given = proxy if "://" in proxy else f"http://{proxy}"
    kind = given.partition("://")[0]
    if kind.lower() not in DEFAULT_PORTS:
        # aiohttp would send plain HTTP to such a proxy, with the API key.
        raise ProxyRefused(f"a proxy of the kind {kind}:// cannot be used for models, only http and https")
    try:
        httpx2.URL(given)
    except (httpx2.InvalidURL, ValueError):
        raise ProxyRefused("a proxy whose URL cannot be read") from None
    return given


def _matches(entry: str, url: httpx2.URL) -> bool:
    """Whether an entry of NO_PROXY covers this URL. An entry is ``*``, a host (with its subdomains), an IP address or a
    network, optionally with scheme and port."""
    scheme, found, rest = entry.rpartition("://")
    if entry == "*":
        return True
    if found and scheme.lower() not in {"all", url.scheme}:
        return False
    host = url.host.strip("[]").lower()
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rest.strip("[]"), strict=False)
    except ValueError:
        pass
    try:
        named = urlsplit(f"//{rest}")
        name, port = (named.hostname or "").removeprefix("*").removeprefix("."), named.port
    except ValueError:
        return False
    is_port = port is None or port == (url.port or DEFAULT_PORTS.get(url.scheme))
    return bool(name) and is_port and (host == name or host.endswith(f".{name}"))
