"""A real PostgreSQL for the whole run; a fresh, migrated database for each test that asks for one."""

import asyncio
import gc
import itertools
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import asyncpg
import pytest
from sqlalchemy import URL

from chatkit_postgres.db import Database, migrations
from chatkit_postgres.db.address import normalised_url
from chatkit_postgres.db.connecting import connector
from chatkit_postgres.db.distribution import distribute
from chatkit_postgres.db.embedded import EmbeddedPostgres
from chatkit_postgres.db.tables import metadata
from chatkit_postgres.store import DatabaseStore
from tests.support.processes import ChatProcess, ModelServer

T = TypeVar("T")
P = ParamSpec("P")
Some = Callable[[Collection[Any]], list[Any]]

TEMPLATE = "chat_template"
CLUSTER = os.environ.get("CHAT_TEST_CITUS_URL")
"""The database of a Citus cluster that tests may empty, in place of a database of their own."""
MEMORY_ENOUGH = 6 * 1024**3
_numbers = itertools.count(1)

TESTS = Path(__file__).parent
NEEDS = {"field": "--field", "site": "--site", "upgrade": "--upgrade", "wheel": "--wheel"}
"""Folders of tests that need more than `make setup` installs, and the option that says where it is."""

SLOW = {
    "acceptance": ("servers", "starts the server as users do, and restarts it"),
    "assistant/test_careless_servers.py": ("random", "hundreds of streams with random faults"),
    "assistant/test_differential.py": ("random", "five thousand streams, each read by two clients"),
    "assistant/test_mcp.py": ("servers", "starts MCP servers over both transports"),
    "assistant/test_providers.py": ("servers", "a server for each API and each kind of model server"),
    "browser": ("browser", "opens pages in Chromium, and builds the Next.js example"),
    "canary": ("random", "hundreds of random requests of three users"),
    "cli": ("servers", "runs commands in processes of their own"),
    "deploy/test_proxies.py": ("servers", "starts nginx and Caddy in front of a server"),
    "db/test_embedded.py": ("servers", "makes, kills and restarts PostgreSQL clusters"),
    "db/test_fitness.py": ("servers", "starts the server on databases that do not fit"),
    "db/test_pgbouncer.py": ("servers", "starts PgBouncer"),
    "faults": ("servers", "kills servers, databases and connections, each three times"),
    "field": ("servers", "answers through LiteLLM, llmock and aimock"),
    "isolation": ("servers", "every operation and statement, with every id that is not the caller's"),
    "mounted": ("servers", "starts an application that mounts ours"),
    "poison": ("random", "more than a hundred bad values in every place of every request"),
    "protocol": ("servers", "runs every operation, restarts the server, and reads everything back"),
    "samples": ("servers", "starts a server for each sample"),
    "test_examples.py": ("servers", "starts each example"),
    "test_packaging.py": ("servers", "builds a wheel, installs it, and migrates a database with it"),
    "site": ("browser", "opens every page of the documentation"),
    "upgrade": ("servers", "serves with the version before and with this one"),
    "wheel": ("servers", "uses an installed wheel as a team does"),
}
"""Folders and files to the mark of all their tests, and why they are slow. `make test-fast` leaves them out."""

SLOW_FIXTURES = {
    "demo": "a server with its own PostgreSQL",
    "model_server": "a model server in another process",
    "strict_model_server": "a model server in another process",
    "minimal_model_server": "a model server in another process",
}
"""Fixtures and what they start: tests that use one are marked ``servers``. Other tests are marked by hand."""


