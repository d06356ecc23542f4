"""Runs benchmarks, most as ratios of two sides on one machine.

``python -m benchmarks [store|servers|load|wal|scale|followers|search|retention|limits]``

Without a name: the store and the servers.
"""

import argparse
import asyncio
import os
import platform
import tempfile
from pathlib import Path

from sqlalchemy import URL

from benchmarks import followers, limits, load, retention, scale, search, servers, store, wal
from chatkit_postgres.db import Database, Statement, migrations
from chatkit_postgres.db.embedded import EmbeddedPostgres


def machine(database: URL) -> str:
    """Describe the environment of the figures."""
    processor = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("model name")[2].partition("\n")[0].strip(" :\t")
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = f"{len(os.sched_getaffinity(0))} cores ({processor})"
    software = (
        f"{platform.system()}, Python {platform.python_version()}, PostgreSQL {asyncio.run(_version_of(database))}"
    )
    return f"{cores}, {memory:.0f} GiB, {software}"


async def _version_of(database: URL) -> str:
    version = Statement("version", "SELECT current_setting('server_version') AS version")
    (row,) = await Database(database, pooled=False).run_once(version)
    return str(row["version"])


def main() -> None:
    arguments = _arguments()
    if arguments.what in {"load", "wal", "limits"}:
        load.share_two_cores()
    with tempfile.TemporaryDirectory() as directory:
        # The server may run as another user, who needs access to this directory.
        Path(directory).chmod(0o755)
        postgres = EmbeddedPostgres(Path(directory) / "postgres")
        try:
            migrations.upgrade(postgres.start())
            print(machine(postgres.url))
            asyncio.run(_measure(arguments, postgres, Path(directory)))
        finally:
            postgres.stop()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    names = ["store", "servers", "load", "wal", "scale", "followers", "search", "retention", "limits", "all"]
    parser.add_argument("what", nargs="?", default="all", choices=names, help="all: store and servers")
    parser.add_argument("--seconds", type=float, default=3.0, help="store: how long each side runs in a round")
    parser.add_argument("--rounds", type=int, default=9, help="servers: how often each server is measured")
    parser.add_argument("--scale", type=float, default=1.0, help="servers: of the load on them")
    parser.add_argument("--quick", action="store_true", help="servers: two figures only")
    parser.add_argument("--answers", type=_sizes, default=[100, 300, 1000], help="load: how many, for each run")
    parser.add_argument("--begin", type=float, default=50.0, help="load: how many are begun in a second")
    parser.add_argument("--words", type=_sizes, default=[1000, 4000], help="wal: of an answer, for each run")
    sizes = "scale: messages in the smaller and in the larger database; search: the last number; retention: the first"
    parser.add_argument("--followers", type=int, default=1000, help="followers: how many")
    parser.add_argument("--messages", type=_sizes, default=[10_000, 2_000_000], help=sizes)
    return parser.parse_args()


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",")]


async def _measure(arguments: argparse.Namespace, postgres: EmbeddedPostgres, directory: Path) -> None:
    database = postgres.url
    match arguments.what:
        case "load":
            await load.measure(database, directory, arguments.answers, begin=arguments.begin)
        case "limits":
            await limits.measure(database, directory, arguments.answers[-1], begin=arguments.begin)
        case "wal":
            await wal.measure(database, directory, arguments.words)
        case "followers":
            await followers.measure(database, directory, arguments.followers, seconds=20)
        case "retention":
            await retention.measure(database, postgres.log, directory, arguments.messages[0])
        case "search":
            await search.measure(database, directory, arguments.messages[-1])
        case "scale":
            small, large = arguments.messages
            await scale.measure(database, directory, small, large)
        case _:
            if arguments.what != "servers":
                await store.measure(database, arguments.seconds)
            if arguments.what != "store":
                measures = servers.MEASURES[:2] if arguments.quick else servers.MEASURES
                await servers.measure(database, directory, measures, rounds=arguments.rounds, scale=arguments.scale)


if __name__ == "__main__":
    main()
