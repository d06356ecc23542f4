"""Database URLs as people and providers write them: what libpq understands works, or is refused by its name."""

import asyncio
import re
import socket
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL

from chatkit_postgres.db import Database, Statement
from chatkit_postgres.db.address import connect_arguments, hosts_of, is_behind_pooler, keepalive_of, normalised_url
from chatkit_postgres.db.connecting import connector, driver_arguments
from tests.support.failover import Server
from tests.support.sql import sql_connection

SHOW = Statement("show", "SELECT current_setting(:setting) AS value, :owner AS owner", setting="text")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_the_urls_that_providers_print_are_accepted(scheme: str) -> None:
    url = normalised_url(f"{scheme}://u:p@host:5433/db?sslmode=require")
    assert url.drivername == "postgresql+asyncpg"
    assert (url.host, url.port, url.database, url.query) == ("host", 5433, "db", {"sslmode": "require"})


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://u:secret@h/d", "postgresql+psycopg2://h/d", "http://h"])
def test_other_urls_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ValueError, match=r"not a (PostgreSQL|database) URL") as refused:
        normalised_url(url)
    assert "secret" not in str(refused.value)


HOSTS: dict[str, list[tuple[str | None, int | None]]] = {
    "h/d": [("h", None)],
    "h:6000/d": [("h", 6000)],
    "h:/d": [("h", None)],
    "/d": [(None, None)],
    "/d?port=5433": [(None, 5433)],
    ":5433/d": [(None, 5433)],
    "h1,h2/d": [("h1", None), ("h2", None)],
    "h1:1,h2:2/d": [("h1", 1), ("h2", 2)],
    "h1:1,h2,[::1]:3/d?sslmode=disable": [("h1", 1), ("h2", None), ("::1", 3)],
    "/d?host=h1,h2&port=1,2": [("h1", 1), ("h2", 2)],
    "/d?host=h1,h2&port=7": [("h1", 7), ("h2", 7)],
    "/d?host=h1:1&host=h2:2": [("h1", 1), ("h2", 2)],
    "/d?host=/cloudsql/x:y:z": [("/cloudsql/x:y:z", None)],
    "%2Fvar%2Frun%2Fpostgresql:7001/d": [("/var/run/postgresql", 7001)],
    "h1,%2Ftmp/d": [("h1", None), ("/tmp", None)],  # noqa: S108 - an address
    # As in libpq, a parameter wins.
    "h:9/d?port=7001": [("h", 7001)],
    "h/d?host=other": [("other", None)],
    "h1,h2/d?host=h3": [("h3", None)],
    "h/x?dbname=d": [("h", None)],
}


@pytest.mark.parametrize("rest", HOSTS)
@pytest.mark.parametrize("user", ["", "u:p,%40@", "u:Ab,c?d@", "u:Ab,c#d@", "u:a/b,c@"])
def test_hosts(rest: str, user: str) -> None:
    url = normalised_url(f"postgresql://{user}{rest}")
    assert [(host.name, host.port) for host in hosts_of(url)] == HOSTS[rest]
    given = connect_arguments(url)
    assert given["database"] == "d"
    password = user[2:-1].replace("%40", "@") or None
    assert given.get("password") == password
    assert given.get("user") == (user[:1] or None)
    # As Alembic is handed it.
    again = normalised_url(url.render_as_string(hide_password=False))
    assert (connect_arguments(again), hosts_of(again)) == (given, hosts_of(url))


REFUSED = {
    "channel_binding=require": "channel_binding=require is not supported; remove it, or set disable",
    "client_encoding=latin1": "client_encoding=latin1 is not supported; remove it, or set auto",
    "load_balance_hosts=random": "load_balance_hosts=random is not supported; remove it, or set disable",
    "sslmode=yes": "sslmode is one of allow, disable, prefer, require, verify-ca, verify-full",
    "target_session_attrs=primaries": (
        "target_session_attrs is one of any, prefer-standby, primary, read-only, read-write, standby"
    ),
    "connect_timeout=soon": "connect_timeout is a whole number",
    "ssl=yes": "ssl is one of allow, disable, prefer, require, verify-ca, verify-full",
    "ssl=require&sslmode=verify-full": "ssl says the same as sslmode: take one of them out",
    "pgbouncer=1": "pgbouncer is one of false, true",
    "statement_cache_size=none": "statement_cache_size is a whole number",
    "sslrootcert=/nowhere.pem": "sslrootcert: there is no such file",
    "port=abc": "port is a whole number",
    "host=h:abc": "port is a whole number",
    "host=h1,h2,h3&port=1,2": "port: 2 ports for 3 hosts",
    "replication=database": "the parameter 'replication' is not known",
    "conect_timeout=1": "the parameter 'conect_timeout' is not known",
    "require_auth=scram-sha-256": "the parameter 'require_auth' is not known",
}


@pytest.mark.parametrize("query", REFUSED)
def test_what_cannot_be_followed_is_refused_by_its_name(query: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(REFUSED[query])}$"):
        normalised_url(f"postgresql://u:secret@h/d?{query}")


