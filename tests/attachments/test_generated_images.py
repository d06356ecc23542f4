"""Images that a model makes are files of the user: shown, kept, given back to the model, and never in a row."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import pytest
from chatkit.agents import AgentContext
from chatkit.types import (
    FileAttachment,
    GeneratedImage,
    GeneratedImageItem,
    GeneratedImageUpdated,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemUpdatedEvent,
    ThreadStreamEvent,
)
from PIL import Image
from sqlalchemy import URL

from chatkit_postgres.assistant import Assistant
from chatkit_postgres.attachments import files, renditions
from chatkit_postgres.attachments.intake import FileLimits
from chatkit_postgres.chat.turns.running_turn import Stop
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import Unavailable
from chatkit_postgres.ports import Events
from chatkit_postgres.store import DatabaseStore
from tests.attachments.conftest import Place, started
from tests.conftest import query
from tests.support.chat import Chat, add_message, create, remaining_events, stored, wait_for_text
from tests.support.files import image_bytes
from tests.support.items import NAIVE
from tests.support.processes import ModelServer, done_items, http, message, thread_id_of

FINAL = image_bytes(size=(200, 100))
SKETCHES = [image_bytes(size=(20, 10)), image_bytes(size=(100, 50))]


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def drawing(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> Iterator[Place]:
    own = {"CHAT_MODEL_API": "responses", "CHAT_ASSISTANT": "tests.support.assistants:build_with_images"}
    own |= {"CHAT_MAX_MESSAGE_CHARACTERS": "100000"}
    made = started(tmp_path_factory.mktemp("drawing"), shared_database, model_server, None, **own)
    yield made
    assert made.process.stop() == 0


def draw(place: Place, image: str, partials: Sequence[str] = ()) -> tuple[Any, list[dict[str, Any]]]:
    user = place.user()
    order = json.dumps({"image": image, "partials": list(partials)})
    return user, user.client.events("threads.create", input=message(f"DRAW {order}"))


def test_a_picture_is_shown_while_it_is_made_and_kept(drawing: Place) -> None:
    user, events = draw(drawing, encoded(FINAL), [encoded(sketch) for sketch in SKETCHES])
    updates = [event["update"] for event in events if "progress" in event.get("update", {})]
    assert [update["progress"] for update in updates] == [0.0, 0.5]
    assert not any(update["image"]["url"].startswith("data:") for update in updates)
    thread_id = thread_id_of(events)
    (item,) = [item for item in user.client.items(thread_id) if item["type"] == "generated_image"]
    shown = http.get(item["image"]["url"])
    assert shown.content == FINAL
    assert shown.headers["content-type"] == "image/png"
    assert shown.headers["content-disposition"].startswith("inline")
    # What was only shown is deleted, and the picture belongs to its message.
    assert [http.get(update["image"]["url"]).status_code for update in updates] == [404, 404]
    found = query(drawing.database, f"SELECT item FROM chat_messages WHERE item::text LIKE '%{item['id']}%'")
    assert "data:" not in str(found)
    assert "attachment://" in str(found)
    key = f"SELECT * FROM chat_attachments WHERE attachment_id = '{_id_in(item['image']['url'])}'"
    (row,) = query(drawing.database, key)
    assert (row["state"], row["session_id"] is not None, row["message_id"] is not None) == ("ready", True, True)


def test_the_model_sees_what_it_drew(drawing: Place) -> None:
    user, events = draw(drawing, encoded(FINAL))
    user.client.post_message(thread_id_of(events), "Make it larger")
    bodies = [call["body"] for call in drawing.model.calls()]
    sent = next(body["input"] for body in bodies if "Make it larger" in json.dumps(body))
    (url,) = [part["image_url"] for given in sent for part in given["content"] if "image_url" in part]
    assert Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size == (200, 100)


@pytest.mark.parametrize("image", ["!!!", encoded(b"no image"), encoded(b"<svg xmlns='http://www.w3.org/2000/svg'/>")])
def test_what_is_no_picture_ends_the_answer_and_stores_nothing(drawing: Place, image: str) -> None:
    user, events = draw(drawing, image)
    assert events[-1]["type"] == "error"
    assert [item["type"] for item in user.client.items(thread_id_of(events))] == ["user_message"]


def test_a_new_answer_takes_the_old_picture_away(drawing: Place) -> None:
    user, events = draw(drawing, encoded(FINAL))
    thread_id, asked = thread_id_of(events), done_items(events)[0]["id"]
    (old,) = _pictures(events)
    again = user.client.events("threads.retry_after_item", thread_id=thread_id, item_id=asked)
    (new,) = _pictures(again)
    assert [http.get(url).status_code for url in (old, new)] == [404, 200]


def _pictures(events: list[dict[str, Any]]) -> list[str]:
    return [item["image"]["url"] for item in done_items(events) if item["type"] == "generated_image"]


def _id_in(url: str) -> str:
    return url.partition("/api/attachments/")[2].partition("/")[0]


class DataUrls(Assistant):
    """Yields pictures as data URLs, as the SDK does by itself."""

    def __init__(self, *urls: str) -> None:
        self.urls = urls

    async def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        item = GeneratedImageItem(id="g", thread_id="t", created_at=NAIVE)
        yield ThreadItemAddedEvent(item=item)
        for url in self.urls:
            image = GeneratedImage(id="g", url=url)
            yield ThreadItemUpdatedEvent(item_id="g", update=GeneratedImageUpdated(image=image, progress=0.5))
        yield ThreadItemDoneEvent(item=item.model_copy(update={"image": image}))


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{encoded(data)}"


async def test_whoever_makes_it_no_row_holds_its_bytes(store: DatabaseStore) -> None:
    chat = Chat(store, DataUrls(data_url(SKETCHES[0]), data_url(FINAL)))
    events = await chat.events(create("Draw"))
    assert "data:image" not in json.dumps(events)
    (item,) = await stored(store, "SELECT item::text FROM chat_messages WHERE item_type = 'generated_image'")
    assert "attachment://" in item["item"]
    states = await stored(store, "SELECT state, session_id FROM chat_attachments ORDER BY created_at")
    assert [(row["state"], row["session_id"] is not None) for row in states] == [
        ("deleted", False),
        ("deleted", False),
        ("ready", True),
    ]


@pytest.mark.parametrize(
    "url", ["data:image/svg+xml;utf8,<svg/>", "data:text/html;base64,AAAA", "data:", data_url(b"x")]
)
async def test_a_data_url_that_is_no_picture_is_left_out(store: DatabaseStore, url: str) -> None:
    chat = Chat(store, DataUrls(url))
    events = await chat.events(create("Draw"))
    assert done_items(events)[-1]["type"] == "generated_image"
    assert "image" not in done_items(events)[-1]
    assert "data:" not in json.dumps(events).replace("data: ", "")


@pytest.mark.parametrize(("sketches", "is_stopped"), [(6, True), (4, False)])
async def test_a_model_that_does_not_stop_drawing_is_stopped(
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch, sketches: int, is_stopped: bool
) -> None:
    monkeypatch.setattr(files, "MAX_IMAGES", 5)
    chat = Chat(store, DataUrls(*[data_url(SKETCHES[0])] * sketches))
    events = await chat.events(create("Draw"))
    assert ("too long" in events[-1].get("message", "")) is is_stopped


async def test_a_picture_the_user_sent_stays_the_users_whatever_an_assistant_shows(store: DatabaseStore) -> None:
    first = Chat(store, DataUrls(data_url(FINAL)))
    context = RequestContext("alice")
    mine = (await first.attachments.of(context).store_image(FINAL, "mine.png")).removeprefix("attachment://")
    request = create("Edit my picture")
    request.params.input.attachments = [mine]
    await first.events(request)
    # Another turn shows it, and then something else in its place.
    thread_id = (await stored(store, "SELECT thread_id FROM chat_sessions"))[0]["thread_id"]
    chat = Chat(store, DataUrls(f"attachment://{mine}", data_url(FINAL)))
    events = await chat.events(add_message(thread_id, "Show it"))
    assert [event for event in events if event["type"] == "error"] == []
    (row,) = await stored(
        store,
        f"SELECT a.state, m.item_type FROM chat_attachments a JOIN chat_messages m USING (user_id, message_id)"
        f" WHERE attachment_id = '{mine}'",
    )
    assert (row["state"], row["item_type"]) == ("ready", "user_message")


class Sketching(Assistant):
    """Sends a preview, and the image once it may."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def respond(self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]) -> Events:
        item = GeneratedImageItem(id="g", thread_id="?", created_at=NAIVE)
        yield ThreadItemAddedEvent(item=item)
        sketch, image = (GeneratedImage(id="i", url=f"data:image/png;base64,{encoded(data)}") for data in SKETCHES)
        yield ThreadItemUpdatedEvent(item_id="g", update=GeneratedImageUpdated(image=sketch, progress=0.5))
        await self.may_end.wait()
        yield ThreadItemDoneEvent(item=item.model_copy(update={"image": image}))


