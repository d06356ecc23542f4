"""An answer keeps its words whatever is cited in it, and the citations that can be shown, also after a reload."""

import copy
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from agents import Agent

from chatkit_postgres.assistant import AgentAssistant, Choices
from chatkit_postgres.assistant.model_servers.openai_client import StreamingOpenAI
from chatkit_postgres.assistant.models import ConfiguredModels, ModelOptions
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore
from tests.support.chat import Chat, create
from tests.support.processes import texts, thread_id_of
from tests.support.streams import RESPONSES, Served, frames

URL = {"type": "url_citation", "url": "https://example.com/a", "title": "A page", "start_index": 0, "end_index": 5}
FILE = {"type": "file_citation", "file_id": "file_1", "filename": "report.pdf", "index": 3}
CONTAINER = {
    "type": "container_file_citation",
    "container_id": "c",
    "file_id": "file_2",
    "filename": "table.csv",
    "start_index": 0,
    "end_index": 4,
}
NESTED = {"type": "url_citation", "url_citation": {"url": "https://example.com/b", "title": "B", "end_index": 5}}

SHOWN: dict[str, tuple[Any, str]] = {
    "a page": (URL, "https://example.com/a"),
    "a file": (FILE, "report.pdf"),
    "a file of a container": (CONTAINER, "table.csv"),
    "a page as chat completions cite it": (NESTED, "https://example.com/b"),
    "a page without a title": ({"type": "url_citation", "url": "https://example.com/c"}, "https://example.com/c"),
    "a page whose title is null": (URL | {"title": None}, "https://example.com/a"),
    "a page with places that are no numbers": (URL | {"start_index": None, "end_index": "5"}, "https://example.com/a"),
    "a file without a place": ({"type": "file_citation", "filename": "x.txt"}, "x.txt"),
    "a page with more to it": (URL | {"score": 0.9, "snippet": {"text": "..."}}, "https://example.com/a"),
}
DROPPED: dict[str, Any] = {
    "null": None,
    "a kind of next year": {"type": "map_citation", "place": "Rome"},
    "no kind": {"url": "https://example.com"},
    "a path": {"type": "file_path", "file_id": "file_3", "index": 1},
    "a page without its address": {"type": "url_citation", "title": "?"},
    "a file without a name": {"type": "file_citation", "file_id": "file_4"},
    "a text": "https://example.com",
    "a kind that is no text": {"type": {"a": 1}},
}


def stream(annotations: list[Any], *, events: bool, done: bool) -> bytes:
    """An answer with annotations: in events of their own, in the finished message, or in both."""
    told: list[dict[str, Any]] = []
    for event in copy.deepcopy(RESPONSES["text"]):
        if event["type"] == "response.output_text.done" and events:
            at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
            kind = {"type": "response.output_text.annotation.added"}
            told += [kind | at | {"annotation_index": n, "annotation": a} for n, a in enumerate(annotations)]
        if done and event["type"] == "response.output_item.done":
            event["item"]["content"][0]["annotations"] = annotations
        if done and event["type"] == "response.completed":
            event["response"]["output"][0]["content"][0]["annotations"] = annotations
        told.append(event)
    return frames(told)


@pytest.fixture
async def network() -> Served:
    return Served()


@pytest.fixture
async def chat(store: DatabaseStore, network: Served) -> AsyncIterator[Chat]:
    own = httpx2.AsyncClient(transport=network)
    async with StreamingOpenAI(api_key="none", base_url="http://m.invalid", http_client=own, max_retries=0) as client:
        assistant = AgentAssistant(Agent(name="a"))
        assistant.prepare(ConfiguredModels(ModelOptions(model="m"), client), Choices())
        yield Chat(store, assistant)


async def answered(chat: Chat, network: Served, body: bytes) -> tuple[list[dict[str, Any]], Any]:
    """The events, and the answer as it is loaded later."""
    network.body = [body]
    events = await chat.events(create("Hello"))
    page = await chat.store.load_thread_items(thread_id_of(events), None, 10, "desc", RequestContext(user_id="alice"))
    return events, page.data[0]


def sources(item: Any) -> list[str]:
    found = [annotation.source for part in item.content for annotation in part.annotations]
    return [getattr(source, "url", None) or source.filename for source in found]


PLACES = [(True, True), (True, False), (False, True)]


@pytest.mark.parametrize(("events", "done"), PLACES, ids=["both", "events", "done"])
@pytest.mark.parametrize("name", SHOWN)
async def test_a_citation_is_shown_and_kept(chat: Chat, network: Served, name: str, events: bool, done: bool) -> None:
    given, source = SHOWN[name]
    told, item = await answered(chat, network, stream([given], events=events, done=done))
    assert [event for event in told if event["type"] == "error"] == []
    assert texts([item.model_dump()]) == ["Hello, world"]
    added = [event for event in told if event.get("update", {}).get("type", "").endswith("annotation_added")]
    assert len(added) == events
    assert sources(item) == [source]


@pytest.mark.parametrize(("events", "done"), PLACES, ids=["both", "events", "done"])
@pytest.mark.parametrize("name", DROPPED)
async def test_what_cannot_be_shown_costs_itself(
    chat: Chat, network: Served, name: str, events: bool, done: bool
) -> None:
    told, item = await answered(chat, network, stream([URL, DROPPED[name], FILE], events=events, done=done))
    assert [event for event in told if event["type"] == "error"] == []
    assert texts([item.model_dump()]) == ["Hello, world"]
    assert sources(item) == ["https://example.com/a", "report.pdf"]
