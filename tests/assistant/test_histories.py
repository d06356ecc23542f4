"""What a model is sent of a conversation is taken by one that refuses what real APIs refuse, whatever has happened."""

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from chatkit_postgres.db import Database
from chatkit_postgres.errors import ContentRefused, ContextTooLong, ImageRefused
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.text import clean_text
from tests.conftest import Some, query
from tests.faults.harness import Replica, new_user, replica
from tests.support.assistants import BROKEN_TEXTS
from tests.support.files import Uploader, image_bytes
from tests.support.processes import ModelServer, done_items, message, texts, thread_id_of
from tests.support.random_threads import random_thread
from tests.support.strict_model import FORBIDDEN

APIS = ["responses", "chat_completions"]
THREADS = 200
CHUNKS = 8
WINDOW = 24_000


def sent(replica: Replica, words: str) -> list[dict[str, Any]]:
    """The calls of the model with these words in them."""
    return [call for call in replica.model.calls() if words in json.dumps(call["body"])]


def with_model(directory: Path, database: URL, model: ModelServer, api: str, name: str) -> Iterator[Replica]:
    own = {"CHAT_ASSISTANT": "tests.support.assistants:build_with_client_tools", "CHAT_MODEL_API": api}
    # Files of one are read by the other.
    own |= {"CHAT_MODEL": name, "CHAT_FILE_TOKENS": "2000", "CHAT_DATA_DIR": str(directory.parent / "data")}
    yield from replica(directory, database, model, **own)


@pytest.fixture(scope="module", params=APIS)
def strict(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    shared_database: URL,
    strict_model_server: ModelServer,
) -> Iterator[Replica]:
    directory = tmp_path_factory.mktemp("strict")
    yield from with_model(directory, shared_database, strict_model_server, request.param, "strict")


@pytest.fixture(params=APIS)
def small(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    shared_database: URL,
    strict_model_server: ModelServer,
) -> Iterator[Replica]:
    """A model with a small window that sees no pictures; what it has refused is forgotten with its process."""
    directory = tmp_path_factory.mktemp("small")
    yield from with_model(directory, shared_database, strict_model_server, request.param, f"blind-window-{WINDOW}")


def answers(events: list[dict[str, Any]]) -> list[str]:
    assert [event for event in events if event["type"] == "error"] == []
    return texts([item for item in done_items(events) if item["type"] == "assistant_message"])


def error_in(events: list[dict[str, Any]]) -> str:
    (error,) = [event for event in events if event["type"] == "error"]
    return str(error["message"])