SETTINGS: dict[str, tuple[str, str]] = {
    "options=-c%20search_path%3Dpg_catalog": ("search_path", "pg_catalog"),
    "options=-csearch_path%3Dpg_catalog%20--work-mem%3D8MB": ("work_mem", "8MB"),
    "options=-c%20application_name%3Dtwo\\%20words": ("application_name", "two words"),
    "application_name=chat": ("application_name", "chat"),
    "fallback_application_name=chat": ("application_name", "chat"),
    "connect_timeout=3&connect_timeout=4": ("transaction_read_only", "off"),
    "ssl=disable": ("transaction_read_only", "off"),
    "statement_cache_size=50": ("transaction_read_only", "off"),
    "target_session_attrs=prefer-standby": ("transaction_read_only", "off"),
    "target_session_attrs=read-write": ("transaction_read_only", "off"),
    "target_session_attrs=primary": ("transaction_read_only", "off"),
    "connect_timeout=3": ("transaction_read_only", "off"),
    "channel_binding=prefer": ("transaction_read_only", "off"),
    "sslmode=disable": ("transaction_read_only", "off"),
    "pgbouncer=true": ("transaction_read_only", "off"),
    "statement_cache_size=0": ("transaction_read_only", "off"),
}


@pytest.mark.parametrize("query", SETTINGS)
async def test_parameters_reach_the_server(database_url: URL, query: str) -> None:
    given = database_url.render_as_string(hide_password=False)
    database = Database(f"{given}{'&' if '?' in given else '?'}{query}")
    name, value = SETTINGS[query]
    (row,) = await database.run("alice", SHOW, setting=name)
    assert row["value"] == value
    async with sql_connection(database) as connection:
        found = await connection.exec_driver_sql(f"SHOW {name}")
        assert found.scalar_one() == value
    await database.close()


def test_how_long_a_connection_may_take() -> None:
    assert connect_arguments(normalised_url("postgresql://h/d"))["timeout"] == 5
    assert connect_arguments(normalised_url("postgresql://h/d?connect_timeout=12"))["timeout"] == 12
    assert connect_arguments(normalised_url("postgresql://h/d?connect_timeout=0"))["timeout"] == 5


@pytest.mark.parametrize("query", ["pgbouncer=true", "statement_cache_size=0", "prepared_statement_cache_size=0"])
def test_poolers_are_known_by_their_parameters(query: str) -> None:
    url = normalised_url(f"postgresql://h/d?{query}")
    assert is_behind_pooler(url)
    assert connect_arguments(url)["statement_cache_size"] == 0
    assert driver_arguments(url)["prepared_statement_cache_size"] == 0
    assert not is_behind_pooler(normalised_url("postgresql://h/d?pgbouncer=false"))


KEEPALIVE: dict[str, dict[str, int]] = {
    "": {"keepalives_idle": 30, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 5000},
    "keepalives=0": {},
    "tcp_user_timeout=0": {"keepalives_idle": 30, "keepalives_interval": 5, "keepalives_count": 3},
    "keepalives_idle=7&tcp_user_timeout=900": {
        "keepalives_idle": 7,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 900,
    },
}


@pytest.mark.parametrize("query", KEEPALIVE)
def test_how_a_lost_connection_is_noticed(query: str) -> None:
    assert keepalive_of(normalised_url(f"postgresql://h/d?{query}")) == KEEPALIVE[query]


def test_every_argument_is_one_of_the_driver() -> None:
    given: Any = connect_arguments(normalised_url("postgresql://u:p@h/d?application_name=x&sslmode=require"))
    known = set(asyncpg.connect.__kwdefaults__ or ()) | {"dsn"}
    assert given.keys() <= known


def test_tls_with_the_systems_certificates_checks_the_name() -> None:
    given = connect_arguments(normalised_url("postgresql://h/d?sslmode=verify-full&sslrootcert=system"))
    assert given["ssl"].check_hostname
    assert "ssl" not in given["dsn"].partition("?")[2]


def test_the_environment_says_what_the_url_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGOPTIONS": "-c work_mem=8MB", "PGAPPNAME": "app", "PGCONNECT_TIMEOUT": "7"}.items():
        monkeypatch.setenv(name, value)
    given = connect_arguments(normalised_url("postgresql://h/d"))
    assert given["server_settings"] == {"application_name": "app", "options": "-c work_mem=8MB"}
    assert given["timeout"] == 7
    given = connect_arguments(
        normalised_url("postgresql://h/d?application_name=x&connect_timeout=2&options=-cgeqo%3Doff")
    )
    assert given["server_settings"] == {"application_name": "x", "options": "-cgeqo=off"}
    assert given["timeout"] == 2


async def test_what_a_provider_reads_in_the_options_reaches_it() -> None:
    """Neon's ``endpoint=...``, Supabase's ``reference=...``: PostgreSQL itself would refuse them."""
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(1000))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"postgresql://u@127.0.0.1:{port}/d?sslmode=disable&options=endpoint%3Dep-1"
        with pytest.raises((OSError, asyncpg.PostgresError)):
            await connector(normalised_url(url))()
    assert b"options\x00endpoint=ep-1\x00" in seen[0]


@pytest.mark.slow
@pytest.mark.parametrize("silent", [1, 2])
async def test_a_host_that_is_lost_without_a_word_does_not_use_up_the_time_of_the_next(
    tmp_path: Path, postgres_bin: Path | None, silent: int
) -> None:
    await asyncio.to_thread(tmp_path.chmod, 0o755)
    there = Server(tmp_path / "there", postgres_bin)
    there.make()
    there.start()
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(silent)]
    hosts = [f"127.0.0.1:{lost.getsockname()[1]}" for lost in sockets] + [f"127.0.0.1:{there.port}"]
    url = f"postgresql://postgres@{','.join(hosts)}/postgres?target_session_attrs=read-write&connect_timeout=1"
    connect = connector(normalised_url(url))
    for _ in range(3):
        connection = await connect()
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
    # The first time alone: it is asked first from then on.
    for lost in sockets:
        lost.setblocking(False)
        lost.accept()[0].close()
        with pytest.raises(BlockingIOError):
            lost.accept()
        lost.close()
    there.stop()
