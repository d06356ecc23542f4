"""The list of disabled users, and what takes its place while it cannot be had."""

import pytest

from chatkit_postgres.auth.disabled_users import DisabledUsers
from chatkit_postgres.db import Database
from chatkit_postgres.db.users import DISABLE_USER, LIST_DISABLED_USERS
from chatkit_postgres.errors import DatabaseUnavailable


@pytest.fixture
async def disabled(database: Database, monkeypatch: pytest.MonkeyPatch) -> DisabledUsers:
    """In a database that cannot ask all its nodes."""
    await database.run("mallory", DISABLE_USER)
    run_for_all_owners = database.run_for_all_owners

    async def fails(statement: object, **parameters: object) -> object:
        if statement is LIST_DISABLED_USERS:
            raise DatabaseUnavailable
        return await run_for_all_owners(statement, **parameters)  # type: ignore[arg-type]

    monkeypatch.setattr(database, "run_for_all_owners", fails)
    return DisabledUsers(database)


@pytest.mark.one_postgres
async def test_on_one_postgresql_nobody_is_served_while_the_list_cannot_be_had(disabled: DisabledUsers) -> None:
    with pytest.raises(DatabaseUnavailable):
        await disabled.includes("alice")


async def test_in_a_cluster_whose_node_is_down_the_users_of_others_are_looked_up(
    disabled: DisabledUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "is_known_cluster", property(lambda _: True))
    assert not await disabled.includes("alice")
    assert await disabled.includes("mallory")
