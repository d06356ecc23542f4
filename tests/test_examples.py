"""Each example, started as the README says, over a socket."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from chatkit_postgres.auth.tokens import mint
from examples.handbook import Passage, cited, sections
from tests.conftest import query
from tests.faults.harness import SECRET, environment, new_user
from tests.support.processes import (
    ROOT,
    ChatClient,
    ChatProcess,
    ModelServer,
    done_items,
    http,
    run_cli,
    texts,
    thread_id_of,
)

EXAMPLES = re.findall(r"CHAT_ASSISTANT=(examples\.\w+:\w+) make run", (ROOT / "README.md").read_text())


@contextmanager
def running(name: str, directory: Path, database: URL, model: ModelServer | None) -> Iterator[ChatClient]:
    """Without a model's server the demo model answers."""
    own = {"DATABASE_URL": database.render_as_string(hide_password=False), "CHAT_JWT_SECRET": SECRET}
    settings = (own if model is None else environment(database, model)) | {"CHAT_ASSISTANT": name}
    process = ChatProcess(directory, **settings).wait_until_ready()
    try:
        yield ChatClient(process.base_url, mint(SECRET, new_user(), seconds=600))
    finally:
        assert process.stop() == 0


def answers(events: list[dict[str, Any]]) -> list[str]:
    return texts([item for item in done_items(events) if item["type"] == "assistant_message"])


def test_the_readme_names_every_example() -> None:
    assert {name.partition(":")[0] for name in EXAMPLES} == {
        f"examples.{path.stem}" for path in (ROOT / "examples").glob("*.py") if path.stem != "__init__"
    }


def test_the_plain_agent(tmp_path: Path, shared_database: URL, model_server: ModelServer) -> None:
    with running("examples.plain:build", tmp_path, shared_database, model_server) as client:
        assert answers(client.create("Hello")) == ["You said 'Hello', and that is message 1 of yours."]


def test_the_shop_shows_orders_hands_over_and_cancels(
    tmp_path: Path, shared_database: URL, model_server: ModelServer
) -> None:
    with running("examples.shop:build", tmp_path, shared_database, model_server) as client:
        events = client.create('use the tool show_order {"order": 7}')
        thread_id = thread_id_of(events)
        (card,) = [item for item in done_items(events) if item["type"] == "widget"]
        assert "on its way" in json.dumps(card)
        press = {"thread_id": thread_id, "item_id": card["id"]}
        pressed = client.call(
            "threads.sync_custom_action", action={"type": "order.cancel", "payload": {"order": 7}}, **press
        )
        assert "cancelled" in json.dumps(pressed)
        # The card has no button any more, and other orders never had one.
        refused = client.post(
            "threads.sync_custom_action", action={"type": "order.cancel", "payload": {"order": 8}}, **press
        )
        assert refused.status_code == 422
        client.post_message(thread_id, "use the tool list_orders {}")
        outputs = [call for call in model_server.calls() if "7: cancelled; 8: delivered" in json.dumps(call["body"])]
        assert outputs
        handed = client.post_message(thread_id, "use the tool transfer_to_returns {}")
        assert answers(handed)[-1] == "The tool has answered."
        assert any("within 30 days" in json.dumps(call["body"]) for call in model_server.calls())
        session = f"SELECT sender_name FROM chat_messages WHERE item_id = '{done_items(handed)[-1]['id']}'"
        assert query(shared_database, session) == [{"sender_name": "Returns"}]


def test_a_mention_of_an_order_is_looked_up(tmp_path: Path, shared_database: URL, model_server: ModelServer) -> None:
    with running("examples.shop:build", tmp_path, shared_database, model_server) as client:
        for number, known in ((8, "order 8, which is delivered"), (9, "an order that does not exist")):
            tag = {"type": "input_tag", "id": f"order-{number}", "text": f"Order {number}", "data": {"state": "FORGED"}}
            words = {"type": "input_text", "text": "Where is "}
            before = len(model_server.calls())
            client.events(
                "threads.create",
                input={"content": [words, tag | {"interactive": True}], "attachments": [], "inference_options": {}},
            )
            asked = json.dumps([call["body"] for call in model_server.calls()[before:]])
            assert known in asked
            assert "FORGED" not in asked


def test_the_handbook_answers_with_its_sources(tmp_path: Path, shared_database: URL, model_server: ModelServer) -> None:
    with running("examples.handbook:build", tmp_path, shared_database, model_server) as client:
        events = client.create("How many days of holiday do I have? [1] [9]")
        (answer,) = [item for item in done_items(events) if item["type"] == "assistant_message"]
        (annotation,) = answer["content"][0]["annotations"]
        assert annotation["source"]["filename"] == "holidays.md"
        assert annotation["source"]["title"] == "Holidays"
        # The mark that the model wrote is drawn by whoever shows the annotation; a number that is no passage's stays.
        text = answer["content"][0]["text"]
        assert (text.count("[1]"), text.count("[9]")) == (0, 1)
        assert text[: annotation["index"]].endswith("have?")
        assert any("28 days of holiday" in json.dumps(call["body"]) for call in model_server.calls())
        # What is streamed is what is stored.
        assert client.items(thread_id_of(events))[1] == answer
        nothing = client.create("xyzzy? [1]")
        assert done_items(nothing)[1]["content"][0]["annotations"] == []


