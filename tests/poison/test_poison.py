"""Bad values in every place of every request: no 5xx, no cut stream, no row that cannot be read, and the thread still
lists. What is accepted is read back equal."""

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from chatkit.types import ClientToolCallItem, ThreadItem, ThreadsAddClientToolOutputReq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.chat.requests import RequestLimits, parse_request
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import Database
from chatkit_postgres.errors import ChatError
from chatkit_postgres.store import DatabaseStore
from tests.conftest import Some, query
from tests.faults.harness import SECRET, environment, new_user
from tests.isolation.matrix import OWN, Params, Path, at, operations, replaced
from tests.isolation.user_data import UserData, store_user_data
from tests.poison.kinds import KINDS, decoded
from tests.support.items import NAIVE, thread
from tests.support.processes import ChatProcess, ModelServer, parse_events

ITEMS: TypeAdapter[ThreadItem] = TypeAdapter(ThreadItem)

SLOT = "@@SLOT@@"
USER_DATA = UserData("nobody", "MARK")

FULL_MESSAGE: Params = {
    "content": [
        {"type": "input_text", "text": "Hello"},
        {
            "type": "input_tag",
            "id": "t1",
            "text": "@tag",
            "data": {"name": "n", "size": 1},
            "group": "g",
            "interactive": False,
        },
    ],
    "attachments": [],
    "quoted_text": "quoted",
    "inference_options": {"model": "m", "tool_choice": {"id": "search"}},
}
FULL: dict[str, dict[str, Any]] = {
    "threads.create": {"input": FULL_MESSAGE},
    "threads.add_user_message": {"input": FULL_MESSAGE},
    "threads.custom_action": {"action": {"type": "press", "payload": {"a": 1, "b": "x"}}},
    "threads.sync_custom_action": {"action": {"type": "press", "payload": {"a": 1, "b": "x"}}},
    "threads.list": {"order": "asc"},
    "items.list": {"order": "asc"},
    "threads.add_client_tool_output": {"result": {"text": "x", "number": 1}},
}


def requests_of(user_data: UserData) -> dict[str, Params]:
    """Whole bodies, with every optional field there is."""
    return {
        name: {"type": name, "params": copy.deepcopy(OWN[name](user_data) | FULL.get(name, {})), "metadata": {"a": "x"}}
        for name in operations()
    }


def slots(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where a body has a string or a number."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from slots(member, (*path, name))
    elif isinstance(value, list):
        for number, element in enumerate(value):
            yield from slots(element, (*path, number))
    elif isinstance(value, str | int) and not isinstance(value, bool):
        yield path


PLACES = [(name, path) for name, body in requests_of(USER_DATA).items() for path in slots(body)]


def poisoned(body: Params, path: Path, raw: bytes) -> bytes:
    return json.dumps(replaced(body, {path: SLOT})).encode().replace(json.dumps(SLOT).encode(), raw)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> Iterator[ChatProcess]:
    brief = {"CHAT_ASSISTANT": "tests.support.assistants:Brief"}
    brief |= {"CHAT_ALLOWED_MODELS": "m", "CHAT_ALLOWED_TOOLS": "search"}
    process = ChatProcess(tmp_path_factory.mktemp("poison"), **environment(shared_database, model_server) | brief)
    yield process.wait_until_ready()
    assert process.stop() == 0


@pytest.fixture(scope="module")
def client(server: ChatProcess) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.base_url, timeout=30) as made:
        yield made


class Poisoner:
    def __init__(self, client: httpx2.Client, database: URL, user_data: UserData) -> None:
        self.client = client
        self.database = database
        self.user_data = user_data
        self.headers = {
            "Authorization": f"Bearer {mint(SECRET, user_data.user, seconds=600)}",
            "Content-Type": "application/json",
        }
        self.accepted = 0

    def send(self, body: bytes, what: str) -> httpx2.Response:
        response = self.client.post("/api/chatkit", content=body, headers=self.headers)
        assert response.status_code < 500 or response.status_code == 501, f"{what}: {response.text}"
        if response.status_code != 200:
            assert set(response.json()) == {"code", "message", "request_id"}, what
        elif response.headers["content-type"].startswith("text/event-stream"):
            self.accepted += 1
            # A heartbeat, which is one line, may come last.
            assert re.sub(r"(: ping\n)+$", "", response.text).endswith("\n\n"), f"{what}: the stream was cut"
            errors = [event for event in parse_events(response.text) if event["type"] == "error"]
            assert errors == [], f"{what}: {errors}"
        else:
            self.accepted += 1
            assert response.json() is not None
        return response

    def call(self, operation: str, **params: Any) -> Any:
        body = json.dumps({"type": operation, "params": params}).encode()
        response = self.send(body, f"afterwards, {operation}")
        assert response.status_code == 200, response.text
        return response.json()

    def check_all_is_readable(self) -> None:
        for found in self.call("threads.list", limit=100)["data"]:
            self.call("items.list", thread_id=found["id"], limit=100)
            self.call("threads.get_by_id", thread_id=found["id"])
        for row in query(
            self.database, f"SELECT item::text AS item FROM chat_messages WHERE user_id = '{self.user_data.user}'"
        ):
            ITEMS.validate_json(row["item"])


