"""A model that says nothing leaves no empty message, and a sentence that invites another try."""

import copy
import json
from collections.abc import AsyncIterator
from typing import Any, get_args

import httpx2
import pytest
from agents import Agent
from chatkit.types import ClientEffectEvent

from chatkit_postgres.assistant import AgentAssistant, Choices
from chatkit_postgres.assistant.model_servers.openai_client import StreamingOpenAI
from chatkit_postgres.assistant.models import ConfiguredModels, ModelApi, ModelOptions
from chatkit_postgres.assistant.silence import without_empty_messages
from chatkit_postgres.assistant.turn_hooks import TurnHooks
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import ModelSilent, RefusedWithoutWords
from chatkit_postgres.store import DatabaseStore
from tests.support.chat import Chat, create, stored
from tests.support.processes import thread_id_of
from tests.support.streams import CHUNKS, RESPONSES, Event, Served, frames

REFUSED = "I would rather not"
SILENT = ["", " ", "\n\n", "\t \n"]


class Talk:
    def __init__(self, api: ModelApi, chat: Chat, network: Served) -> None:
        self.api = api
        self.chat = chat
        self.network = network

    async def ask(self, *events: Event) -> tuple[list[Event], list[Any]]:
        """The events of a turn that is answered with these, and what is stored of its thread."""
        self.network.body = [frames(events)]
        received = await self.chat.events(create("Hello"))
        context = RequestContext(user_id="alice")
        page = await self.chat.store.load_thread_items(thread_id_of(received), None, 10, "asc", context)
        return received, page.data


@pytest.fixture(params=get_args(ModelApi))
async def talk(request: pytest.FixtureRequest, store: DatabaseStore) -> AsyncIterator[Talk]:
    network = Served()
    own = httpx2.AsyncClient(transport=network)
    async with StreamingOpenAI(api_key="none", base_url="http://m.invalid", http_client=own, max_retries=0) as client:
        assistant = AgentAssistant(Agent(name="a"))
        assistant.prepare(ConfiguredModels(ModelOptions(model="m", api=request.param), client), Choices())
        yield Talk(request.param, Chat(store, assistant), network)


def answer(api: str, text: str, *, thought: bool = False) -> list[Event]:
    """A whole stream with this text."""
    name = "thought and text" if thought else "text"
    if api == "chat_completions":
        first, *_ = CHUNKS["text"]
        sent = [copy.deepcopy(CHUNKS[name][1])] if thought else []
        return [first, *sent, {"choices": [{"delta": {"content": text}}]}, *CHUNKS["text"][-2:]]
    events = copy.deepcopy(RESPONSES[name])
    for event in events:
        if event["type"] == "response.output_text.delta":
            event["delta"] = text if event["delta"] == "Hel" else ""
        if event["type"] == "response.output_text.done":
            event["text"] = text
        for item in (event.get("item"), *event.get("response", {}).get("output", [])):
            for part in (item or {}).get("content", []):
                part["text"] = text
        if event["type"] == "response.content_part.done":
            event["part"]["text"] = text
    return events


@pytest.mark.parametrize("thought", [False, True], ids=["silent", "thinking"])
@pytest.mark.parametrize("text", SILENT, ids=repr)
async def test_silence_is_an_error_and_no_message(talk: Talk, text: str, thought: bool) -> None:
    received, kept = await talk.ask(*answer(talk.api, text, thought=thought))
    (error,) = [event for event in received if event["type"] == "error"]
    assert (error["message"], error["allow_retry"]) == (ModelSilent.sentence, True)
    assert [item.type for item in kept if item.type != "workflow"] == ["user_message"]
    assert "assistant_message" not in str([event for event in received if event["type"].startswith("thread.item")])
    (turn,) = await stored(talk.chat.store, "SELECT state, error_code FROM chat_turns")
    assert (turn["state"], turn["error_code"]) == ("failed", "model_silent")


async def test_an_answer_of_no_items_is_silence(talk: Talk) -> None:
    ended = RESPONSES["text"][-1] | {"response": RESPONSES["text"][-1]["response"] | {"output": []}}
    events = [ended] if talk.api == "responses" else CHUNKS["text"][-2:]
    received, _ = await talk.ask(*events)
    assert [event["message"] for event in received if event["type"] == "error"] == [ModelSilent.sentence]


@pytest.mark.parametrize("text", [" a", "\n\nb", "0", "\u200b.", "  c  "], ids=repr)
async def test_blanks_before_a_word_are_a_part_of_it(talk: Talk, text: str) -> None:
    received, kept = await talk.ask(*answer(talk.api, text))
    assert [event for event in received if event["type"] == "error"] == []
    assert kept[-1].content[0].text == text
    deltas = [event["update"]["delta"] for event in received if "delta" in event.get("update", {})]
    assert "".join(deltas) == text


async def test_a_refusal_is_an_answer(talk: Talk) -> None:
    received, _ = await talk.ask(*(RESPONSES if talk.api == "responses" else CHUNKS)["refusal"])
    assert [event for event in received if event["type"] == "error"] == []


async def test_a_refusal_without_a_word_is_named(talk: Talk) -> None:
    events = json.loads(json.dumps((RESPONSES if talk.api == "responses" else CHUNKS)["refusal"]).replace(REFUSED, " "))
    for event in events:
        if event["type" if "type" in event else "id"] == "response.refusal.delta":
            event["delta"] = " "
    received, kept = await talk.ask(*events)
    assert [event["message"] for event in received if event["type"] == "error"] == [RefusedWithoutWords.sentence]
    assert [item.type for item in kept] == ["user_message"]


async def test_a_message_that_is_finished_without_its_text_keeps_what_was_streamed(talk: Talk) -> None:
    """Also where the deltas do not say which message they are of."""
    if talk.api == "chat_completions":
        return
    events = copy.deepcopy(RESPONSES["text"])
    for event in events:
        event.pop("item_id", None)
        if event["type"] in {"response.output_item.done", "response.output_text.done"}:
            event.get("item", {}).pop("content", None)
            event.pop("text", None)
    received, kept = await talk.ask(*events)
    assert [event for event in received if event["type"] == "error"] == []
    assert kept[-1].content[0].text == "Hello, world"


async def test_an_effect_in_the_browser_is_an_answer() -> None:
    async def run() -> AsyncIterator[Any]:
        yield ClientEffectEvent(name="open", data={})

    assert [event.type async for event in without_empty_messages(run(), TurnHooks())] == ["client_effect"]
