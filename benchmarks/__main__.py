"""Runs benchmarks as ratios of two sides on one machine: ``python -m benchmarks [store|servers]``."""

import argparse
import asyncio
import os
import platform
import tempfile
from pathlib import Path

from sqlalchemy import URL

from benchmarks import servers, store
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=["store", "servers", "all"])
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each side of the store runs in a round")
    parser.add_argument("--rounds", type=int, default=9, help="how often each server is measured")
    parser.add_argument("--scale", type=float, default=1.0, help="of the load on the servers")
    parser.add_argument("--quick", action="store_true", help="two figures of the servers only")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        # The server may run as another user, who needs access to this directory.
        Path(directory).chmod(0o755)
        postgres = EmbeddedPostgres(Path(directory) / "postgres")
        try:
            migrations.upgrade(postgres.start())
            print(machine(postgres.url))
            if arguments.what != "servers":
                asyncio.run(store.measure(postgres.url, arguments.seconds))
            if arguments.what != "store":
                measures = servers.MEASURES[:2] if arguments.quick else servers.MEASURES
                asyncio.run(
                    servers.measure(
                        postgres.url, Path(directory), measures, rounds=arguments.rounds, scale=arguments.scale
                    )
                )
        finally:
            postgres.stop()


if __name__ == "__main__":
    main()
