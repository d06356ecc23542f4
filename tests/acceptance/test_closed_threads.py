"""A locked or closed thread takes nothing, says which of the two it is, and can be read and deleted."""

from collections.abc import Iterator

import pytest
from chatkit.types import ClosedStatus, LockedStatus
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database
from chatkit_postgres.store import DatabaseStore
from tests.conftest import query
from tests.faults.harness import NO_CHORES, SECRET, environment, new_user
from tests.isolation.matrix import AS_OPERATION, KEPT, OWN, ROUTES
from tests.isolation.user_data import UserData, store_user_data
from tests.support.processes import ChatClient, ChatProcess, ModelServer

READING = {"threads.get_by_id", "threads.list", "items.list"}
OF_NO_THREAD = {"threads.create", "attachments.create", "attachments.delete", "input.transcribe"}
STATUSES: dict[str, LockedStatus | ClosedStatus] = {
    "thread_locked": LockedStatus(reason="moderated"),
    "thread_closed": ClosedStatus(reason="solved"),
}


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> Iterator[ChatProcess]:
    process = ChatProcess(tmp_path_factory.mktemp("closed"), **environment(shared_database, model_server), **NO_CHORES)
    yield process.wait_until_ready()
    assert process.stop() == 0


@pytest.fixture
async def user_data(shared_database: URL, request: pytest.FixtureRequest) -> UserData:
    database = Database(shared_database, pool_size=1)
    store = DatabaseStore(database)
    made = await store_user_data(store, UserData(new_user(), "MARK"))
    context = RequestContext(user_id=made.user)
    for thread_id in (made.thread, made.asking_thread):
        thread = await store.load_thread(thread_id, context)
        thread.status = STATUSES[request.node.callspec.params["code"]]
        await store.save_thread(thread, context)
    await database.close()
    return made


def rows(database: URL, user: str) -> list[str]:
    found = [query(database, f"SELECT r::text FROM chat_{table} r WHERE user_id = '{user}'") for table in KEPT]
    return sorted(row["r"] for part in found for row in part)


@pytest.mark.parametrize("code", STATUSES)
@pytest.mark.parametrize("operation", sorted(set(OWN) - set(ROUTES) - OF_NO_THREAD))
def test_it_is_refused_by_every_writing_operation(
    server: ChatProcess, user_data: UserData, shared_database: URL, operation: str, code: str
) -> None:
    client = ChatClient(server.base_url, mint(SECRET, user_data.user, seconds=60))
    before = rows(shared_database, user_data.user)
    response = client.post(AS_OPERATION.get(operation, operation), **OWN[operation](user_data))
    if operation in READING:
        assert response.status_code == 200
    elif operation == "threads.delete":
        assert response.status_code == 200
        assert client.post("threads.get_by_id", thread_id=user_data.thread).status_code == 404
        return
    else:
        assert (response.status_code, response.json()["code"]) == (409, code)
    assert rows(shared_database, user_data.user) == before
    shown = client.call("threads.get_by_id", thread_id=user_data.thread)
    assert shown["status"]["type"] == code.removeprefix("thread_")
