"""A database's URL, with the parameters of libpq, as arguments for asyncpg.

A parameter works as in libpq, or is refused by its name: ignoring one silently could, for example, disable the check of
a certificate. libpq's environment variables supply the values that the URL omits: asyncpg reads some of them, such as
PGHOST, and this module the others."""

import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

from sqlalchemy import URL, make_url

CONNECT_TIMEOUT_SECONDS = 5
"""For each host. libpq has no default; 0 selects this one."""
COMMAND_TIMEOUT_SECONDS = 10

_FILES = frozenset({"passfile", "sslcert", "sslcrl", "sslkey", "sslrootcert"})
# asyncpg reads these from a URL as libpq does.
_OF_THE_DRIVER = _FILES | {
    "gsslib",
    "krbsrvname",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
}
# Sent to the server as they are.
_OF_THE_SERVER = {"application_name": "PGAPPNAME", "options": "PGOPTIONS"}
# Values of parameters that ask for the behaviour that asyncpg has anyway.
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
    "pgbouncer": {"true", "false"},
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
    # Names of SQLAlchemy and asyncpg, which the documents of poolers use.
    "prepared_statement_cache_size",
    "statement_cache_size",
    "tcp_user_timeout",
}
_ALIASES = {"ssl": "sslmode", "fallback_application_name": "application_name", "database": "dbname"}
_WHERE = frozenset({"host", "port", "user", "password", "dbname"})
_KNOWN = _OF_THE_DRIVER | _OF_THE_SERVER.keys() | _AS_IT_IS.keys() | _CHOICES.keys() | _NUMBERS | _WHERE
_SCHEME = re.compile(r"(\w+(?:\+\w+)?://)(.*)", re.DOTALL)
_AUTHORITY = re.compile(r"[^/?#]*")


@dataclass(frozen=True)
class Host:
    """None: from the environment, or the default."""

    name: str | None
    port: int | None


def normalised_url(url: str | URL) -> URL:
    """``postgres://`` and ``postgresql://`` as providers hand them out, with the driver we use. Several hosts become
    the parameter ``host``.

    Raises ValueError for anything that is not a PostgreSQL URL, and for a parameter that cannot be followed.
    """
    try:
        parsed = make_url(_without_host_list(url) if isinstance(url, str) else url)
    except Exception as error:  # SQLAlchemy's message may repeat the password.
        raise ValueError("not a database URL") from error
    if parsed.drivername not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        raise ValueError("not a PostgreSQL URL")
    parsed = parsed.set(drivername="postgresql+asyncpg", query=_checked(parsed))
    hosts_of(parsed)
    return parsed


def is_behind_pooler(url: URL) -> bool:
    """Whether statements are not prepared, for poolers that give each transaction another connection."""
    caches = (url.query.get("statement_cache_size"), url.query.get("prepared_statement_cache_size"))
    return url.query.get("pgbouncer") == "true" or "0" in caches


def connect_arguments(url: URL) -> dict[str, Any]:
    """The arguments of ``asyncpg.connect`` that are the same for each host."""
    query = url.query
    of_the_driver = {name: value for name, value in query.items() if name in _OF_THE_DRIVER}
    arguments: dict[str, Any] = {
        "user": query.get("user") or url.username,
        "password": query.get("password") or url.password,
        "database": query.get("dbname") or url.database,
        "timeout": _number(url, "connect_timeout", _seconds_in_environment()) or CONNECT_TIMEOUT_SECONDS,
        "command_timeout": COMMAND_TIMEOUT_SECONDS,
        "server_settings": {
            name: str(value)
            for name, variable in _OF_THE_SERVER.items()
            if (value := query.get(name) or os.environ.get(variable))
        },
        "statement_cache_size": 0 if is_behind_pooler(url) else query.get("statement_cache_size"),
    }
    if of_the_driver.get("sslrootcert") == "system":
        # Also checks the host name, as libpq does for this value.
        arguments["ssl"] = ssl.create_default_context()
        of_the_driver = {n: v for n, v in of_the_driver.items() if n not in {"sslmode", "sslrootcert"}}
    arguments["dsn"] = f"postgresql://?{urlencode(of_the_driver, quote_via=quote)}"
    if arguments["statement_cache_size"] is not None:
        arguments["statement_cache_size"] = int(arguments["statement_cache_size"])
    return {name: value for name, value in arguments.items() if value is not None}


def wanted_session_of(url: URL) -> str:
    return str(url.query.get("target_session_attrs", os.environ.get("PGTARGETSESSIONATTRS", "any")))


