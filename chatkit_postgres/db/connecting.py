"""Opens connections to the first reachable host of the requested kind."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from sqlalchemy import URL

from chatkit_postgres.db.address import Host, connect_arguments, hosts_of, is_behind_pooler, wanted_session_of

PREFERRED = {"prefer-standby": ("standby", "any")}


def driver_arguments(url: URL, **changed: Any) -> dict[str, Any]:
    """For SQLAlchemy's dialect, which has a cache of prepared statements besides asyncpg's."""
    return {
        "async_creator_fn": connector(url, **changed),
        "prepared_statement_cache_size": 0 if is_behind_pooler(url) else 100,
    }


def connector(url: URL, **changed: Any) -> Callable[..., Awaitable[Any]]:
    """Return the function that opens a connection. Hosts are tried in order, each with the full time-out; with
    ``target_session_attrs``, the last match is tried first.

    It raises the PostgresError of a host, or else the last error; OSError if no host matches.
    """
    arguments = connect_arguments(url) | changed
    hosts = hosts_of(url)

    async def connect(**_: Any) -> Any:
        for wanted in PREFERRED.get(wanted_session_of(url), (wanted_session_of(url),)):
            error: Exception | None = None
            for host in list(hosts):
                try:
                    connection = await asyncpg.connect(**arguments, **_of(host), target_session_attrs=wanted)
                except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InternalClientError) as refused:
                    error = error if isinstance(error, asyncpg.PostgresError) else refused
                    continue
                if len(hosts) > 1 and wanted != "any":
                    hosts.remove(host)
                    hosts.insert(0, host)
                return connection
        if isinstance(error, asyncpg.InternalClientError):
            raise OSError(f"no host is {wanted_session_of(url)}") from error
        raise error or OSError("no host is named")

    return connect


def _of(host: Host) -> dict[str, Any]:
    named = {"host": host.name, "port": host.port}
    return {name: value for name, value in named.items() if value is not None}
