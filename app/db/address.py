"""A database's URL, with the parameters of libpq, as arguments for asyncpg.

A parameter works as libpq has it, or is refused by its name: one that was dropped in silence would be missed where it
matters, such as the certificate that was to be checked.
"""

import re
import shlex
from typing import Any
from urllib.parse import quote, urlencode

from sqlalchemy import URL, make_url

CONNECT_TIMEOUT_SECONDS = 5
COMMAND_TIMEOUT_SECONDS = 10

# asyncpg reads these from a URL as libpq does.
_OF_THE_DRIVER = frozenset(
    {
        "gsslib",
        "krbsrvname",
        "passfile",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "target_session_attrs",
    }
)
_SETTINGS = frozenset({"application_name"})
# The values with which a parameter asks for nothing that is not done anyway.
_AS_IT_IS = {
    "channel_binding": {"disable", "prefer"},
    "client_encoding": {"auto", "utf8", "utf-8", "unicode"},
    "gssencmode": {"disable", "prefer"},
    "load_balance_hosts": {"disable"},
    "requiressl": {"0"},
    "sslcompression": {"0"},
    "sslsni": {"1"},
}
_CHOICES = {
    "sslmode": {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"},
    "sslnegotiation": {"postgres", "direct"},
    "target_session_attrs": {"any", "read-write", "read-only", "primary", "standby", "prefer-standby"},
}
_NUMBERS = {
    "connect_timeout",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "tcp_user_timeout",
}
# SQLAlchemy's and asyncpg's own names, as providers and poolers print them.
_CACHES = frozenset({"pgbouncer", "prepared_statement_cache_size", "statement_cache_size"})
_ALIASES = {"ssl": "sslmode", "fallback_application_name": "application_name"}
_MEANT = frozenset({"host", "port", "user", "password", "dbname", "database", "options"})
_HOSTS = re.compile(r"(\w+(?:\+\w+)?://(?:[^@/?#]*@)?)([^/?#@]*,[^/?#@]*)(?=[/?#]|$)(.*)", re.DOTALL)


def normalised_url(url: str | URL) -> URL:
    """``postgres://`` and ``postgresql://`` as providers hand them out, with the driver we use. Several hosts become
    parameters ``host``.

    Raises ValueError for anything that is not a PostgreSQL URL, and for a parameter that cannot be followed.
    """
    try:
        parsed = make_url(_without_host_list(url) if isinstance(url, str) else url)
    except Exception as error:  # SQLAlchemy's message may repeat the password.
        raise ValueError("not a database URL") from error
    if parsed.drivername not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        raise ValueError("not a PostgreSQL URL")
    query = {_ALIASES.get(name, name): value for name, value in parsed.query.items()}
    for name, value in query.items():
        _check(name, value if isinstance(value, str) else value[-1])
    return parsed.set(drivername="postgresql+asyncpg", query=query)


def is_behind_pooler(url: URL) -> bool:
    """Whether statements stay unprepared, for poolers that give each transaction another connection."""
    query = url.query
    caches = (query.get("statement_cache_size"), query.get("prepared_statement_cache_size"))
    return query.get("pgbouncer") == "true" or "0" in caches


def connect_arguments(url: URL) -> dict[str, Any]:
    """What ``asyncpg.connect`` is called with, through SQLAlchemy's dialect."""
    of_the_driver = {name: value for name, value in url.query.items() if name in _OF_THE_DRIVER}
    arguments: dict[str, Any] = {
        "dsn": f"postgresql://?{urlencode(of_the_driver, quote_via=quote)}",
        "user": url.username or url.query.get("user"),
        "password": url.password or url.query.get("password"),
        "database": url.database or url.query.get("dbname") or url.query.get("database"),
        "timeout": _number(url, "connect_timeout", CONNECT_TIMEOUT_SECONDS) or CONNECT_TIMEOUT_SECONDS,
        "command_timeout": COMMAND_TIMEOUT_SECONDS,
    }
    hosts, ports = _hosts_of(url)
    if hosts:
        arguments |= {"host": hosts, "port": ports}
    settings = _options(str(url.query.get("options", "")))
    settings |= {name: str(value) for name, value in url.query.items() if name in _SETTINGS}
    if settings:
        arguments["server_settings"] = settings
    if is_behind_pooler(url):
        arguments |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    return {name: value for name, value in arguments.items() if value is not None}


def keepalive_of(url: URL) -> dict[str, int]:
    """How a lost connection is noticed, as libpq's parameters say, in seconds but for ``tcp_user_timeout``. Empty if
    the URL switches it off."""
    if _number(url, "keepalives", 1) == 0:
        return {}
    defaults = {"keepalives_idle": 30, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 5000}
    return {name: _number(url, name, usual) or usual for name, usual in defaults.items()}


def _check(name: str, value: str) -> None:
    known = _OF_THE_DRIVER | _SETTINGS | _CACHES | _MEANT | _NUMBERS | _AS_IT_IS.keys()
    if name not in known:
        raise ValueError(f"the parameter {name!r} is not known")
    if name in _AS_IT_IS and value.lower() not in _AS_IT_IS[name]:
        raise ValueError(f"{name}={value} cannot be followed; take it out, or set {min(_AS_IT_IS[name])}")
    if name in _CHOICES and value not in _CHOICES[name]:
        raise ValueError(f"{name} is one of {', '.join(sorted(_CHOICES[name]))}")
    if name in _NUMBERS and not value.isdecimal():
        raise ValueError(f"{name} is a whole number")
    if name == "options":
        _options(value)


def _options(text: str) -> dict[str, str]:
    """``-c name=value`` and ``--name=value``, with spaces escaped by a backslash as libpq has them."""
    settings: dict[str, str] = {}
    try:
        words = iter(shlex.split(text))
    except ValueError:
        raise ValueError("options: a quotation mark or a backslash stands alone") from None
    for word in words:
        if word == "-c":
            given = next(words, "")
        elif word.startswith("--"):
            given = word[2:]
        else:
            given = word.removeprefix("-c") if word.startswith("-c") else ""
        name, is_set, value = given.partition("=")
        if not is_set or not name:
            raise ValueError("options: only -c name=value and --name=value are understood")
        settings[name.replace("-", "_")] = value
    return settings


def _without_host_list(url: str) -> str:
    """SQLAlchemy knows several hosts as parameters alone."""
    found = _HOSTS.fullmatch(url)
    if found is None:
        return url
    before, hosts, after = found.groups()
    path, _, query = after.partition("?")
    given = "&".join(f"host={quote(host, safe=':[]')}" for host in hosts.split(","))
    return f"{before}{path or '/'}?{given}{'&' if query else ''}{query}"


def _hosts_of(url: URL) -> tuple[list[str], list[int]]:
    if url.host:
        return [url.host], [url.port or 5432]
    given = url.query.get("host", ())
    hosts = [host for text in ([given] if isinstance(given, str) else given) for host in text.split(",") if host]
    ports = [port for port in str(url.query.get("port", "")).split(",") if port]
    pairs = [_host_and_port(host) for host in hosts]
    usual = [ports[number] if len(ports) == len(hosts) else (ports or ["5432"])[0] for number in range(len(hosts))]
    return [host for host, _ in pairs], [int(own or other) for (_, own), other in zip(pairs, usual, strict=True)]


def _host_and_port(text: str) -> tuple[str, str]:
    if text.startswith("/"):
        return text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, port.removeprefix(":")
    host, _, port = text.partition(":") if text.count(":") == 1 else (text, "", "")
    return host, port


def _number(url: URL, name: str, usual: int) -> int:
    value: Any = url.query.get(name, usual)
    return int(value)