@pytest.fixture
async def poisoner(client: httpx2.Client, shared_database: URL) -> Poisoner:
    database = Database(shared_database, pool_size=1)
    user_data = await store_user_data(DatabaseStore(database), UserData(new_user(), "MARK"))
    await database.close()
    return Poisoner(client, shared_database, user_data)


def test_the_table_is_long_enough() -> None:
    assert len(KINDS) >= 80
    assert len(PLACES) >= 50


@pytest.mark.parametrize(
    ("operation", "path"), PLACES, ids=lambda part: part if isinstance(part, str) else ".".join(map(str, part))
)
def test_poison_is_refused_or_harmless(poisoner: Poisoner, some: Some, operation: str, path: Path) -> None:
    body = requests_of(poisoner.user_data)[operation]
    for name, raw in some(KINDS.items()):
        poisoner.send(poisoned(body, path, raw), f"{operation} {path} {name}")
    poisoner.check_all_is_readable()


def messages_of(poisoner: Poisoner, thread_id: str) -> list[Params]:
    items = poisoner.call("items.list", thread_id=thread_id, order="asc", limit=100)["data"]
    return [item for item in items if item["type"] == "user_message"]


def read_at(item: Params, path: Path) -> Any:
    """What is null is left out of an item."""
    return at(item, path) if len(path) > 1 else item.get(str(path[0]))


def is_equal(read: Any, sent: Any) -> bool:
    """A fraction and its number are what the nearest double is (RFC 8259, section 6): 1e308 comes back in full."""
    return bool(read == sent) or (isinstance(sent, float) and isinstance(read, int | float) and float(read) == sent)


@pytest.mark.parametrize(
    "path",
    [
        ("params", "input", "content", 0, "text"),
        ("params", "input", "content", 1, "data", "name"),
        ("params", "input", "content", 1, "data", "size"),
        ("params", "input", "quoted_text"),
    ],
    ids=lambda path: ".".join(map(str, path)),
)
def test_what_is_accepted_is_read_back_equal(poisoner: Poisoner, path: Path) -> None:
    body = requests_of(poisoner.user_data)["threads.create"]
    equal = 0
    for name, raw in KINDS.items():
        response = poisoner.send(poisoned(body, path, raw), name)
        if response.status_code == 200:
            thread_id = parse_events(response.text)[0]["thread"]["id"]
            (read,) = messages_of(poisoner, thread_id)
            assert is_equal(read_at(read, path[2:]), decoded(raw)), name
            equal += 1
    assert equal >= 40


async def test_a_tools_output_that_is_accepted_is_read_back_equal(store: DatabaseStore) -> None:
    context = RequestContext(user_id="alice")
    await store.save_thread(thread("t"), context)
    equal = 0
    for number, (name, raw) in enumerate(KINDS.items()):
        body = b'{"type": "threads.add_client_tool_output", "params": {"thread_id": "t", "result": {"a": %s}}}' % raw
        try:
            request = parse_request(body, RequestLimits())
        except ChatError:
            continue
        assert isinstance(request, ThreadsAddClientToolOutputReq)
        item = ClientToolCallItem(
            id=f"c{number}",
            thread_id="t",
            created_at=NAIVE,
            call_id="c",
            name="n",
            arguments={},
            status="completed",
            output=request.params.result,
        )
        await store.add_thread_item("t", item, context)
        read = await store.load_item("t", item.id, context)
        assert isinstance(read, ClientToolCallItem)
        assert read.output is not None
        assert is_equal(read.output["a"], decoded(raw)), name
        equal += 1
    assert equal >= 60


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.characters(codec=None),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.just("type"), inner, max_size=4)
    ),
    max_leaves=10,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)
@given(data=st.data())
def test_whatever_else_is_refused_or_harmless(poisoner: Poisoner, data: st.DataObject) -> None:
    operation, path = data.draw(st.sampled_from(PLACES))
    raw = json.dumps(data.draw(JSON)).encode()
    poisoner.send(poisoned(requests_of(poisoner.user_data)[operation], path, raw), f"{operation} {path} {raw!r}")


def test_all_is_readable_after_random_requests(poisoner: Poisoner) -> None:
    @settings(max_examples=60, deadline=None)
    @given(JSON)
    def send(value: Any) -> None:
        body = requests_of(poisoner.user_data)["threads.add_user_message"]
        raw = json.dumps(value).encode()
        poisoner.send(poisoned(body, ("params", "input", "content", 1, "data", "name"), raw), repr(raw))

    send()
    poisoner.check_all_is_readable()