def test_the_shop_can_be_tried_without_a_key(tmp_path: Path, shared_database: URL) -> None:
    with running("examples.shop:build", tmp_path, shared_database, None) as client:
        events = client.create("Show order 7")
        types = [item["type"] for item in done_items(events)]
        assert types == ["user_message", "workflow", "widget", "assistant_message"]
        assert answers(events) == ["The tool *Show order* says: **shown**."]
        listed = client.post_message(thread_id_of(events), "Please list my orders")
        assert answers(listed) == ["The tool *List orders* says: **7: on its way; 8: delivered**."]
        # It names what can be said, and an order without its number is none.
        (reply,) = answers(client.post_message(thread_id_of(events), "Show order"))
        assert "- Say *show order 7*, and I call a tool." in reply
        asked = client.post_message(thread_id_of(events), "Refund order 8")
        (card,) = [item for item in done_items(asked) if item["type"] == "widget"]
        assert "Refund order" in json.dumps(card["widget"])
        approval = {"type": "chatkit_postgres.approval", "payload": {"approve": True}}
        refunded = client.events(
            "threads.custom_action", thread_id=thread_id_of(events), item_id=card["id"], action=approval
        )
        assert answers(refunded) == ["The tool *Refund order* says: **Order 8 is refunded**."]
        (reply,) = answers(client.post_message(thread_id_of(events), "What do you remember?"))
        assert "The tool *List orders* says: **7: on its way; 8: delivered**." in reply
        assert "Order 8 is refunded" in reply
        events = client.post_message(thread_id_of(events), "How do returns work?")
        assert answers(events) == ["I have handed you over: here is **Returns**, another agent."]


def test_the_agent_of_a_clone_tells_the_time_at_the_first_question(
    tmp_path: Path, embedded_settings: dict[str, str]
) -> None:
    """In a copy of the repository's own settings, as ``make run`` starts it."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    process = ChatProcess(tmp_path, **embedded_settings).wait_until_ready()
    try:
        prompts = http.get(f"{process.base_url}/playground/prompts").json()["prompts"]
        (answer,) = answers(process.client("ada").create(prompts[0]["text"]))
        assert re.search(r"\*Current time\* says: \*\*\w+day, \d\d \w+ \d{4}, \d\d:\d\d UTC\*\*", answer)
    finally:
        assert process.stop() == 0


def test_the_handbook_can_be_tried_without_a_key(tmp_path: Path, shared_database: URL) -> None:
    with running("examples.handbook:build", tmp_path, shared_database, None) as client:
        events = client.create("How many days of holiday do I have?")
        (answer,) = [item for item in done_items(events) if item["type"] == "assistant_message"]
        assert "28 days of holiday" in answer["content"][0]["text"]
        (annotation,) = answer["content"][0]["annotations"]
        assert annotation["source"]["filename"] == "holidays.md"


def test_only_marks_of_passages_are_taken_out_of_an_answer() -> None:
    found = [Passage("a.md", "A", "a"), Passage("b.md", "B", "b")]
    text, annotations = cited("Use `rows[1]` [2], see [1](https://x.example) and [3]. [1]", found)
    assert text == "Use `rows[1]`, see [1](https://x.example) and [3]."
    assert [(one.index, one.source.title) for one in annotations] == [(13, "B"), (len(text), "A")]


def test_any_markdown_can_be_a_handbook() -> None:
    page = "Before.\n\n# Same\none\n\n```sh\n# no heading\n```\n\nSame\n====\ntwo\n\n## Nothing\n\n> # quoted\n"
    assert sections(page, "page") == [
        ("page", "Before."),
        ("Same", "one\n\n```sh\n# no heading\n```"),
        ("Same", "two"),
        ("Nothing", "> # quoted"),
    ]
    assert sections("", "page") == []
    assert sections("no heading", "page") == [("page", "no heading")]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("examples.nowhere:build", "there is no module examples.nowhere in"),
        ("examples.plain:nothing", "AttributeError"),
        ("examples.shop:Cancellation", "Cancellation"),
        ("examples", "use package.module:attribute"),
    ],
)
def test_a_wrong_import_string_ends_the_start_with_the_reason(tmp_path: Path, name: str, reason: str) -> None:
    done = run_cli(tmp_path, "serve", CHAT_ASSISTANT=name)
    assert done.returncode == 2
    assert "CHAT_ASSISTANT" in done.stderr
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
