"""The proxies of the environment are used as the stock client uses them, and by more of what NO_PROXY says."""

import httpx2
import pytest

from chatkit_postgres.assistant.model_servers.proxies import Proxies, ProxyRefused

PROXY = "http://proxy.invalid:3128"

EXCEPTIONS = {
    "10.0.0.7": ["http://10.0.0.7/v1", "http://10.0.0.7:8080/v1"],
    "10.0.0.0/8": ["http://10.200.3.4/v1"],
    "127.0.0.1:8001": ["http://127.0.0.1:8001/v1"],
    "localhost:8001": ["http://localhost:8001/v1", "http://LOCALHOST:8001"],
    "http://10.0.0.7": ["http://10.0.0.7/v1"],
    "all://10.0.0.7": ["http://10.0.0.7/v1"],
    "[::1]": ["http://[::1]:8001/v1"],
    "::1": ["http://[::1]/v1"],
    "fd00::/8": ["http://[fd12::1]/v1"],
    "example.com": ["https://example.com", "https://api.example.com/v1"],
    ".example.com": ["https://api.example.com/v1"],
    "*.example.com": ["https://api.example.com/v1"],
    "example.com:443": ["https://example.com/v1", "https://api.example.com:443/v1"],
    "*": ["https://anything.invalid"],
    " a.invalid , b.invalid ": ["http://a.invalid", "http://b.invalid"],
}
OTHERS = {
    "10.0.0.7": ["http://10.0.0.70", "http://x10.0.0.7.invalid"],
    "10.0.0.0/8": ["http://11.0.0.1", "http://10.example.com"],
    "127.0.0.1:8001": ["http://127.0.0.1:8002"],
    "https://10.0.0.7": ["http://10.0.0.7"],
    "example.com": ["https://notexample.com", "https://example.com.invalid"],
    "example.com:443": ["https://example.com:8443", "http://example.com"],
    "": ["http://localhost"],
    "a b:c:d": ["http://localhost"],
}


@pytest.mark.parametrize("entry", EXCEPTIONS)
def test_a_server_that_is_excepted_is_asked_directly(entry: str) -> None:
    proxies = Proxies({"http": PROXY, "https": PROXY, "no": entry})
    assert [proxies.url_for(httpx2.URL(url)) for url in EXCEPTIONS[entry]] == [None] * len(EXCEPTIONS[entry])


@pytest.mark.parametrize("entry", OTHERS)
def test_any_other_is_asked_through_the_proxy(entry: str) -> None:
    proxies = Proxies({"all": PROXY, "no": entry})
    assert [proxies.url_for(httpx2.URL(url)) for url in OTHERS[entry]] == [PROXY] * len(OTHERS[entry])


def test_each_scheme_may_have_its_own() -> None:
    proxies = Proxies({"http": "a.invalid:1", "all": "https://u:p@b.invalid:2"})
    assert proxies.url_for(httpx2.URL("http://model.invalid")) == "http://a.invalid:1"
    assert proxies.url_for(httpx2.URL("https://model.invalid")) == "https://u:p@b.invalid:2"
    assert Proxies({}).url_for(httpx2.URL("https://model.invalid")) is None


@pytest.mark.parametrize("url", ["socks5://p.invalid:1", "socks5h://p.invalid", "ftp://p.invalid", "http://h:noport"])
def test_what_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(ProxyRefused):
        Proxies({"all": url})
