"""What a stream says is what the stock client reads in it, whatever a server leaves out, misspells or adds.

Each of some thousand streams is read by the stock client and by ours, below the Agents SDK, and then run through the
Agents SDK by both. Where ours differs on purpose, it is by one of these rules:

1. A response that ends without its end is an error (the stock client takes it for a whole one), and so is a chat
   completion that was cut off (``length``, ``content_filter``).
2. Where the stock client raises what is no APIError (bytes that are no UTF-8, broken JSON, an event that is no object),
   ours raises an APIError or reads on.
3. A delta that is a number is its digits, one that is null is nothing, content in parts is their text.
4. A whole message in place of a delta is read if no text came before it; tool calls are told apart without an index.
5. A choice whose index is no number is the first one (the Agents SDK drops it).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, get_args

import httpx2
import pytest
from agents import (
    Agent,
    AgentsException,
    Model,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
)
from openai import APIError, AsyncOpenAI, BaseModel

from chatkit_postgres.assistant.model_servers import event_decoder
from chatkit_postgres.assistant.model_servers.openai_client import StreamingOpenAI
from chatkit_postgres.assistant.models import ConfiguredModels, ModelApi, ModelOptions
from tests.conftest import Some
from tests.support.streams import CHUNKS, STREAMS, Served, Variant, frames, pieces, variants

VARIANTS = list(variants())
SLICES = 12


@dataclass
class StreamOutcome:
    """What a reader took from a stream."""

    text: str = ""
    thought: str = ""
    refusal: str = ""
    calls: dict[Any, list[str]] = field(default_factory=dict)
    usage: list[int] = field(default_factory=list)
    ended: bool = False
    error: str | None = None


class Reader:
    """A client on a network of one stream."""

    def __init__(self, kind: type[AsyncOpenAI]) -> None:
        self.network = Served()
        own = httpx2.AsyncClient(transport=self.network)
        self.client = kind(api_key="none", base_url="http://model.invalid/v1", http_client=own, max_retries=0)

    async def read_stream(self, api: str, *body: bytes) -> StreamOutcome:
        self.network.body = body
        return await read_stream(self.client, api)


@pytest.fixture
async def stock() -> AsyncIterator[Reader]:
    reader = Reader(AsyncOpenAI)
    yield reader
    await reader.client.close()


@pytest.fixture
async def ours() -> AsyncIterator[Reader]:
    reader = Reader(StreamingOpenAI)
    yield reader
    await reader.client.close()


async def read_stream(client: AsyncOpenAI, api: str) -> StreamOutcome:
    outcome = StreamOutcome()
    try:
        if api == "responses":
            async for event in await client.responses.create(model="m", input="Hello", stream=True):
                _read_event(outcome, event)
        else:
            asked: Any = [{"role": "user", "content": "Hello"}]
            async for chunk in await client.chat.completions.create(model="m", messages=asked, stream=True):
                _read_chunk(outcome, chunk)
    except Exception as raised:  # noqa: BLE001 - whatever it is, it is compared
        outcome.error = "APIError" if isinstance(raised, APIError) else type(raised).__name__
    return outcome


def _text(value: Any) -> str:
    """By the third rule."""
    if isinstance(value, list):
        return "".join(str(part.get("text") or "") for part in value if isinstance(part, dict))
    return str(value) if isinstance(value, str | int | float) else ""


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | float) else 0


def _read_event(outcome: StreamOutcome, event: Any) -> None:
    match event.type:
        case "response.output_text.delta":
            outcome.text += _text(event.delta)
        case "response.reasoning_summary_text.delta":
            outcome.thought += _text(event.delta)
        case "response.refusal.delta":
            outcome.refusal += _text(event.delta)
        case "response.output_item.done" if getattr(event.item, "type", None) == "function_call":
            item = event.item
            outcome.calls[event.output_index or 0] = [_text(item.call_id), _text(item.name), _text(item.arguments)]
        case "response.completed" | "response.incomplete" | "response.failed":
            outcome.ended = True
            usage = getattr(event.response, "usage", None)
            outcome.usage = [_number(getattr(usage, name, 0)) for name in ("input_tokens", "output_tokens")]


def _read_chunk(outcome: StreamOutcome, chunk: Any) -> None:
    for choice in chunk.choices if isinstance(chunk.choices, list) else ():
        delta = getattr(choice, "delta", None)
        outcome.text += _text(getattr(delta, "content", None))
        outcome.refusal += _text(getattr(delta, "refusal", None))
        outcome.thought += _text(getattr(delta, "reasoning_content", None))
        for call in getattr(delta, "tool_calls", None) or ():
            function = getattr(call, "function", None)
            index = call.index if isinstance(getattr(call, "index", None), int) else 0
            known = outcome.calls.setdefault(int(index), ["", "", ""])
            known[0] = _text(getattr(call, "id", None)) or known[0]
            known[1] += _text(getattr(function, "name", None))
            known[2] += _text(getattr(function, "arguments", None))
        outcome.ended = outcome.ended or bool(getattr(choice, "finish_reason", None))
        if getattr(choice, "finish_reason", None) in ("length", "content_filter"):
            outcome.error = "cut off"
    usage = getattr(chunk, "usage", None)
    if isinstance(usage, BaseModel):
        outcome.usage = [_number(getattr(usage, name, 0)) for name in ("prompt_tokens", "completion_tokens")]


def difference(variant: Variant, stock: StreamOutcome, ours: StreamOutcome) -> str | None:
    """What is not as it should be, by the rules above."""
    if stock.error not in {None, "APIError", "cut off"}:
        # The second rule; nothing that was read is lost.
        whole = ours.error in {None, "APIError"} and ours.text.startswith(stock.text)
        return None if whole else f"the stock client raised {stock.error}, ours {ours.error}"
    if (stock.text, stock.thought, stock.refusal, list(stock.calls.values()), stock.usage) != (
        ours.text,
        ours.thought,
        ours.refusal,
        list(ours.calls.values()),
        ours.usage,
    ):
        return "other words"
    wanted = "APIError" if stock.error or not (stock.ended or "chat" in variant.api) else None
    return None if ours.error == wanted else f"error {ours.error} instead of {wanted}"


@pytest.mark.parametrize("part", range(SLICES))
async def test_any_stream_says_what_the_stock_client_reads_in_it(
    stock: Reader, ours: Reader, some: Some, part: int
) -> None:
    wrong = []
    for variant in some(VARIANTS[part::SLICES]):
        body = frames(variant.events)
        read = [await reader.read_stream(variant.api, body) for reader in (stock, ours)]
        if (found := difference(variant, *read)) is not None:
            wrong.append((variant.name, found, *read))
    assert wrong == []


def test_there_are_thousands_of_streams() -> None:
    assert len(VARIANTS) > 4000


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(("api", "name"), STREAMS)
async def test_it_says_so_with_any_line_ends_and_however_it_is_cut(
    stock: Reader, ours: Reader, some: Some, api: str, name: str, ending: str
) -> None:
    events = STREAMS[api, name]
    whole = await stock.read_stream(api, frames(events))
    cuts = [*range(20), None]
    for named, done, seed in some(
        [(named, done, seed) for named in (False, True) for done in (False, True) for seed in cuts]
    ):
        body = frames(events, named=named, ending=ending, done=done)
        read = await ours.read_stream(api, *pieces(body, seed))
        assert difference(Variant(api, name, events), whole, read) is None, (named, done, seed, read)
    by_byte = [bytes([byte]) for byte in frames(events, named=True, ending=ending)]
    assert difference(Variant(api, name, events), whole, await ours.read_stream(api, *by_byte)) is None


def piece(api: str, delta: Any) -> bytes:
    if api == "responses":
        return frames([{"type": "response.output_text.delta", "delta": delta}], done=False)
    return frames([{"choices": [{"delta": {"content": delta}}]}], done=False)


def end(api: str) -> bytes:
    return frames([{"type": "response.completed"}]) if api == "responses" else b"data: [DONE]\n\n"


BETWEEN = {
    "retry": b"retry: 3000\n\n",
    "id": b"id: 7\n\n",
    "a comment": b": ping\n\n",
    "a ping": b"event: ping\ndata: {}\n\n",
    "an empty event": b"event: keep-alive\n\n",
    "data of nothing": b"data:\n\n",
    "null": b"data: null\n\n",
    "a number": b"data: 5\n\n",
    "a list": b"data: [1]\n\n",
    "an unknown event": b'data: {"type": "response.of_next_year", "delta": 1}\n\n',
    "an unknown field": b"colour: blue\n\n",
    "an error of nothing": b'data: {"error": null}\n\n',
    "empty lines": b"\n\n\n\n",
}


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
@pytest.mark.parametrize("between", BETWEEN)
async def test_what_says_nothing_is_passed_over(ours: Reader, api: str, between: str) -> None:
    body = b"\xef\xbb\xbf" + BETWEEN[between] + piece(api, "Hel") + BETWEEN[between] + piece(api, "lo") + end(api)
    read = await ours.read_stream(api, body)
    assert (read.text, read.error) == ("Hello", None)


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
async def test_text_is_read_whatever_its_bytes(ours: Reader, api: str) -> None:
    """Broken bytes and halves of surrogate pairs cost themselves, and no word around them."""
    broken = piece(api, "by").replace(b"by", b"b\xffy")
    half = piece(api, "?").replace(b"?", b"\\ud83d")
    read = await ours.read_stream(api, piece(api, "be "), broken, half, piece(api, " be"), end(api))
    assert (read.text, read.error) == ("be b\ufffdy\ud83d be", None)


ENDS: dict[str, bytes] = {
    "no JSON": b"data: <html>\n\n",
    "an error": b'data: {"error": {"message": "out of memory", "code": "server_error"}}\n\n',
    "an error in words": b'data: {"error": "out of memory"}\n\n',
    "nested without end": b"data: " + b"[" * 100_000 + b"\n\n",
    "half an event": b'data: {"type": "response.outp',
    "nothing": b"",
}


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
@pytest.mark.parametrize("last", ENDS)
async def test_words_that_came_before_an_error_in_the_same_read_are_said_before_it(
    ours: Reader, api: str, last: str
) -> None:
    read = await ours.read_stream(api, piece(api, "Hello") + ENDS[last])
    assert (read.text, read.error) == ("Hello", "APIError")


async def test_what_comes_after_the_end_in_the_same_read_does_not_undo_it(ours: Reader) -> None:
    after = frames([{"type": "ping"}, {"type": "response.done"}], done=False)
    for last in (after, after + b"data: [DONE]\n\n", b"data: [DO", b'data: {"type": "resp'):
        read = await ours.read_stream("responses", frames(STREAMS["responses", "text"], done=False) + last)
        assert (read.text, read.ended, read.error) == ("Hello, world", True, None)


@pytest.mark.parametrize("torn", [b"data: [DO", b'data: {"id":"c","choi', b"dat", b"data: {"])
async def test_a_torn_event_after_the_reason_to_finish_is_dropped(ours: Reader, torn: bytes) -> None:
    read = await ours.read_stream("chat_completions", frames(CHUNKS["text"], done=False) + torn)
    assert (read.text, read.error) == ("Hello, world", None)


async def test_an_event_without_end_is_an_error(ours: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_decoder, "MAX_EVENT_BYTES", 100_000)
    begun = piece("responses", "Hello")
    read = await ours.read_stream("responses", begun, *[b"data: " + b"x" * 1000 + b"\n"] * 200)
    assert (read.text, read.error) == ("Hello", "APIError")


@pytest.mark.parametrize(
    "complaint",
    [{"object": "error", "message": "maximum context length", "code": 400}, {"detail": "maximum context length"}],
)
async def test_a_complaint_in_mid_stream_is_the_reason_only_if_the_answer_does_not_go_on(
    ours: Reader, complaint: dict[str, Any]
) -> None:
    outcome = frames([complaint], done=False)
    read = await ours.read_stream("chat_completions", piece("chat_completions", "Hello") + outcome)
    assert (read.text, read.error) == ("Hello", "APIError")
    read = await ours.read_stream("chat_completions", outcome + frames(CHUNKS["text"]))
    assert (read.text, read.error) == ("Hello, world", None)


FINISHES = ["stop", "eos", "end_turn", "tool_use", "abort", "STOP", "stop_sequence", "error", ""]


@pytest.mark.parametrize("finish", FINISHES)
async def test_any_reason_to_finish_is_an_end(ours: Reader, finish: str) -> None:
    chunks = [*CHUNKS["text"][:3], {"choices": [{"delta": {}, "finish_reason": finish}]}]
    read = await ours.read_stream("chat_completions", frames(chunks, done=not finish))
    assert (read.text, read.error) == ("Hello, world", None)


def call(**given: Any) -> dict[str, Any]:
    function = {name: given.pop(name) for name in ("name", "arguments") if name in given}
    return given | {"function": function}


CALLS = {
    "without an index": [call(id="a", name="add", arguments="{"), call(arguments="}"), call(id="b", name="sub")],
    "with a null index": [
        call(id="a", index=None, name="add", arguments="{}"),
        call(id="b", index=None, name="sub"),
    ],
    "all with one index": [call(id="a", index=0, name="add", arguments="{}"), call(id="b", index=0, name="sub")],
    "with the id in each": [
        call(id="a", index=0, name="add", arguments="{"),
        call(id="a", index=0, arguments="}"),
        call(id="b", index=1, name="sub"),
    ],
    "of the type null": [
        call(id="a", index=0, type="null", name="add", arguments="{}"),
        call(id="b", index=1, type=None, name="sub"),
    ],
}


@pytest.mark.parametrize("calls", CALLS)
async def test_tool_calls_are_told_apart(ours: Reader, calls: str) -> None:
    chunks = [{"choices": [{"delta": {"tool_calls": [each]}}]} for each in CALLS[calls]]
    read = await ours.read_stream("chat_completions", frames(chunks))
    assert list(read.calls.values()) == [["a", "add", "{}"], ["b", "sub", ""]]


async def test_a_message_in_place_of_a_delta_is_read_once(ours: Reader) -> None:
    whole = {"choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]}
    assert (await ours.read_stream("chat_completions", frames([whole]))).text == "Hello"
    begun = {"choices": [{"delta": {"content": "Hello"}}]}
    assert (await ours.read_stream("chat_completions", frames([begun, whole]))).text == "Hello"


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": None}, {"prompt_tokens": 3}, None, {"prompt_tokens": "3"}])
async def test_any_usage_ends_no_answer(ours: Reader, usage: Any) -> None:
    read = await ours.read_stream("chat_completions", frames([*CHUNKS["text"][:4], {"choices": None, "usage": usage}]))
    assert (read.text, read.error) == ("Hello, world", None)


@function_tool
def add(a: int) -> str:
    return str(a + 1)


@dataclass
class Outcome:
    """What the Agents SDK makes of a stream."""

    text: str = ""
    output: str | None = None
    error: str | None = None


async def run(reader: Reader, model: Model) -> Outcome:
    outcome = Outcome()
    # One call: the same stream would answer the tool's output.
    config = RunConfig(model=model, tracing_disabled=True)
    result = Runner.run_streamed(Agent(name="a", tools=[add]), "Hello", run_config=config, max_turns=1)
    try:
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                outcome.text += event.data.delta
        outcome.output = str(result.final_output)
    except Exception as raised:  # noqa: BLE001 - whatever it is, it is compared
        outcome.error = type(raised).__name__ if isinstance(raised, APIError | AgentsException) else f"! {raised!r}"
    return outcome


@pytest.mark.parametrize("part", range(SLICES))
async def test_an_answer_that_the_stock_client_would_finish_is_finished(
    stock: Reader, ours: Reader, some: Some, part: int
) -> None:
    """And nothing but what the provider errors are made of leaves a run, whatever the SDK stumbles over."""
    usual: dict[str, Model] = {
        "responses": OpenAIResponsesModel("m", stock.client),
        "chat_completions": OpenAIChatCompletionsModel("m", stock.client),
    }
    guarded = {api: ConfiguredModels(ModelOptions(model="m", api=api), ours.client) for api in get_args(ModelApi)}
    wrong = []
    # Every seventh variant, so each field is included.
    for variant in some(VARIANTS[part * 7 :: SLICES * 7]):
        stock.network.body = ours.network.body = [frames(variant.events)]
        theirs = await run(stock, usual[variant.api])
        own = await run(ours, guarded[variant.api].get_model(None))
        # By the fifth rule.
        has_other_index = "choices.0.index" in variant.name
        is_cut = variant.api == "chat_completions" and "cut off" in variant.name
        if (own.error or "").startswith("!") or (
            theirs.error is None and not is_cut and not has_other_index and own != theirs
        ):
            wrong.append((variant.name, theirs, own))
    assert wrong == []