def hosts_of(url: URL) -> list[Host]:
    """In the order in which they are tried. Raises ValueError for a port that is none."""
    given = url.query.get("host", ())
    names = [name for text in ([given] if isinstance(given, str) else given) for name in text.split(",")]
    pairs: list[tuple[str | None, str]] = [_host_and_port(name) for name in names if name]
    if not pairs:
        pairs = [(unquote(url.host) if url.host else None, str(url.port) if url.port else "")]
    ports = [port for port in str(url.query.get("port", "")).split(",") if port]
    if len(ports) > 1 and len(ports) != len(pairs):
        raise ValueError(f"port: {len(ports)} ports for {len(pairs)} hosts")
    if ports:
        pairs = [(host, ports[number if len(ports) > 1 else 0]) for number, (host, _) in enumerate(pairs)]
    if not all(port == "" or port.isdecimal() for _, port in pairs):
        raise ValueError("port is a whole number")
    return [Host(host, int(port) if port else None) for host, port in pairs]


def keepalive_of(url: URL) -> dict[str, int]:
    """The keep-alive parameters of libpq, in seconds, except ``tcp_user_timeout`` in milliseconds; without those
    that are 0, for which the system's defaults apply. Empty if the URL switches keep-alive off."""
    if _number(url, "keepalives", 1) == 0:
        return {}
    defaults = {"keepalives_idle": 30, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 5000}
    wanted = {name: _number(url, name, usual) for name, usual in defaults.items()}
    return {name: value for name, value in wanted.items() if value}


def _checked(url: URL) -> dict[str, str | tuple[str, ...]]:
    checked: dict[str, str | tuple[str, ...]] = {}
    for given, values in url.query.items():
        name = _ALIASES.get(given, given)
        if name != given and (name in url.query or name in checked):
            raise ValueError(f"{given} says the same as {name}: take one of them out")
        if name == "host":
            checked[name] = values
            continue
        value = values if isinstance(values, str) else values[-1]
        # libpq accepts it for drivers that know no sslmode.
        checked[name] = "require" if (given, value.lower()) == ("ssl", "true") else value
        _check(given, name, str(checked[name]))
    return checked


def _check(given: str, name: str, value: str) -> None:
    if name not in _KNOWN:
        raise ValueError(f"the parameter {given!r} is not known")
    if name in _AS_IT_IS and value.lower() not in _AS_IT_IS[name]:
        raise ValueError(f"{given}={value} is not supported; remove it, or set {min(_AS_IT_IS[name])}")
    if name in _CHOICES and value not in _CHOICES[name]:
        raise ValueError(f"{given} is one of {', '.join(sorted(_CHOICES[name]))}")
    if name in _NUMBERS and not value.isdecimal():
        raise ValueError(f"{given} is a whole number")
    if name in _FILES and (name, value) != ("sslrootcert", "system") and not Path(value).is_file():
        raise ValueError(f"{given}: there is no such file")


def _without_host_list(url: str) -> str:
    """SQLAlchemy accepts several hosts only as parameters, and no empty port."""
    found = _SCHEME.fullmatch(url)
    if found is None:
        return url
    scheme, rest = found.groups()
    user, at, rest = rest.partition("@") if "@" in rest else ("", "", rest)
    match = _AUTHORITY.match(rest)
    hosts = (match[0] if match is not None else "").removesuffix(":")
    path, _, query = rest[len(match[0]) if match is not None else 0 :].partition("?")
    if "," not in hosts:
        return f"{scheme}{user}{at}{hosts}{path}{'?' if query else ''}{query}"
    # As in libpq, hosts in the parameters override these.
    is_overridden = re.search(r"(^|&)host=", query) is not None
    given = "" if is_overridden else "&".join(f"host={quote(unquote(host), safe=':[]/')}" for host in hosts.split(","))
    return f"{scheme}{user}{at}{path or '/'}?{'&'.join(filter(None, (given, query)))}"


def _host_and_port(text: str) -> tuple[str | None, str]:
    if text.startswith("/"):
        return text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, port.removeprefix(":")
    host, _, port = text.partition(":") if text.count(":") == 1 else (text, "", "")
    return host, port


def _seconds_in_environment() -> int:
    given = os.environ.get("PGCONNECT_TIMEOUT", "")
    return int(given) if given.isdecimal() else 0


def _number(url: URL, name: str, usual: int) -> int:
    value: Any = url.query.get(name, usual)
    return int(value)
