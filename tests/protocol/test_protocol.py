"""Every operation and every event of the protocol over a real socket, from the demo assistant: what was streamed is
what is read back after the server was restarted."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from chatkit import types
from pydantic import BaseModel

from chatkit_postgres.assistant.demo.assistant import keyword_of
from chatkit_postgres.assistant.demo.drawing import drawn
from chatkit_postgres.assistant.demo.scenes import SCENES
from tests.isolation.matrix import operations
from tests.support.items import item_types
from tests.support.processes import ROOT, ChatClient, ChatProcess, Event, http, message, texts, thread_id_of

DOCUMENT = ROOT / "docs" / "protocol.md"
NO_ITEMS = {"error"}
"""Scenes that end before an item of theirs is done."""


PUBLIC_URL = "https://chat.example"
PICTURE = drawn(1)


class Recorded:
    """What one server has said, by user, for a look after its restart."""

    def __init__(self, directory: Path, settings: dict[str, str]) -> None:
        self.directory = directory
        self.settings = settings
        self.server = ChatProcess(directory, **settings).wait_until_ready()
        self.threads: dict[str, tuple[str, str]] = {}
        self.received: dict[str, list[Event]] = {}
        self.used: set[str] = set()

    def client(self, user: str) -> ChatClient:
        return self.server.client(user)

    def restart(self) -> None:
        assert self.server.stop() == 0
        self.server = ChatProcess(self.directory, **self.settings).wait_until_ready()

    def stream(self, client: ChatClient, operation: str, key: str, **params: Any) -> list[Event]:
        self.used.add(operation)
        events = client.stream(operation, **params).wait()
        self.received.setdefault(key, []).extend(events)
        return events

    def call(self, client: ChatClient, operation: str, **params: Any) -> dict[str, Any]:
        self.used.add(operation)
        return client.call(operation, **params)


def types_of(union: Any) -> set[str]:
    """The ``type`` of each member of one of the SDK's unions."""
    found: set[str] = set()
    for member in get_args(union):
        if isinstance(member, type) and issubclass(member, BaseModel):
            found.add(member.model_fields["type"].default)
        elif get_args(member):
            found |= types_of(member)
    return found


def shown(received: list[Event]) -> dict[str, dict[str, Any]]:
    """Items as a front end has them at the end, by id."""
    items: dict[str, dict[str, Any]] = {}
    for event in without_keys(received):
        if event["type"] in {"thread.item.done", "thread.item.replaced"}:
            items[event["item"]["id"]] = event["item"]
        elif event["type"] == "thread.item.removed":
            items.pop(event["item_id"], None)
    return items


def without_keys(received: Any) -> Any:
    """Addresses of files are renewed now and then."""
    return json.loads(re.sub(r"\?key=[\w-]+", "", json.dumps(received)))


def newest(recorded: Recorded, client: ChatClient, thread_id: str, kind: str) -> dict[str, Any]:
    items = recorded.call(client, "items.list", thread_id=thread_id, order="desc", limit=20)["data"]
    return next(item for item in items if item["type"] == kind)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, postgres_bin: Path | None) -> Iterator[Recorded]:
    """Everything there is, done once."""
    settings = {"CHAT_POSTGRES_BIN": str(postgres_bin)} if postgres_bin else {}
    made = Recorded(
        tmp_path_factory.mktemp("protocol"), settings | {"CHAT_ALLOWED_MODELS": "demo", "CHAT_PUBLIC_URL": PUBLIC_URL}
    )
    client = made.client("ada")
    for keyword in SCENES:
        events = made.stream(client, "threads.create", keyword, input=message(keyword))
        made.threads[keyword] = ("ada", thread_id_of(events))
    act(made, client)
    yield made
    assert made.server.stop() == 0


