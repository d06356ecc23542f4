"""Which proxy a model server is asked through: ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``."""

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
        return None if proxy is None or any(_names(entry, url) for entry in self._exceptions) else proxy


def _checked(proxy: str) -> str:
    given = proxy if "://" in proxy else f"http://{proxy}"
    kind = given.partition("://")[0]
    if kind.lower() not in DEFAULT_PORTS:
        # aiohttp would send it HTTP, with the key in it.
        raise ProxyRefused(f"a proxy of the kind {kind}:// cannot be used for models, only http and https")
    try:
        httpx2.URL(given)
    except (httpx2.InvalidURL, ValueError):
        raise ProxyRefused("a proxy whose URL cannot be read") from None
    return given


def _names(entry: str, url: httpx2.URL) -> bool:
    """Whether an entry of NO_PROXY is this server: a name and those below it, an address, a network, with a scheme or a
    port or neither, or ``*``."""
    scheme, found, rest = entry.rpartition("://")
    if entry == "*" or (found and scheme.lower() not in {"all", url.scheme}):
        return entry == "*"
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