QUESTIONS: list[dict[str, Any] | str] = [
    "plain",
    {"words": 2},
    {"tools": [("echo", '{"words": "one"}'), ("echo", '{"words": "two"}')], "rounds": 3},
    {"tools": [("echo", '{"words": "one"}')], "call_ids": ["same" * 50], "rounds": 2},
    {"tools": [("transfer_to_clerk", "{}")]},
]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_any_thread_is_answered_and_the_question_is_in_every_request(strict: Replica, some: Some, chunk: int) -> None:
    user = new_user()
    client = strict.client(user)
    seeds = some(range(chunk, THREADS, CHUNKS))
    threads = asyncio.run(_made(strict.database, user, seeds))
    for seed, thread_id in zip(seeds, threads, strict=True):
        note = f"question {seed} of {user}"
        question = QUESTIONS[seed // CHUNKS % len(QUESTIONS)]
        asked = note if isinstance(question, str) else "SCRIPT " + json.dumps(question | {"note": note})
        before = len(strict.model.calls())
        assert any(answers(client.post_message(thread_id, asked))), seed
        calls = [call for call in strict.model.calls()[before:] if user in json.dumps(call["body"])]
        assert [call["refused"] for call in calls if "refused" in call] == [], seed
        assert calls, seed
        assert all(note in json.dumps(call["body"]) for call in calls), seed


async def _made(url: URL, user: str, seeds: Sequence[int]) -> list[str]:
    database = Database(url, pool_size=1)
    try:
        return [await random_thread(DatabaseStore(database), user, random.Random(seed)) for seed in seeds]
    finally:
        await database.close()


class TestRefusals:
    """A refusal teaches: what was refused is not sent with the next message, and a retry tries it again."""

    @pytest.mark.parametrize("words", [FORBIDDEN, f"Tell me of the {FORBIDDEN}.", f"a\n\n{FORBIDDEN}\n\nb"], ids=len)
    def test_a_message_that_is_refused_is_not_sent_again(self, strict: Replica, words: str) -> None:
        client = strict.client(new_user())
        thread_id = thread_id_of(client.create("Before."))
        assert error_in(client.post_message(thread_id, words)) == ContentRefused().message
        note = new_user()
        assert answers(client.post_message(thread_id, note))
        (call,) = sent(strict, note)
        assert FORBIDDEN not in json.dumps(call["body"])
        assert "Before." in json.dumps(call["body"])

    def test_what_is_refused_is_tried_again_by_a_retry(self, strict: Replica) -> None:
        client, note = strict.client(new_user()), new_user()
        thread_id = thread_id_of(client.create("Before."))
        client.post_message(thread_id, f"{FORBIDDEN} {note}")
        asked = client.items(thread_id)[-1]
        before = len(sent(strict, note))
        again = client.events("threads.retry_after_item", thread_id=thread_id, item_id=asked["id"])
        assert error_in(again) == ContentRefused().message
        assert len(sent(strict, note)) > before

    def test_an_older_message_that_this_model_refuses_does_not_end_the_thread(self, strict: Replica) -> None:
        """Another model has taken it."""
        user = new_user()
        client = strict.client(user)
        thread_id = thread_id_of(client.create("An older question."))
        query(
            strict.database,
            "UPDATE chat_messages SET item = replace(item::text, 'An older question.', 'The UNSPEAKABLE')::jsonb"
            f" WHERE user_id = '{user}' AND item_type = 'user_message'",
        )
        for note in (new_user(), new_user()):
            assert answers(client.post_message(thread_id, note))
            assert ["refused" in call for call in sent(strict, note)] == [True, False]

    def test_a_file_that_is_refused_is_named_in_the_sentence(self, strict: Replica) -> None:
        user = Uploader(strict.client(new_user()))
        file = user.ready(f"The {FORBIDDEN}.".encode(), "note.txt", "text/plain")
        given = message("What does it say?") | {"attachments": [file]}
        events = user.client.events("threads.create", input=given)
        assert error_in(events) == "The assistant may not answer this message, or what is attached to it."
        note = new_user()
        assert answers(user.client.post_message(thread_id_of(events), note))
        assert all(FORBIDDEN not in json.dumps(call["body"]) for call in sent(strict, note))


class TestPictures:
    def test_a_picture_that_is_refused_is_only_named_with_the_next_message(self, small: Replica) -> None:
        user = Uploader(small.client(new_user()))
        image = user.ready(image_bytes(), "cat.png", "image/png")
        given = message("What do you see?") | {"attachments": [image]}
        events = user.client.events("threads.create", input=given)
        assert error_in(events) == ImageRefused().message
        thread_id, note = thread_id_of(events), new_user()
        assert answers(user.client.post_message(thread_id, note))
        (call,) = sent(small, note)
        body = json.dumps(call["body"])
        assert "What do you see?" in body
        assert "cat.png" in body
        assert "base64" not in body
        item_id = user.client.items(thread_id)[0]["id"]
        again = user.client.events("threads.retry_after_item", thread_id=thread_id, item_id=item_id)
        assert error_in(again) == ImageRefused().message

    def test_an_older_picture_does_not_end_a_thread_with_a_model_that_sees_none(
        self, small: Replica, strict: Replica
    ) -> None:
        name = new_user()
        user = Uploader(strict.client(name))
        image = user.ready(image_bytes(), "cat.png", "image/png")
        events = user.client.events("threads.create", input=message("Look.") | {"attachments": [image]})
        assert answers(events)
        client = small.client(name)
        refused = []
        for note in (new_user(), new_user()):
            assert answers(client.post_message(thread_id_of(events), note))
            refused.append(["refused" in call for call in sent(small, note)])
        # The second time it is known.
        assert refused == [[True, False], [False]]


class TestTooLong:
    def test_a_long_thread_is_answered_and_the_budget_is_remembered(self, small: Replica) -> None:
        client = small.client(new_user())
        thread_id = thread_id_of(client.create("The beginning."))
        for number in range(3):
            assert answers(
                client.post_message(thread_id, f"SCRIPT {json.dumps({'words': 10, 'size': 1000, 'note': number})}")
            )
        note = new_user()
        assert answers(client.post_message(thread_id, note))
        assert [("refused" in call) for call in sent(small, note)][-1:] == [False]
        other = new_user()
        assert answers(client.post_message(thread_id, other))
        assert [("refused" in call) for call in sent(small, other)] == [False]

    @pytest.mark.parametrize("size", [30_000, 31_000, 32_000])
    def test_a_message_that_is_too_long_by_itself_is_told_and_not_sent_again(self, small: Replica, size: int) -> None:
        client = small.client(new_user())
        thread_id = thread_id_of(client.create("Hello"))
        assert error_in(client.post_message(thread_id, "x" * size)) == ContextTooLong().message
        note = new_user()
        assert answers(client.post_message(thread_id, note))
        (call,) = sent(small, note)
        assert "xxxx" not in json.dumps(call["body"])
        # Nobody else has less of the model for it.
        assert answers(client.post_message(thread_id, "y" * 15_000))

    @pytest.mark.parametrize("rounds", [1, 2, 5])
    def test_what_tools_say_is_cut_and_the_question_stays(self, small: Replica, rounds: int) -> None:
        client, note = small.client(new_user()), new_user()
        tools = [("recite", '{"characters": 20000}'), ("recite", '{"characters": 30000}')]
        assert answers(client.create(f"SCRIPT {json.dumps({'tools': tools, 'rounds': rounds, 'note': note})}"))
        bodies = [json.dumps(call["body"]) for call in small.model.calls() if note in json.dumps(call["body"])]
        assert bodies[-1].count("begin ") == bodies[-1].count(" end") == 2 * rounds
        assert bodies[-1].count("characters are left out here") == 2 * rounds

    @pytest.mark.parametrize("size", [40_000, 100_000, 150_000])
    def test_a_tools_output_that_is_too_long_is_cut_in_the_middle(self, small: Replica, size: int) -> None:
        client, note = small.client(new_user()), new_user()
        events = client.create(f"SCRIPT {json.dumps({'tools': [('ask_title', '{}')], 'note': note})}")
        output = {"title": "begin " + "z" * size + " end"}
        done = client.events("threads.add_client_tool_output", thread_id=thread_id_of(events), result=output)
        assert answers(done)[-1:] == ["Done."]
        body = json.dumps(sent(small, note)[-1]["body"])
        assert "begin" in body
        assert " end" in body
        assert "characters are left out here" in body


@pytest.fixture(scope="module", params=APIS)
def broken(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    shared_database: URL,
    strict_model_server: ModelServer,
) -> Iterator[Replica]:
    own = {"CHAT_ASSISTANT": "tests.support.assistants:build_with_broken_text", "CHAT_MODEL_API": request.param}
    yield from replica(tmp_path_factory.mktemp("broken"), shared_database, strict_model_server, **own)


@pytest.mark.parametrize("kind", BROKEN_TEXTS)
def test_what_cannot_be_encoded_reaches_the_model_as_a_replacement_and_ends_nothing(broken: Replica, kind: str) -> None:
    """In a tool's output, in the instructions, in what a mention stands for."""
    client, note = broken.client(new_user()), new_user()
    tag = {"type": "input_tag", "id": kind, "text": "it", "data": {}, "interactive": False}
    steps = {"tools": [("broken_text", json.dumps({"kind": kind}))], "note": note}
    given = message("\n\nSCRIPT " + json.dumps(steps))
    events = client.events("threads.create", input=given | {"content": [tag, *given["content"]]})
    assert answers(events)[-1:] == ["Done."]
    calls = sent(broken, note)
    assert len(calls) == 2
    assert not any("refused" in call for call in calls)
    body = json.dumps(calls[-1]["body"], ensure_ascii=False)
    clean = clean_text(BROKEN_TEXTS[kind])
    # Each of the three places, and the instructions of all kinds.
    assert body.count(json.dumps(clean, ensure_ascii=False)[1:-1]) >= 3
    assert answers(client.post_message(thread_id_of(events), "And now?"))