FAMILIES = {
    "isolation/test_owners.py": "one for each statement, and for each that forgets its owner",
    "attachments/test_cleanup.py": "one for each step at which a process dies",
    "assistant/test_providers.py": "one for each API, server and failure",
    "approvals/test_kinds.py": "one for each API, kind of tool and rule",
    "poison/test_poison.py": "one for each place of each operation",
}
"""Tests of one kind, of which `--every` also keeps every Nth, from a random start."""
FIRST = int(os.environ.setdefault("CHAT_TEST_FIRST", str(random.randrange(1000))))
"""The random start: the processes of a run must keep the same tests."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-runs", type=int, default=3, help="how often each fault happens, at random moments")
    parser.addoption("--every", type=int, default=1, help="every Nth generated input, and every third slow test")
    parser.addoption("--share", type=int, default=1, help="run every Nth test, from a random start")
    parser.addoption("--backwards", action="store_true", help="the last test first: none may lean on one before it")
    parser.addoption("--pictures", type=Path, help="where to put the pictures of the playground that the README shows")
    parser.addoption("--complete", action="store_true", help="fail if a test is skipped, as CI wants it")
    parser.addoption("--minimal-models", action="store_true", help="every test on a model server that sends the least")
    parser.addoption("--strict-models", action="store_true", help="and on one that refuses what real APIs refuse")
    parser.addoption("--field", type=Path, help="where `make field` has installed model servers that are not ours")
    parser.addoption("--assistant", help="the import string of the assistant that faults happen to")
    parser.addoption("--wheel", type=Path, help="where `make wheel` has installed the wheel")
    parser.addoption("--site", type=Path, help="where `make docs` has built the documentation")
    parser.addoption("--upgrade", type=Path, help="where `make upgrade` has installed the version before")
    parser.addoption("--upgrade-rows", type=int, default=20_000, help="how many messages are there when it is migrated")
    parser.addoption("--upgrade-seconds", type=float, default=4, help="how long each step of an upgrade is watched")
    parser.addoption(
        "--hosted-threads", type=int, default=100, help="how many threads are imported, with twenty items each"
    )
    parser.addoption("--canary-requests", type=int, default=500, help="how many requests the canary users make")


@pytest.fixture(scope="session")
def some(pytestconfig: pytest.Config) -> Some:
    """Generated inputs: all of them, or every Nth, from a random start."""
    step: int = pytestconfig.getoption("--every")
    return lambda inputs: list(inputs)[FIRST % max(1, min(step, len(inputs))) :: step]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path == TESTS / "cluster" / "test_cluster.py":
        return None if CLUSTER else True
    option = NEEDS.get(collection_path.name) if collection_path.parent == TESTS else None
    return True if option is not None and config.getoption(option) is None else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # First, because `-m` selects by these marks.
    for item in items:
        path = item.path.relative_to(TESTS)
        mark, _ = SLOW.get(path.parts[0]) or SLOW.get(path.as_posix()) or ("", "")
        if not mark and not SLOW_FIXTURES.keys().isdisjoint(getattr(item, "fixturenames", ())):
            mark = "servers"
        if mark:
            item.add_marker(mark)
            item.add_marker("slow")
    every, share = config.getoption("--every"), config.getoption("--share")
    kept = [item for number, item in enumerate(_every(items, every)) if (number - FIRST) % share == 0]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept[::-1] if config.getoption("--backwards") else kept


def _every(items: list[pytest.Item], step: int) -> Iterator[pytest.Item]:
    """All tests, but of each family every Nth, and of other slow ones every third."""
    numbers = Counter[str]()
    for item in items:
        path = item.path.relative_to(TESTS).as_posix()
        if path in FAMILIES:
            skips = step
        elif step > 1 and item.get_closest_marker("slow") is not None:
            skips = 3
        else:
            skips = 1
        numbers[path] += 1
        if (numbers[path] - FIRST) % skips == 0:
            yield item


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    # Modules and thousands of tests stay to the end: the garbage collector need not look at them again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    # Where a browser, npm or a pooler is missing, the tests that need it are skipped.
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--complete") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


async def connected(url: URL) -> "asyncpg.Connection[Any]":
    """To an embedded server, or to the cluster."""
    host = str(url.query.get("host", url.host))
    return await asyncpg.connect(host=host, port=url.port, user=url.username, database=url.database)


def query(url: URL, question: str) -> list[dict[str, Any]]:
    """Ask a database of the tests."""

    async def run() -> list[dict[str, Any]]:
        connection = await connected(url)
        try:
            return [dict(row) for row in await connection.fetch(question)]
        finally:
            await connection.close()

    return _in_another_thread(asyncio.run, run())


def execute(url: URL, *commands: str) -> None:
    """Run commands on a database of the tests."""

    async def run() -> None:
        connection = await connected(url)
        try:
            for command in commands:
                await connection.execute(command)
        finally:
            await connection.close()

    _in_another_thread(asyncio.run, run())


def _in_another_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What starts a loop of its own cannot run in the tests' thread: a browser's driver may have one there."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *args, **kwargs).result()


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """What the caller's shell has set for a server of theirs must not change what is tested."""
    keep = {"CHAT_POSTGRES_BIN"}
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if (name.startswith(("CHAT_", "OPENAI_", "AWS_")) or name == "DATABASE_URL") and name not in keep:
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def postgres_bin() -> Path | None:
    chosen = os.environ.get("CHAT_POSTGRES_BIN")
    return Path(chosen) if chosen else None


