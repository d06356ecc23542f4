"""Thoughts that a model leaves in its text: shown as thoughts or dropped, and in no case part of the answer."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
)
from sqlalchemy import URL

from chatkit_postgres.assistant.model_servers.think_blocks import ThoughtSeparator, without_thought
from tests.faults.harness import Replica, new_user, script, start
from tests.support.processes import ModelServer, done_items, texts, thread_id_of

TEXTS = {
    "<think>Hm.</think>\n\nThe answer.": ("Hm.", "The answer."),
    "\n <think>\nHm.\n</think>The answer.": ("Hm.\n", "The answer."),
    "<think></think>The answer.": ("", "The answer."),
    "<think>a < b </th </think >ink></think>The answer.": ("a < b </th </think >ink>", "The answer."),
    "<think>Never ended": ("Never ended", ""),
    "<think>Only a thought.</think>": ("Only a thought.", ""),
    "The answer has a <think>tag</think> in it.": ("", "The answer has a <think>tag</think> in it."),
    "<thinking>no</thinking>": ("", "<thinking>no</thinking>"),
    "<thi": ("", "<thi"),
    "  indented": ("", "  indented"),
    "": ("", ""),
    "<think>one</think>\n<think>two</think>": ("one", "<think>two</think>"),
}


def events_of(pieces: Sequence[str]) -> list[Any]:
    text = "".join(pieces)
    at: dict[str, Any] = {"item_id": "m", "output_index": 0, "content_index": 0, "sequence_number": 0}
    message = ResponseOutputMessage(id="m", type="message", role="assistant", status="in_progress", content=[])
    part = ResponseOutputText(type="output_text", text="", annotations=[])
    deltas = [
        ResponseTextDeltaEvent(type="response.output_text.delta", delta=piece, logprobs=[], **at) for piece in pieces
    ]
    done = message.model_copy(update={"content": [part.model_copy(update={"text": text})], "status": "completed"})
    response = Response(
        id="r",
        created_at=0,
        model="m",
        object="response",
        output=[done.model_copy(deep=True)],
        parallel_tool_calls=False,
        tool_choice="auto",
        tools=[],
    )
    end = {"sequence_number": 0, "output_index": 0}
    return [
        ResponseOutputItemAddedEvent(type="response.output_item.added", item=message, **end),
        ResponseContentPartAddedEvent(type="response.content_part.added", part=part, **at),
        *deltas,
        ResponseTextDoneEvent(type="response.output_text.done", text=text, logprobs=[], **at),
        ResponseOutputItemDoneEvent(type="response.output_item.done", item=done, **end),
        ResponseCompletedEvent(type="response.completed", response=response, sequence_number=0),
    ]


async def split(pieces: Sequence[str], *, are_shown: bool) -> list[Any]:
    return separated(events_of(pieces), are_shown=are_shown)


def separated(events: Iterable[Any], *, are_shown: bool) -> list[Any]:
    thoughts = ThoughtSeparator(are_shown=are_shown)
    return [ready for event in events for ready in thoughts.after(event)] + [*thoughts.at_end()]


def cuts(text: str) -> Iterator[list[str]]:
    yield [text]
    yield list(text)
    for place in range(1, len(text)):
        yield [text[:place], text[place:]]


@pytest.mark.parametrize("are_shown", [True, False])
@pytest.mark.parametrize("text", TEXTS)
async def test_a_thought_is_told_apart_wherever_it_is_cut(text: str, are_shown: bool) -> None:
    thought, answer = TEXTS[text]
    for pieces in cuts(text):
        events = await split(pieces, are_shown=are_shown)
        kinds = [event.type for event in events]
        said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        thoughts = "".join(event.delta for event in events if event.type == "response.reasoning_summary_text.delta")
        assert thoughts == (thought if are_shown else ""), pieces
        (done,) = [event for event in events if event.type == "response.output_text.done"]
        (item,) = [event.item for event in events if event.type == "response.output_item.done" and event.item.id == "m"]
        assert done.text == item.content[0].text == events[-1].response.output[0].content[0].text == answer, pieces
        # What is too short to be told from a thought comes when the text is done.
        assert said == answer or (said == "" and answer in {"<thi", ""}), pieces
        announced = kinds.index("response.output_item.added") if not thoughts else _place_of_message(events)
        assert announced < kinds.index("response.output_text.done")


def _place_of_message(events: list[Any]) -> int:
    """The message is announced when its thought has ended."""
    ended = [event.type for event in events].index("response.reasoning_summary_text.done")
    (place,) = [
        number
        for number, event in enumerate(events)
        if event.type == "response.output_item.added" and event.item.type == "message"
    ]
    assert place > ended
    return place


@pytest.mark.parametrize("text", TEXTS)
def test_a_whole_text_is_the_same(text: str) -> None:
    assert without_thought(text) == TEXTS[text][1]


@pytest.fixture(scope="module", params=["responses", "chat_completions"])
def api(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["thought", "drop", "text"])
def thinking(
    request: pytest.FixtureRequest,
    api: str,
    tmp_path_factory: pytest.TempPathFactory,
    shared_database: URL,
    model_server: ModelServer,
) -> Iterator[tuple[Replica, str]]:
    own = {"CHAT_MODEL_API": api, "CHAT_ASSISTANT": "tests.support.assistants:build_with_client_tools"}
    directory = tmp_path_factory.mktemp("thinking")
    replica = start(directory, shared_database, model_server, **own, CHAT_THINK_BLOCKS=request.param)
    yield replica, request.param
    assert replica.process.stop() == 0


def test_the_setting_decides_what_becomes_of_a_thought(thinking: tuple[Replica, str]) -> None:
    replica, setting = thinking
    client = replica.client(new_user())
    events = client.create(script(words=3, think="Let me see."))
    kinds = [item["type"] for item in done_items(events)]
    answer = texts(done_items(events)[-1:])[0]
    assert kinds == ["user_message", *(["workflow"] if setting == "thought" else []), "assistant_message"]
    assert answer == ("<think>Let me see.</think>\n\n" if setting == "text" else "") + "w0 w1 w2 "
    assert ("Let me see." in json.dumps(done_items(events)[1])) is (setting != "drop")
    # The model is not given it as what it has said.
    note = new_user()
    client.post_message(thread_id_of(events), note)
    (call,) = [call for call in replica.model.calls() if note in json.dumps(call["body"])]
    answers = [
        item for item in call["body"].get("input") or call["body"]["messages"] if item.get("role") == "assistant"
    ]
    assert ("Let me see." in json.dumps(answers)) is (setting == "text")


def test_a_thought_before_a_tool_is_not_sent_back_with_its_output(thinking: tuple[Replica, str]) -> None:
    replica, setting = thinking
    note = new_user()
    steps = {"words": 1, "think": "First the tool.", "tools": [("echo", '{"words": "x"}')], "note": note}
    events = replica.client(new_user()).create("SCRIPT " + json.dumps(steps))
    assert texts(done_items(events)[-1:]) == ["Done."]
    last = [call for call in replica.model.calls() if note in json.dumps(call["body"])][-1]["body"]
    given = json.dumps([item for item in last.get("input") or last["messages"] if item.get("role") != "user"])
    assert ("First the tool." in given) is (setting == "text")


def test_reasoning_content_goes_back_while_tools_are_called(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> None:
    """To any model that has sent it; not with the next message."""
    own = {"CHAT_ASSISTANT": "tests.support.assistants:build_with_client_tools", "CHAT_MODEL": "nobody-knows"}
    replica = start(tmp_path_factory.mktemp("reasoning"), shared_database, model_server, **own)
    for name in ("deep", "kimi", ""):
        note = new_user()
        steps: dict[str, Any] = {"words": 1, "tools": [("echo", '{"words": "x"}')], "rounds": 2, "note": note}
        if name:
            steps["reasoning"] = f"I am {name}."
        client = replica.client(new_user())
        events = client.create("SCRIPT " + json.dumps(steps))
        calls = [call["body"] for call in model_server.calls() if note in json.dumps(call["body"])]
        sent_back = [
            [m.get("reasoning_content") for m in body["messages"] if m["role"] == "assistant"] for body in calls
        ]
        thought = steps.get("reasoning")
        assert sent_back == [[], [thought], [thought, thought]]
        other = new_user()
        client.post_message(thread_id_of(events), other)
        (last,) = [call["body"] for call in model_server.calls() if other in json.dumps(call["body"])]
        assert "reasoning_content" not in json.dumps(last)
    assert replica.process.stop() == 0


async def given(*events: Any) -> list[Any]:
    return separated(events, are_shown=True)


async def test_what_several_events_share_is_stripped_once() -> None:
    """As the SDK makes them of chat completions."""
    text = "<think>plan</think>\n\n<think> is a tag that models write."
    added, part_added, *deltas, text_done, item_done, completed = events_of([text])
    completed.response.output[0] = item_done.item
    (*_, last) = await given(added, part_added, *deltas, text_done, item_done, completed)
    assert last.response.output[0].content[0].text == "<think> is a tag that models write."


@pytest.mark.parametrize(
    "texts_of_parts",
    [("answer", "<think> is the tag"), ("<think>a</think>", "<think>b</think>hello"), ("", "<think>c</think>d")],
)
async def test_a_thought_stands_at_the_head_of_a_message_and_nowhere_else(texts_of_parts: tuple[str, str]) -> None:
    first, second = texts_of_parts
    added, part_added, delta, text_done, item_done, completed = events_of([first])
    other: Any = {"content_index": 1}
    item_done.item.content.append(ResponseOutputText(type="output_text", text=second, annotations=[]))
    events = await given(
        added,
        part_added,
        delta,
        text_done,
        part_added.model_copy(update=other),
        delta.model_copy(update=other | {"delta": second}),
        text_done.model_copy(update=other | {"text": second}),
        item_done,
        completed,
    )
    said = "".join(
        event.delta for event in events if event.type == "response.output_text.delta" and event.content_index == 1
    )
    assert said == second
    assert [part.text for part in item_done.item.content] == [without_thought(first), second]


async def test_a_message_that_is_announced_with_an_empty_part_is_one() -> None:
    added, _, *rest = events_of(["<think>a</think>answer"])
    added.item.content.append(ResponseOutputText(type="output_text", text="", annotations=[]))
    events = await given(added, *rest)
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "answer"
