"""Database URLs as people and providers write them: what libpq understands works, or is refused by its name."""

import re
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL

from app.db import Database, Statement
from app.db.address import connect_arguments, is_behind_pooler, keepalive_of, normalised_url

SHOW = Statement("show", "SELECT current_setting(:setting) AS value, :owner AS owner")


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


HOSTS: dict[str, tuple[list[str], list[int]]] = {
    "h/d": (["h"], [5432]),
    "h:6000/d": (["h"], [6000]),
    "h1,h2/d": (["h1", "h2"], [5432, 5432]),
    "h1:1,h2:2/d": (["h1", "h2"], [1, 2]),
    "h1:1,h2,[::1]:3/d?sslmode=disable": (["h1", "h2", "::1"], [1, 5432, 3]),
    "/d?host=h1,h2&port=1,2": (["h1", "h2"], [1, 2]),
    "/d?host=h1,h2&port=7": (["h1", "h2"], [7, 7]),
    "/d?host=h1:1&host=h2:2": (["h1", "h2"], [1, 2]),
    "/d?host=/var/run/postgresql": (["/var/run/postgresql"], [5432]),
}


@pytest.mark.parametrize("rest", HOSTS)
@pytest.mark.parametrize("user", ["", "u:p,%40@"])
def test_hosts(rest: str, user: str) -> None:
    url = normalised_url(f"postgresql://{user}{rest}")
    given = connect_arguments(url)
    assert (given["host"], given["port"]) == HOSTS[rest]
    assert given["database"] == "d"
    assert given.get("password") == ("p,@" if user else None)
    # As Alembic is handed it.
    assert connect_arguments(normalised_url(url.render_as_string(hide_password=False))) == given


REFUSED = {
    "channel_binding=require": "channel_binding=require cannot be followed; take it out, or set disable",
    "client_encoding=latin1": "client_encoding=latin1 cannot be followed; take it out, or set auto",
    "load_balance_hosts=random": "load_balance_hosts=random cannot be followed; take it out, or set disable",
    "sslmode=yes": "sslmode is one of allow, disable, prefer, require, verify-ca, verify-full",
    "target_session_attrs=primaries": (
        "target_session_attrs is one of any, prefer-standby, primary, read-only, read-write, standby"
    ),
    "connect_timeout=soon": "connect_timeout is a whole number",
    "options=-x": "options: only -c name=value and --name=value are understood",
    "options=-c%20search_path": "options: only -c name=value and --name=value are understood",
    "options=%27": "options: a quotation mark or a backslash stands alone",
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
    async with database.connection() as connection:
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
    given = connect_arguments(url)
    assert given["statement_cache_size"] == given["prepared_statement_cache_size"] == 0
    assert not is_behind_pooler(normalised_url("postgresql://h/d?pgbouncer=false"))


KEEPALIVE: dict[str, dict[str, int]] = {
    "": {"keepalives_idle": 30, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 5000},
    "keepalives=0": {},
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