@pytest.fixture(scope="session")
def embedded_settings(postgres_bin: Path | None) -> dict[str, str]:
    return {"CHAT_POSTGRES_BIN": str(postgres_bin)} if postgres_bin else {}


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, embedded_settings: dict[str, str]) -> Iterator[ChatProcess]:
    """What `make run` starts: embedded database, development mode, demo model. Each test takes users of its own."""
    server = ChatProcess(tmp_path_factory.mktemp("demo"), **embedded_settings)
    yield server.wait_until_ready()
    assert server.stop() == 0


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory, postgres_bin: Path | None) -> Iterator[URL]:
    """A server with a migrated template database."""
    with _quick_directory(tmp_path_factory) as directory:
        server = EmbeddedPostgres(directory / "postgres", binaries=postgres_bin)
        url = server.start()
        try:
            # The kernel keeps what was written when a server dies; only a power cut would lose it.
            execute(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()", f"CREATE DATABASE {TEMPLATE}")
            _in_another_thread(migrations.upgrade, url.set(database=TEMPLATE))
            yield url
        finally:
            server.stop()


@contextmanager
def _quick_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In memory where there is plenty: a database is 300 files, and ext4 makes files slowly where others just went."""
    memory = Path("/dev/shm")  # noqa: S108 - a directory of its own in it
    if memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_ENOUGH:
        with tempfile.TemporaryDirectory(prefix="chatkit-tests-", dir=memory) as directory:
            Path(directory).chmod(0o711)
            yield Path(directory)
    else:
        yield tmp_path_factory.mktemp("postgres")


@contextmanager
def fresh_database(server: URL, origin: str = "") -> Iterator[URL]:
    """A database of its own for as long as the block runs: commits are real, ``now()`` moves, connections are many."""
    name = f"chat_test_{next(_numbers)}"
    execute(server, f"CREATE DATABASE {name} {origin}")
    yield server.set(database=name)
    execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def cluster() -> URL:
    """A migrated and distributed database of Citus, with the rows of the test before."""
    assert CLUSTER is not None, "CHAT_TEST_CITUS_URL is not set"
    assert "PYTEST_XDIST_WORKER" not in os.environ, "there is one cluster: --numprocesses 0"
    url = normalised_url(CLUSTER)
    assert "test" in str(url.database), "the tests drop every table of CHAT_TEST_CITUS_URL: use a database named test"
    _in_another_thread(migrations.upgrade, url)
    _in_another_thread(distribute, url)
    return url


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> Iterator[URL]:
    with migrated_database(request) as url:
        yield url


@pytest.fixture(scope="module")
def shared_database(request: pytest.FixtureRequest) -> Iterator[URL]:
    """The same for a whole module, whose tests take users of their own."""
    with migrated_database(request) as url:
        yield url


@contextmanager
def migrated_database(request: pytest.FixtureRequest) -> Iterator[URL]:
    """A clone of the template, or the emptied cluster."""
    if CLUSTER:
        url: URL = request.getfixturevalue("cluster")
        _in_another_thread(asyncio.run, _truncate(url))
        yield url
        return
    with fresh_database(request.getfixturevalue("postgres"), f"TEMPLATE {TEMPLATE} STRATEGY FILE_COPY") as url:
        yield url


async def _truncate(url: URL) -> None:
    connection = await connector(url, command_timeout=None)()
    try:
        # By Citus, for each table in turn.
        await connection.execute(f"TRUNCATE {', '.join(metadata.tables)} CASCADE")
    finally:
        await connection.close()


@pytest.fixture
def empty_url(postgres: URL) -> Iterator[URL]:
    """A database that was never migrated."""
    with fresh_database(postgres) as url:
        yield url


@pytest.fixture(scope="session")
def model_server(request: pytest.FixtureRequest) -> Iterator[ModelServer]:
    option = request.config.getoption
    server = ModelServer(is_minimal=option("--minimal-models"), is_strict=option("--strict-models"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def strict_model_server() -> Iterator[ModelServer]:
    server = ModelServer(is_strict=True)
    yield server
    server.close()


@pytest.fixture(scope="session")
def minimal_model_server() -> Iterator[ModelServer]:
    server = ModelServer(is_minimal=True)
    yield server
    server.close()


@pytest.fixture
async def database(database_url: URL) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
def store(database: Database) -> DatabaseStore:
    return DatabaseStore(database)
