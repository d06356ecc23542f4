"""A database as a cluster, whose statements for several owners are run for each of them."""

import pytest

from chatkit_postgres.db import Database


def run_apart(patch: pytest.MonkeyPatch) -> None:
    async def is_cluster(_: Database) -> bool:
        return True

    patch.setattr(Database, "is_cluster", is_cluster)
