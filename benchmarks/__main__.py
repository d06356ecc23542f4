"""Ratios between things that run in turn on one machine: ``python -m benchmarks [store|servers]``."""

import argparse
import asyncio
import tempfile
from pathlib import Path

from app.db import migrations
from app.db.embedded import EmbeddedPostgres
from benchmarks import servers, store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=["store", "servers", "all"])
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each side of the store runs in a round")
    parser.add_argument("--rounds", type=int, default=9, help="how often each server is measured")
    parser.add_argument("--scale", type=float, default=1.0, help="of the load on the servers")
    parser.add_argument("--quick", action="store_true", help="two figures of the servers only")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        # The server may run as another user, who has to walk through here.
        Path(directory).chmod(0o755)
        postgres = EmbeddedPostgres(Path(directory) / "postgres")
        try:
            migrations.upgrade(postgres.start())
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