def act(made: Recorded, client: ChatClient) -> None:
    """What a user can do with what the scenes have shown."""

    def thread(keyword: str) -> str:
        return made.threads[keyword][1]

    def press(operation: str, keyword: str, action_type: str, payload: Any) -> Any:
        widget = newest(made, client, thread(keyword), "widget")
        sent = {"item_id": widget["id"], "action": {"type": action_type, "payload": payload}}
        if operation == "threads.custom_action":
            return made.stream(client, operation, keyword, thread_id=thread(keyword), **sent)
        answer = made.call(client, operation, thread_id=thread(keyword), **sent)
        made.received[keyword].append({"type": "thread.item.replaced", "item": answer["updated_item"]})
        return answer

    assert "Pressed once" in str(press("threads.sync_custom_action", "buttons", "demo.press", {"count": 0}))
    assert "chosen" in str(press("threads.sync_custom_action", "list", "demo.choose", {"name": "Oslo"}))
    assert "Sent for Ada" in str(press("threads.custom_action", "form", "demo.submit", {"name": "Ada"}))
    assert "to say about" in str(press("threads.custom_action", "buttons", "demo.tell", {"about": "buttons"}))
    called = made.stream(
        client, "threads.add_client_tool_output", "tool", thread_id=thread("tool"), result={"title": "A page"}
    )
    assert "A page" in str(called)
    question = newest(made, client, thread("questions"), "structured_input")
    answers = {"size": {"values": ["M"]}, "extras": {"values": ["card", "gift wrap"]}}
    answered = made.stream(
        client,
        "threads.add_structured_input",
        "questions",
        thread_id=thread("questions"),
        item_id=question["id"],
        input={"answers": answers},
    )
    assert "Which size? M" in str(answered)
    asked = newest(made, client, thread("card"), "user_message")
    made.stream(client, "threads.retry_after_item", "again", thread_id=thread("card"), item_id=asked["id"])
    made.stream(
        client, "threads.add_user_message", "citation", thread_id=thread("citation"), input=message("Thank you")
    )
    answer = newest(made, client, thread("citation"), "assistant_message")
    made.call(client, "items.feedback", thread_id=thread("citation"), item_ids=[answer["id"]], kind="positive")
    made.call(client, "threads.update", thread_id=thread("entity"), title="Renamed")
    made.call(client, "threads.delete", thread_id=thread("notice"))
    kept, dropped = [
        made.call(client, "attachments.create", name=name, size=len(PICTURE), mime_type="image/png")
        for name in ("kept.png", "dropped.png")
    ]
    address = kept["upload_descriptor"]["url"].replace(PUBLIC_URL, made.server.base_url)
    assert http.put(address, content=PICTURE).status_code == 200
    made.call(client, "attachments.delete", attachment_id=dropped["id"])
    look = message("task") | {"attachments": [kept["id"]]}
    made.stream(client, "threads.add_user_message", "task", thread_id=thread("task"), input=look)
    speech = {"audio_base64": "AAAA", "mime_type": "audio/webm"}
    assert client.post("input.transcribe", **speech).status_code == 501
    made.used.add("input.transcribe")


@pytest.fixture(scope="module")
def restarted(recorded: Recorded) -> Recorded:
    recorded.restart()
    return recorded


@pytest.mark.parametrize("keyword", [keyword for keyword in SCENES if keyword not in {"notice", "card"}])
def test_what_was_streamed_is_there_after_a_restart(restarted: Recorded, keyword: str) -> None:
    user, thread_id = restarted.threads[keyword]
    items = restarted.client(user).items(thread_id)
    received = shown(restarted.received[keyword])
    if keyword in NO_ITEMS:
        # What was read of the answer that failed is there as well.
        *items, partial = items
        assert texts([partial])[0].startswith("This answer will not get")
    if keyword == "tool":
        # The front end knows what it has sent; nothing tells it.
        call = next(item for item in received.values() if item["type"] == "client_tool_call")
        received[call["id"]] = call | {"status": "completed", "output": {"title": "A page"}}
    assert without_keys(items) == list(received.values())


def test_a_retried_thread_has_the_new_answer_instead_of_the_old(restarted: Recorded) -> None:
    _, thread_id = restarted.threads["card"]
    question, answer = restarted.client("ada").items(thread_id)
    assert question["type"] == "user_message"
    assert [without_keys(answer)] == list(shown(restarted.received["again"]).values())
    assert answer["id"] not in shown(restarted.received["card"])