UNDELETED = "SELECT session_id IS NULL AS is_unsent FROM chat_attachments WHERE state <> 'deleted'"


async def test_a_stopped_answer_leaves_no_image_that_nobody_sees(store: DatabaseStore) -> None:
    chat = Chat(store, Sketching())
    running = await chat.start(create("Draw"))
    await wait_for_text(running, b"generated_image.updated")
    assert len(await stored(store, UNDELETED)) == 1
    running.stop(Stop("stopped"))
    await asyncio.wait([running.task])
    assert await stored(store, UNDELETED) == []


async def test_what_a_user_has_not_sent_is_nothing_to_the_images_of_an_answer(store: DatabaseStore) -> None:
    assistant = Sketching()
    assistant.may_end.set()
    chat = Chat(store, assistant)
    for number in range(FileLimits().max_unsent):
        await store.attachments.create(
            FileAttachment(id=f"atc_{number}", name="a.txt", mime_type="text/plain"),
            RequestContext("alice"),
            storage_key=f"00/{number}",
            declared_bytes=3,
            upload_seconds=900,
            max_unsent=FileLimits().max_unsent,
        )
    events = await chat.events(create("Draw"))
    assert events[-1]["type"] == "thread.item.done"
    assert sorted(row["is_unsent"] for row in await stored(store, UNDELETED)) == [False, *[True] * 50]


async def test_an_answer_waits_for_its_preview_where_an_upload_would_be_refused(
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renditions, "WAIT_SECONDS", 0.05)
    assistant = Sketching()
    assistant.may_end.set()
    chat = Chat(store, assistant)
    slots = chat.attachments._intake._renditions._images
    async with slots.hold("bob"), slots.hold("carol"):
        with pytest.raises(Unavailable):
            async with slots.hold("dave"):
                pass
        running = await chat.start(create("Draw"))
        await wait_for_text(running, b"generated_image")
        await asyncio.sleep(0.3)
    events = await remaining_events(running)
    assert [event["type"] for event in events][-2:] == ["thread.item.updated", "thread.item.done"]
