"""Each sample over a socket, as a ChatKitServer and as an AgentAssistant: the same is seen of both."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import URL

from tests.attachments.conftest import Place, started
from tests.conftest import query
from tests.support.files import image_bytes
from tests.support.processes import (
    ChatClient,
    ModelServer,
    done_items,
    http,
    message,
    parse_events,
    run_cli,
    texts,
    thread_id_of,
)

KINDS = {
    "transit": ("tests.samples.transit:TransitServer", "tests.samples.transit:TransitAssistant"),
    "lounge": ("tests.samples.lounge:LoungeServer", "tests.samples.lounge:LoungeAssistant"),
    "newsroom": ("tests.samples.newsroom:NewsServer", "tests.samples.newsroom:NewsAssistant"),
    "studio": ("tests.samples.studio:make_server", "tests.samples.studio:StudioAssistant"),
}


def sample(name: str, **more: str) -> Any:
    @pytest.fixture(scope="module", name=name, params=["server", "agent"])
    def running(
        request: pytest.FixtureRequest,
        tmp_path_factory: pytest.TempPathFactory,
        shared_database: URL,
        model_server: ModelServer,
    ) -> Iterator[Place]:
        assistant = dict(zip(("server", "agent"), KINDS[name], strict=True))[request.param]
        place = started(
            tmp_path_factory.mktemp(name), shared_database, model_server, None, CHAT_ASSISTANT=assistant, **more
        )
        yield place
        assert place.process.stop() == 0

    return running


transit = sample("transit")
lounge = sample("lounge")
newsroom = sample("newsroom", CHAT_CONTEXT_HEADERS="X-Article-Id")
studio = sample("studio", CHAT_MODEL_API="responses", CHAT_MAX_MESSAGE_CHARACTERS="100000")


def use(tool: str, **arguments: Any) -> str:
    return f"use the tool {tool} {json.dumps(arguments)}"


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """Of all items but the workflows that show calls of an agent's tools."""
    return [item["type"] for item in done_items(events) if item["type"] != "workflow"]


