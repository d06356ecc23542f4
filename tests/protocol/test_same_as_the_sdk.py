"""Sends every request of the SDK's union to OpenAI's own ChatKitServer with a store in memory and to ours, and compares
the events and the JSON.

The same team's server answers in both: theirs runs it, ours adopts it. Ids are compared by the order in which they
appear; times are left out.
"""

import base64
import json
import re
from collections.abc import Callable
from typing import Any, get_args

import pytest
from chatkit.server import ChatKitServer, StreamingResult
from chatkit.store import AttachmentStore
from chatkit.types import Attachment, AttachmentCreateParams, FileAttachment, NonStreamingReq, StreamingReq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatkit_postgres.assistant.server import ServerAssistant
from chatkit_postgres.chat.server import ChatServer
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore
from tests.protocol.every_event import LAST_STEPS, STEPS, Team
from tests.protocol.memory_store import MemoryStore
from tests.support.chat import file_store


class TheirFiles(AttachmentStore[Any]):
    async def create_attachment(self, input: AttachmentCreateParams, context: Any) -> Attachment:  # noqa: A002 - theirs
        return FileAttachment(id="atc_theirs", name=input.name, mime_type=input.mime_type)

    async def delete_attachment(self, attachment_id: str, context: Any) -> None: ...


class Side:
    """One of the two servers, and the ids that it has sent."""

    def __init__(self, server: ChatKitServer[Any], context: Any) -> None:
        self._server = server
        self._context = context
        self.ids: list[str] = []
        self.thread = ""

    async def send(self, request: dict[str, Any]) -> list[Any]:
        """The events, or the one JSON document, with ids by number and without times."""
        result = await self._server.process(json.dumps(self._named(request)), self._context())
        if isinstance(result, StreamingResult):
            frames = b"".join([frame async for frame in result]).decode()
            found = [json.loads(frame.removeprefix("data: ")) for frame in frames.split("\n\n") if frame]
        else:
            found = [json.loads(result.json)]
        for event in found:
            if event.get("type") == "thread.created":
                self.thread = event["thread"]["id"]
        return [self._plain(document) for document in found]

    def _named(self, value: Any) -> Any:
        """``#n`` is the id that was seen as number n."""
        if isinstance(value, dict):
            return {name: self._named(member) for name, member in value.items()}
        if isinstance(value, list):
            return [self._named(member) for member in value]
        if value == "#thread":
            return self.thread
        return self.ids[int(value[1:])] if isinstance(value, str) and re.fullmatch(r"#\d+", value) else value

    def _plain(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._plain(member) for name, member in value.items() if name not in {"created_at", "after"}}
        if isinstance(value, list):
            return [self._plain(member) for member in value]
        if isinstance(value, str) and re.fullmatch(r"(thr|msg|tc|wf|tsk|shcx|atc)_\w+", value):
            if value not in self.ids:
                self.ids.append(value)
            return f"#{self.ids.index(value)}"
        return value


Sides = tuple[Side, Side]


@pytest.fixture
def sides(store: DatabaseStore) -> Sides:
    return both(store)


def both(store: DatabaseStore, user: str = "alice") -> Sides:
    ours = ChatServer(store, ServerAssistant(Team(MemoryStore()), store), file_store(store))
    theirs = Team(MemoryStore(), TheirFiles())
    return Side(theirs, dict), Side(ours, lambda: RequestContext(user_id=user, public_url="http://127.0.0.1"))


async def same(sides: Sides, request: dict[str, Any]) -> list[Any]:
    theirs, ours = [await side.send(request) for side in sides]
    assert ours == theirs
    return ours


def user_input(text: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"input": {"content": content, "attachments": [], "inference_options": {}, **more}}


def create(text: str) -> dict[str, Any]:
    return {"type": "threads.create", "params": user_input(text)}


def params(operation: str, **given: Any) -> dict[str, Any]:
    return {"type": operation, "params": {"thread_id": "#thread", **given}}


def number_of(events: list[Any], item_type: str) -> str:
    """The id of the last item of a type, as it is written in a request."""
    found: list[str] = [event["item"]["id"] for event in events if event.get("item", {}).get("type") == item_type]
    return found[-1]


async def answer(sides: Sides) -> None:
    events = await same(sides, create("text"))
    assert [event["type"] for event in events][:3] == ["thread.created", "thread.item.done", "stream_options"]


async def message(sides: Sides) -> None:
    await same(sides, create("text"))
    quoting = user_input("parts", quoted_text="Hello", inference_options={"model": None})["input"]
    await same(sides, params("threads.add_user_message", input=quoting))


async def retry(sides: Sides) -> None:
    events = await same(sides, create("text widget"))
    await same(sides, params("threads.retry_after_item", item_id=number_of(events, "user_message")))


async def tool_output(sides: Sides) -> None:
    await same(sides, create("tool"))
    await same(sides, params("threads.add_client_tool_output", result={"x": [1, None]}))


async def structured_input(sides: Sides) -> None:
    questions = number_of(await same(sides, create("ask")), "structured_input")
    answers = {"size": {"values": ["s", "m"]}, "why": {"values": [], "skipped": True}, "unknown": {"values": ["x"]}}
    given = {"status": "answered", "answers": answers}
    await same(sides, params("threads.add_structured_input", item_id=questions, input=given))


