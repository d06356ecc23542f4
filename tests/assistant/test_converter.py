"""What the model is given of a conversation."""

import json
import re
from typing import Any

import pytest
from agents.models.chatcmpl_converter import Converter
from chatkit.types import (
    ClientToolCallItem,
    CustomTask,
    FileAttachment,
    HiddenContextItem,
    InferenceOptions,
    SearchTask,
    ThoughtTask,
    URLSource,
    UserMessageItem,
    UserMessageTagContent,
    UserMessageTextContent,
    Workflow,
    WorkflowItem,
)

from chatkit_postgres.assistant.model_input.converter import BROKE_OFF, OVERTAKEN, STOPPED, HistoryConverter
from tests.support.items import NAIVE, assistant_message, examples_of, item_types, user_message


async def converted(*items: Any) -> list[dict[str, Any]]:
    return [dict(item) for item in await HistoryConverter().to_agent_input(list(items))]


async def test_an_answer_is_plain_text_which_both_model_apis_read() -> None:
    question, answer = await converted(user_message("t", "m", "Why?"), assistant_message("t", "a", "Because."))
    assert question["content"][0]["text"] == "Why?"
    assert (answer["role"], answer["content"]) == ("assistant", "Because.")


async def test_an_answer_without_words_is_left_out() -> None:
    assert await converted(assistant_message("t", "a", "")) == []


async def test_tags_and_attachments_reach_the_model_as_text() -> None:
    item = UserMessageItem(
        id="m",
        thread_id="t",
        created_at=NAIVE,
        content=[
            UserMessageTextContent(text="Look at "),
            UserMessageTagContent(id="1", text="invoice", data={"number": 7}),
        ],
        attachments=[FileAttachment(id="a", name="scan.pdf", mime_type="application/pdf")],
        inference_options=InferenceOptions(),
    )
    text = json.dumps(await converted(item))
    for part in ("Look at @invoice", '\\"number\\": 7', '\\"scan.pdf\\" (application/pdf)'):
        assert part in text


async def test_hidden_context_of_any_shape_reaches_the_model() -> None:
    for content in ("words", {"a": [1, 2]}):
        item = HiddenContextItem(id="h", thread_id="t", created_at=NAIVE, content=content)
        assert "HiddenContext" in json.dumps(await converted(item))


@pytest.mark.parametrize("item_type", item_types(), ids=lambda kind: kind.__name__)
async def test_every_item_is_read_by_both_model_apis(item_type: Any) -> None:
    """What chat-completions models get is made of what responses models get; it is where shapes are refused."""
    for item in examples_of(item_type, "t"):
        given = await HistoryConverter().to_agent_input([user_message("t", "m", "Hello"), item])
        json.dumps(given)
        messages = Converter.items_to_messages(given)
        assert messages[0]["role"] == "user"
        assert all(message["role"] in {"user", "assistant", "tool"} for message in messages)


async def test_what_was_quoted_is_known_in_every_later_turn() -> None:
    quoting = user_message("t", "m", "What is this?").model_copy(update={"quoted_text": "an old sentence"})
    given = json.dumps(await converted(quoting, assistant_message("t", "a", "A sentence."), user_message("t", "n")))
    assert "an old sentence" in given


@pytest.mark.parametrize(
    ("state", "note"),
    [
        ("stopped", STOPPED),
        ("superseded", OVERTAKEN),
        ("running", OVERTAKEN),
        ("failed", BROKE_OFF),
        ("interrupted", BROKE_OFF),
        ("a state of a newer version", BROKE_OFF),
    ],
)
async def test_an_answer_that_did_not_come_to_its_end_says_why(state: str, note: str) -> None:
    converter = HistoryConverter(cut_short={"a": state})
    given: Any = await converter.to_agent_input(
        [assistant_message("t", "a", "Half of"), assistant_message("t", "b", "All of it")]
    )
    assert [message["content"] for message in given] == [f"Half of\n{note}", "All of it"]


async def test_a_call_stands_with_its_output_or_not_at_all() -> None:
    call = ClientToolCallItem(id="c", thread_id="t", created_at=NAIVE, call_id="k", name="look", arguments={"a": 1})
    (pending,) = await converted(call)
    assert pending["role"] == "user"


@pytest.mark.parametrize("item_id", ["c", "i" * 64, "i" * 65, "é" * 200])
async def test_a_call_has_an_id_of_ours_that_every_provider_takes(item_id: str) -> None:
    call = ClientToolCallItem(id=item_id, thread_id="t", created_at=NAIVE, call_id="call_0", name="l", arguments={})
    answered = [call.model_copy(update={"status": "completed", "output": {"found": ["é"]}})]
    answered.append(answered[0].model_copy(update={"id": f"{item_id[:60]}2"}))
    given = await converted(*answered)
    assert [item["type"] for item in given] == ["function_call", "function_call_output"] * 2
    first, second = given[0]["call_id"], given[2]["call_id"]
    assert first != second
    assert all(re.fullmatch("[0-9A-Za-z]{9}", call_id) for call_id in (first, second))
    assert [item["call_id"] for item in await converted(*answered)] == [first, first, second, second]
    assert [item["call_id"] for item in given] == [first, first, second, second]
    assert given[1]["output"] == '{"found": ["é"]}'


async def test_tasks_are_told_and_thoughts_are_not() -> None:
    source = URLSource(url="https://example.com", title="Example")
    tasks = [
        ThoughtTask(content="private"),
        SearchTask(queries=["uuid"], sources=[source]),
        CustomTask(title="Wrote", content="it"),
    ]
    item = WorkflowItem(id="w", thread_id="t", created_at=NAIVE, workflow=Workflow(type="custom", tasks=tasks))
    text = json.dumps(await converted(item))
    for part in ("uuid", "Example <https://example.com>", "Wrote: it"):
        assert part in text
    assert "private" not in text