def of_type(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


class TestTransit:
    def test_tools_work_on_the_custom_context(self, transit: Place) -> None:
        client = transit.user().client
        thread_id = thread_id_of(first := client.create(use("list_stations", line="red")))
        assert kinds(first) == ["user_message", "assistant_message", "assistant_message"]
        assert "Reading the red line" in [event["text"] for event in of_type(first, "progress_update")]
        outputs = [
            part["content"]
            for call in transit.model.calls()
            for part in call["body"].get("messages", [])
            if part["role"] == "tool"
        ]
        assert "Ash, Birch" in outputs
        second = client.post_message(thread_id, use("add_station", line="blue", name="Dogwood"))
        (effect,) = of_type(second, "client_effect")
        assert (effect["name"], effect["data"]) == ("station_added", {"name": "Dogwood"})
        assert len([item for item in client.items(thread_id) if item["type"] != "workflow"]) == 6

    def test_a_client_tool_goes_on_with_its_output(self, transit: Place) -> None:
        client = transit.user().client
        events = client.create(use("selected_stations"))
        call = done_items(events)[-1]
        assert (call["type"], call["name"], call["status"]) == ("client_tool_call", "get_selection", "pending")
        assert call["arguments"] == {"what": "stations"}
        thread_id = thread_id_of(events)
        after = client.events("threads.add_client_tool_output", thread_id=thread_id, result={"stations": ["Ash"]})
        assert kinds(after) == ["assistant_message"]
        assert client.items(thread_id)[-2]["status"] == "completed"

    def test_the_title_is_its_own(self, transit: Place) -> None:
        client = transit.user().client
        client.create("Where does the red line end?")
        (thread,) = client.call("threads.list")["data"]
        assert thread["title"].startswith("T: ")

    def test_tags_reach_the_model_as_the_converter_says(self, transit: Place) -> None:
        client = transit.user().client
        tag = {"type": "input_tag", "id": "ash", "text": "Ash", "data": {}, "interactive": False}
        words = {"type": "input_text", "text": "Tell me of this one: "}
        client.events("threads.create", input=message("") | {"content": [words, tag]})
        assert "<STATION id=ash>Ash</STATION>" in transit.model.calls()[-1]["body"]["messages"][-1]["content"]


class TestLounge:
    def test_a_widget_whose_action_the_page_handles_first(self, lounge: Place) -> None:
        client = lounge.user().client
        events = client.create(use("suggest_names"))
        thread_id = thread_id_of(events)
        (widget,) = [item for item in done_items(events) if item["type"] == "widget"]
        select = {"type": "name.select", "payload": {"name": "Pixel"}}
        after = client.events("threads.custom_action", thread_id=thread_id, item_id=widget["id"], action=select)
        (replaced,) = of_type(after, "thread.item.replaced")
        assert "Pixel (chosen)" in json.dumps(replaced["item"]["widget"])
        assert texts(done_items(after)) == ["Pixel it is. Where does it sleep?"]
        (effect,) = of_type(after, "client_effect")
        assert effect["data"] == {"name": "Pixel"}
        # Hidden from the client, and known to the model with the next message.
        assert "<CHOSEN>" not in json.dumps([after, client.items(thread_id)])
        client.post_message(thread_id, f"In a box, {thread_id}.")
        asked = [json.dumps(call["body"]) for call in lounge.model.calls()]
        assert any("<CHOSEN>Pixel</CHOSEN>" in body and thread_id in body for body in asked)
        assert "Pixel (chosen)" in json.dumps(client.items(thread_id))

    def test_only_what_the_widget_declares_and_only_for_its_owner(self, lounge: Place) -> None:
        client, stranger = lounge.user().client, lounge.user().client
        events = client.create(use("suggest_names"))
        thread_id = thread_id_of(events)
        (widget,) = [item for item in done_items(events) if item["type"] == "widget"]
        target: dict[str, Any] = {"thread_id": thread_id, "item_id": widget["id"]}
        before = client.items(thread_id)
        undeclared = {"type": "name.delete", "payload": {"name": "Pixel"}}
        other = client.post("threads.custom_action", **target, action=undeclared)
        assert (other.status_code, other.json()["code"]) == (422, "invalid_request")
        select = {"type": "name.select", "payload": {"name": "Pixel"}}
        assert stranger.post("threads.custom_action", **target, action=select).status_code == 404
        assert stranger.call("threads.list")["data"] == []
        assert client.items(thread_id) == before

    def test_an_action_at_once_returns_the_changed_widget_and_stores_it(self, lounge: Place, request: Any) -> None:
        client = lounge.user().client
        events = client.create(use("suggest_names"))
        (widget,) = [item for item in done_items(events) if item["type"] == "widget"]
        target: dict[str, Any] = {"thread_id": thread_id_of(events), "item_id": widget["id"]}
        select = {"type": "name.select", "payload": {"name": "Tofu"}}
        answered = client.post("threads.sync_custom_action", **target, action=select)
        if "agent" in request.node.name:
            # Its handler answers with a stream.
            assert (answered.status_code, "threads.custom_action" in answered.text) == (422, True)
            return
        assert "Tofu (chosen)" in json.dumps(answered.json()["updated_item"])
        assert "Tofu (chosen)" in json.dumps(client.items(target["thread_id"]))
        undeclared = {"type": "name.delete", "payload": {}}
        assert client.post("threads.sync_custom_action", **target, action=undeclared).status_code == 422

    def test_a_payload_is_checked_where_there_is_a_model_of_it(self, lounge: Place, request: Any) -> None:
        client = lounge.user().client
        events = client.create(use("suggest_names"))
        (widget,) = [item for item in done_items(events) if item["type"] == "widget"]
        target: dict[str, Any] = {"thread_id": thread_id_of(events), "item_id": widget["id"]}
        wrong = client.post("threads.custom_action", **target, action={"type": "name.select", "payload": {}})
        if "agent" in request.node.name:
            assert (wrong.status_code, "params.action.payload.name" in wrong.json()["message"]) == (422, True)
        else:
            # A stock server is handed whatever came; the one who asks sees an error, and nothing of it.
            (error,) = of_type(parse_events(wrong.text), "error")
            assert "KeyError" not in json.dumps(error)


class TestNewsroom:
    @pytest.mark.parametrize(("choice", "name"), [(None, "News"), ("events", "Events"), ("puzzle", "Puzzle")])
    def test_the_demanded_tool_chooses_the_agent(self, newsroom: Place, choice: str | None, name: str) -> None:
        client = newsroom.user().client
        options = {"inference_options": {"tool_choice": {"id": choice}} if choice else {}}
        client.events("threads.create", input=message(f"Hello {name}") | options)
        body = newsroom.model.calls()[-1]["body"]
        assert f"You are {name}." in json.dumps(body["messages"])
        # It names an agent, and no tool for the model to call.
        assert body.get("tool_choice") in {None, "auto"}

    def test_the_page_comes_in_a_header(self, newsroom: Place) -> None:
        client = newsroom.user().client
        body = {"type": "threads.create", "params": {"input": message(use("read_article"))}}
        headers = client.headers | {"X-Article-Id": "a-17", "X-Secret": "no"}
        answered = http.post(client.url, json=body, headers=headers, timeout=30)
        assert kinds(parse_events(answered.text))[-1] == "assistant_message"
        tool = [part for part in newsroom.model.calls()[-1]["body"]["messages"] if part["role"] == "tool"]
        assert tool[-1]["content"].startswith("Article a-17 for user-")

    def test_the_client_cannot_stop_it(self, newsroom: Place) -> None:
        (options,) = of_type(newsroom.user().client.create("Hello"), "stream_options")
        assert options["stream_options"]["allow_cancel"] is False

    def test_feedback_is_written_down(self, newsroom: Place, request: pytest.FixtureRequest) -> None:
        client = newsroom.user().client
        events = client.create("Hello")
        thread_id, answer = thread_id_of(events), done_items(events)[-1]["id"]
        client.call("items.feedback", thread_id=thread_id, item_ids=[answer], kind="positive")
        joined = "chat_feedback JOIN chat_messages USING (user_id, session_id, message_id)"
        rows = query(newsroom.database, f"SELECT kind FROM {joined} WHERE item_id = '{answer}'")
        assert [row["kind"] for row in rows] == ["positive"]
        if "server" in request.node.name:
            (thread,) = query(newsroom.database, f"SELECT metadata FROM chat_sessions WHERE thread_id = '{thread_id}'")
            assert json.loads(thread["metadata"])["feedback"] == [[answer, "positive"]]


class TestStudio:
    def test_an_image_is_drawn_and_stored_as_a_file(self, studio: Place) -> None:
        client = studio.user().client
        final = image_bytes(size=(200, 100))
        order = {
            "image": base64.b64encode(final).decode(),
            "partials": [base64.b64encode(image_bytes(size=(20, 10))).decode()],
        }
        events = client.events("threads.create", input=message(f"DRAW {json.dumps(order)}"))
        (drawn,) = [item for item in done_items(events) if item["type"] == "generated_image"]
        assert httpx2.get(drawn["image"]["url"]).content == final
        (row,) = query(studio.database, f"SELECT item::text AS item FROM chat_messages WHERE item_id = '{drawn['id']}'")
        assert "base64" not in row["item"]

    def test_attachments_reach_the_model(self, studio: Place) -> None:
        user = studio.user()
        image = user.ready(image_bytes(), "a.png", "image/png")
        note = user.ready(b"Words in a file.", "a.txt", "text/plain")
        given = message("What is this?") | {"attachments": [image, note]}
        user.client.events("threads.create", input=given)
        sent = json.dumps(studio.model.calls()[-1]["body"]["input"])
        assert "data:image/png;base64," in sent or "data:image/jpeg;base64," in sent
        assert "Words in a file." in sent

    def test_dictation(self, studio: Place) -> None:
        client: ChatClient = studio.user().client
        recording = base64.b64encode(b"sound").decode()
        heard = client.call("input.transcribe", audio_base64=recording, mime_type="audio/webm;codecs=opus")
        assert heard == {"text": "5 bytes of audio/webm"}


def test_an_attachment_store_of_ones_own_is_refused(tmp_path: Path) -> None:
    done = run_cli(tmp_path, "serve", CHAT_ASSISTANT="tests.samples.wrong:OwnFilesServer")
    assert done.returncode == 2
    assert "CHAT_ASSISTANT: tests.samples.wrong:OwnFilesServer: it brings an attachment store of its own" in done.stderr
    assert "CHAT_STORAGE_URL" in done.stderr
    assert not (tmp_path / ".data" / "postgres" / "cluster").exists()