def test_what_was_renamed_and_deleted_stays_so(restarted: Recorded) -> None:
    client = restarted.client("ada")
    titles = {thread["id"]: thread["title"] for thread in client.call("threads.list", limit=100)["data"]}
    assert titles[restarted.threads["entity"][1]] == "Renamed"
    assert titles[restarted.threads["form"][1]] == "form"
    gone = restarted.threads["notice"][1]
    assert gone not in titles
    for operation in ("threads.get_by_id", "items.list", "threads.delete"):
        assert client.post(operation, thread_id=gone).status_code == 404


def test_a_title_appears_while_the_first_answer_streams(recorded: Recorded) -> None:
    for keyword in ("slow", "citation"):
        kinds = [event["type"] for event in recorded.received[keyword]]
        assert kinds.index("thread.updated") < kinds.index("thread.item.updated")


def test_a_workflow_shows_progress_and_every_kind_of_task(recorded: Recorded) -> None:
    events = recorded.received["workflow"]
    assert next(event["text"] for event in events if event["type"] == "progress_update") == "Step 1 of 5"
    done = next(item for item in shown(events).values() if item["type"] == "workflow")
    assert {task["type"] for task in done["workflow"]["tasks"]} == types_of(types.Task)


def test_sources_come_with_their_answer(recorded: Recorded) -> None:
    found = {
        note["source"]["type"]
        for keyword in ("citation", "entity")
        for item in shown(recorded.received[keyword]).values()
        if item["type"] == "assistant_message"
        for part in item["content"]
        for note in part["annotations"]
    }
    assert found == {"url", "file", "entity"}


def test_every_operation_event_and_item_was_seen(recorded: Recorded) -> None:
    """A new one in the SDK fails here until the demo shows it."""
    events = [event for received in recorded.received.values() for event in received]
    assert recorded.used | {"threads.list", "threads.get_by_id"} == set(operations())
    assert {event["type"] for event in events} == types_of(types.ThreadStreamEvent)
    updates = {event["update"]["type"] for event in events if event["type"] == "thread.item.updated"}
    assert updates == types_of(types.ThreadItemUpdate)
    seen = {item["type"] for received in recorded.received.values() for item in shown(received).values()}
    never_shown = {"hidden_context_item", "sdk_hidden_context", "end_of_turn"}
    assert seen == {kind.model_fields["type"].default for kind in item_types()} - never_shown


def test_the_documents_name_every_operation_event_and_keyword() -> None:
    rows = set(re.findall(r"^\| `([\w.]+)` \|", DOCUMENT.read_text(), re.MULTILINE))
    assert rows == set(operations()) | types_of(types.ThreadStreamEvent) | types_of(types.ThreadItemUpdate)
    for keyword, scene in SCENES.items():
        assert f"| `{keyword}` | {scene.shows} |" in (ROOT / "docs" / "playground.md").read_text(), keyword


def test_every_proposal_of_the_demo_says_the_word_of_its_scene() -> None:
    for keyword, scene in SCENES.items():
        asked = types.UserMessageItem.model_validate(
            {
                "id": "m",
                "thread_id": "t",
                "created_at": "2026-01-01T00:00:00",
                "attachments": [],
                "inference_options": {},
            }
            | {"content": [{"type": "input_text", "text": scene.prompt}]}
        )
        assert keyword_of(asked, SCENES) == keyword
        assert re.fullmatch(r"[A-Z].*\.", scene.prompt), scene.prompt


def test_only_allowed_models_and_tools_can_be_chosen(recorded: Recorded) -> None:
    client = recorded.client("choosy")
    for options, status in (
        ({"model": "demo"}, 200),
        ({"model": "another"}, 422),
        ({"tool_choice": {"id": "current_time"}}, 422),
    ):
        response = client.post("threads.create", input=message("card") | {"inference_options": options})
        assert response.status_code == status, json.dumps(options)
        if status == 422:
            assert "params.input.inference_options" in response.json()["message"]
    assert len(client.call("threads.list")["data"]) == 1
