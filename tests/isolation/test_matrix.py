"""The isolation matrix against a real server."""

from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
from sqlalchemy import URL

from chatkit_postgres.db import Database
from chatkit_postgres.store import DatabaseStore
from tests.faults.harness import NO_CHORES, environment, new_user
from tests.isolation.matrix import (
    AS_OPERATION,
    OWN,
    ROUTES,
    RULES,
    SECRET,
    Matrix,
    connected,
    id_fields,
    id_slots,
    operations,
)
from tests.isolation.user_data import UserData, store_user_data
from tests.support.processes import ChatProcess, ModelServer


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> Iterator[ChatProcess]:
    own = {"CHAT_JWT_SECRET": SECRET, "CHAT_JWT_ISSUER": str(RULES.issuer), "CHAT_STAFF_CLAIM": "role:support"}
    process = ChatProcess(
        tmp_path_factory.mktemp("matrix"), **environment(shared_database, model_server) | own | NO_CHORES
    )
    yield process.wait_until_ready()
    assert process.stop() == 0


@pytest.fixture
async def matrix(server: ChatProcess, shared_database: URL, model_server: ModelServer) -> AsyncIterator[Matrix]:
    pool = Database(shared_database, pool_size=1)
    store = DatabaseStore(pool)
    own, victim = (
        await store_user_data(store, UserData(new_user(), "MINE")),
        await store_user_data(store, UserData(new_user(), "SECRET", is_answered=True)),
    )
    await pool.close()

    async def calls() -> int:
        return len(model_server.calls())

    async with (
        httpx2.AsyncClient(base_url=server.base_url, timeout=30) as client,
        connected(shared_database) as database,
    ):
        yield Matrix(client, database, own, victim, calls)


def test_every_operation_and_every_id_in_it_has_a_row() -> None:
    assert set(OWN) - set(ROUTES) - set(AS_OPERATION) == set(operations()), (
        "an operation has no row in the isolation matrix"
    )
    user_data = UserData("somebody", "MARK")
    for name, model in operations().items():
        params = model.model_fields["params"].annotation
        assert isinstance(params, type)
        named = {tuple(step for step in path if isinstance(step, str)) for path in id_slots(OWN[name](user_data))}
        assert named == id_fields(params), f"{name}: an id of the request is missing in its row"
        model.model_validate({"type": name, "params": OWN[name](user_data)})


@pytest.mark.parametrize("operation", OWN)
async def test_a_stranger_sees_and_changes_nothing(matrix: Matrix, operation: str) -> None:
    await matrix.check(operation)
    assert matrix.asked >= 7


async def test_what_a_stranger_searches_for_is_as_if_it_were_nowhere(matrix: Matrix) -> None:
    headers = {"Authorization": f"Bearer {matrix.token_of(matrix.own)}"}

    async def asked(**params: str) -> tuple[int, bytes]:
        response = await matrix.client.get("/api/search", params=params, headers=headers)
        return response.status_code, response.content.replace(response.headers["x-request-id"].encode(), b"")

    nowhere = await asked(q="nowhere")
    assert nowhere[0] == 200
    for query in (matrix.victim.mark, f'"{matrix.victim.mark}"', f"{matrix.victim.mark} -other"):
        assert await asked(q=query) == nowhere
    theirs = {"Authorization": f"Bearer {matrix.token_of(matrix.victim)}"}
    page = await matrix.client.get("/api/search", params={"q": matrix.victim.mark, "limit": 1}, headers=theirs)
    cursor = page.json()["after"]
    assert cursor
    assert await asked(q="MINE", after=cursor) == await asked(q="MINE", after="thr_0~1~000000000000")
    assert (await asked(q="MINE", after=cursor))[0] == 422
