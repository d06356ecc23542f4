"""What a model gets of attached files: by both APIs, within the budget, the newest first."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chatkit.types import UserMessageItem
from PIL import Image
from sqlalchemy import URL

from chatkit_postgres.assistant.model_input.attachment_input import CUT
from chatkit_postgres.assistant.model_input.converter import HistoryConverter
from chatkit_postgres.ports import Files, ImageData
from tests.attachments.conftest import Place, started
from tests.support.files import Uploader, docx, image_bytes, pdf
from tests.support.processes import ModelServer, message, thread_id_of


@pytest.fixture(scope="module", params=["responses", "chat_completions"])
def talking(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    shared_database: URL,
    model_server: ModelServer,
) -> Iterator[Place]:
    own = {"CHAT_MODEL_API": request.param, "CHAT_FILE_TOKENS": "100", "CHAT_MODEL_IMAGES": "2"}
    made = started(tmp_path_factory.mktemp("talking"), shared_database, model_server, None, **own)
    yield made
    assert made.process.stop() == 0


def asked(place: Place, words: str) -> Any:
    """What the model was sent in the name of the user, in the call for a message; its answers repeat what it hears."""
    bodies = [call["body"] for call in place.model.calls() if words in json.dumps(call["body"])]
    return [given for given in bodies[-1].get("input") or bodies[-1]["messages"] if given["role"] == "user"]


def post_message(user: Uploader, words: str, *attachment_ids: str, thread_id: str | None = None) -> str:
    given = message(words) | {"attachments": list(attachment_ids)}
    if thread_id is None:
        return thread_id_of(user.client.events("threads.create", input=given))
    user.client.events("threads.add_user_message", thread_id=thread_id, input=given)
    return thread_id


def images_in(sent: Any) -> list[bytes]:
    found: list[bytes] = []
    for part in _parts(sent):
        if part.get("type") in {"input_image", "image_url"}:
            url = part["image_url"] if isinstance(part["image_url"], str) else part["image_url"]["url"]
            found.append(base64.b64decode(url.partition("base64,")[2]))
    return found


def _parts(sent: Any) -> Iterator[dict[str, Any]]:
    for given in sent:
        if isinstance(given.get("content"), list):
            yield from given["content"]


def test_texts_and_pictures_are_content_and_others_are_named(talking: Place) -> None:
    user = talking.user()
    ids = [
        user.ready(b"The code is 4711.", "note.txt", "text/plain"),
        user.ready(pdf("Page of paper"), "paper.pdf", "application/pdf"),
        user.ready("Größe;1".encode("utf-16"), "a.csv", "text/csv"),
        user.ready(image_bytes(size=(3000, 2000)), "wide.png", "image/png"),
        user.ready(docx("hidden"), "letter.docx", DOCX),
    ]
    post_message(user, "What do you see?", *ids)
    sent = asked(talking, "letter.docx")
    words = json.dumps(sent, ensure_ascii=False)
    assert "The code is 4711." in words
    assert "Page of paper" in words
    assert "Größe;1" in words
    assert f"({DOCX}, " in words
    assert "attachment://" not in words
    (image,) = images_in(sent)
    assert max(Image.open(io.BytesIO(image)).size) == 1568


def test_the_newest_files_come_first_when_there_is_no_room_for_all(talking: Place) -> None:
    """Four hundred characters of text and two pictures."""
    user = talking.user()
    old = [user.ready(b"OLDTEXT", "old.txt"), user.ready(image_bytes(), "old.png", "image/png")]
    thread_id = post_message(user, "first of room", *old)
    newer = [user.ready(image_bytes(), f"new{number}.png", "image/png") for number in range(2)]
    newer.append(user.ready(b"NEWTEXT" + b"x" * 1000, "new.txt"))
    post_message(user, "second of room", *newer, thread_id=thread_id)
    sent = asked(talking, "second of room")
    words = json.dumps(sent)
    assert "NEWTEXT" in words
    assert CUT in words
    assert "OLDTEXT" not in words
    assert "old.txt" in words
    assert "old.png" in words
    assert words.count("x" * 400) <= 1
    assert len(images_in(sent)) == 2


def test_a_file_that_was_deleted_is_only_named(talking: Place) -> None:
    user = talking.user()
    attachment_id = user.ready(b"GONETEXT", "gone.txt")
    thread_id = post_message(user, "before it goes", attachment_id)
    user.client.call("attachments.delete", attachment_id=attachment_id)
    post_message(user, "after it went", thread_id=thread_id)
    words = json.dumps(asked(talking, "after it went"))
    assert "GONETEXT" not in words
    assert "gone.txt" in words


class Unread(Files):
    """Nothing may be read from it."""

    text_characters = 0
    max_images = 0

    async def text(self, attachment_id: str, max_characters: int) -> str | None:
        raise AssertionError("read without a budget")

    async def image(self, attachment_id: str) -> ImageData | None:
        raise AssertionError("read without a budget")

    async def store_image(self, data: bytes, name: str) -> str:
        raise AssertionError("not asked for")

    async def delete_image(self, reference: str) -> None:
        raise AssertionError("not asked for")


async def test_without_a_budget_nothing_is_read() -> None:
    attachment = {"type": "file", "id": "atc_1", "name": "a.txt", "mime_type": "text/plain"}
    given = {"id": "m", "thread_id": "t", "created_at": "2026-01-01T00:00:00", "inference_options": {}}
    item = UserMessageItem.model_validate(given | {"content": [], "attachments": [attachment]})
    assert "a.txt" in json.dumps(await HistoryConverter(files=Unread()).to_agent_input([item]))


DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


def test_the_preview_of_an_image_may_be_larger_than_a_file_that_is_sent(
    tmp_path: Path, database_url: URL, model_server: ModelServer
) -> None:
    noise = [Image.effect_noise((1100, 1100), 90) for _ in range(3)]
    opaque = Image.linear_gradient("L").resize((1100, 1100))
    given = io.BytesIO()
    Image.merge("RGBA", [*noise, opaque]).save(given, "WEBP", quality=1)
    most = len(given.getvalue()) + 1000
    place = started(tmp_path, database_url, model_server, None, CHAT_MAX_ATTACHMENT_BYTES=str(most))
    user = place.user()
    post_message(user, "larger than it was", user.ready(given.getvalue(), "noise.webp", "image/webp"))
    (image,) = images_in(asked(place, "larger than it was"))
    assert len(image) > most
    Image.open(io.BytesIO(image)).load()
    assert place.process.stop() == 0