async def skipped_input(sides: Sides) -> None:
    questions = number_of(await same(sides, create("ask")), "structured_input")
    given = {"status": "skipped", "answers": {"size": {"values": ["s"]}}}
    await same(sides, params("threads.add_structured_input", item_id=questions, input=given))


async def custom_action(sides: Sides) -> None:
    widget = number_of(await same(sides, create("widget")), "widget")
    action = {"type": "go", "payload": {"place": 1}}
    await same(sides, params("threads.custom_action", item_id=widget, action=action))
    await same(sides, params("threads.custom_action", item_id=None, action={"type": "free", "payload": None}))


async def sync_action(sides: Sides) -> None:
    widget = number_of(await same(sides, create("widget")), "widget")
    action = {"type": "go", "payload": {"place": 1}}
    await same(sides, params("threads.sync_custom_action", item_id=widget, action=action))


async def get_by_id(sides: Sides) -> None:
    await same(sides, create("text hidden sdk_hidden"))
    await same(sides, params("threads.get_by_id"))


async def list_threads(sides: Sides) -> None:
    for _ in range(3):
        await same(sides, create("title"))
    for order in ("asc", "desc"):
        for limit in (2, 3, None):
            await same(sides, {"type": "threads.list", "params": {"order": order, "limit": limit}})


async def update(sides: Sides) -> None:
    await same(sides, create("text"))
    await same(sides, params("threads.update", title="Another"))
    await same(sides, params("threads.get_by_id"))


async def delete(sides: Sides) -> None:
    await same(sides, create("text"))
    await same(sides, params("threads.delete"))
    await same(sides, {"type": "threads.list", "params": {}})


async def feedback(sides: Sides) -> None:
    item = number_of(await same(sides, create("text")), "assistant_message")
    await same(sides, params("items.feedback", item_ids=[item], kind="positive"))


async def list_items(sides: Sides) -> None:
    await same(sides, create("text"))
    for order in ("asc", "desc"):
        for limit in (1, 2, None):
            await same(sides, params("items.list", order=order, limit=limit))


async def transcription(sides: Sides) -> None:
    audio = base64.b64encode(b"RIFF").decode()
    await same(sides, {"type": "input.transcribe", "params": {"audio_base64": audio, "mime_type": "audio/webm"}})


async def attachments(sides: Sides) -> None:
    request = {"type": "attachments.create", "params": {"name": "a.txt", "size": 3, "mime_type": "text/plain"}}
    theirs, ours = [(await side.send(request))[0] for side in sides]
    # Where it is uploaded to is a matter of the attachment store.
    assert {name: value for name, value in ours.items() if name != "upload_descriptor"} == theirs
    await same(sides, {"type": "attachments.delete", "params": {"attachment_id": theirs["id"]}})


SCENARIOS: dict[str, Callable[[Sides], Any]] = {
    "threads.create": answer,
    "threads.add_user_message": message,
    "threads.retry_after_item": retry,
    "threads.add_client_tool_output": tool_output,
    "threads.add_structured_input": structured_input,
    "threads.add_structured_input skipped": skipped_input,
    "threads.custom_action": custom_action,
    "threads.sync_custom_action": sync_action,
    "threads.get_by_id": get_by_id,
    "threads.list": list_threads,
    "threads.update": update,
    "threads.delete": delete,
    "items.feedback": feedback,
    "items.list": list_items,
    "input.transcribe": transcription,
    "attachments.create": attachments,
    "attachments.delete": attachments,
}


def test_every_operation_of_the_protocol_is_compared() -> None:
    kinds = [kind for union in (StreamingReq, NonStreamingReq) for kind in get_args(union)]
    assert {kind.model_fields["type"].default for kind in kinds} == {name.split()[0] for name in SCENARIOS}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_an_operation(sides: Sides, name: str) -> None:
    await SCENARIOS[name](sides)


@pytest.mark.parametrize("step", [*STEPS, *LAST_STEPS])
async def test_an_event_and_what_is_stored_of_it(sides: Sides, step: str) -> None:
    events = await same(sides, create(step))
    assert ("error" in {event["type"] for event in events}) == (step in {"custom_error", "stream_error", "crash"})
    await same(sides, params("threads.get_by_id"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turns=st.lists(
        st.tuples(st.lists(st.sampled_from(list(STEPS)), max_size=3), st.sampled_from(["", *list(LAST_STEPS)[:-1]])),
        min_size=1,
        max_size=3,
    ),
    user=st.uuids(),
)
async def test_generated_conversations(store: DatabaseStore, turns: list[tuple[list[str], str]], user: Any) -> None:
    # No more than a page of items: theirs has gaps where hidden items were, ours is full.
    sides = both(store, str(user))
    for number, (steps, last) in enumerate(turns):
        text = " ".join([*steps, last]).strip() or "nothing"
        if number == 0:
            await same(sides, create(text))
        else:
            await same(sides, params("threads.add_user_message", input=user_input(text)["input"]))
        if last == "tool":
            await same(sides, params("threads.add_client_tool_output", result="here"))
    await same(sides, params("items.list", order="asc", limit=50))
    await same(sides, params("threads.get_by_id"))
