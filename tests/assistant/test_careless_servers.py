"""A whole turn on streams that lack, misspell or add something: it never ends in an error of ours."""

from typing import get_args

import httpx2
import pytest
from agents import Agent

from chatkit_postgres.assistant import AgentAssistant, Choices
from chatkit_postgres.assistant.model_servers.openai_client import StreamingOpenAI
from chatkit_postgres.assistant.models import ConfiguredModels, ModelApi, ModelOptions
from chatkit_postgres.store import DatabaseStore
from tests.conftest import Some
from tests.support.chat import Chat, create, stored
from tests.support.streams import STREAMS, Served, frames, variants

SHARE = 9
"""Every ninth variant: each field in at least one change."""


@pytest.mark.parametrize("part", range(4))
async def test_no_stream_is_an_error_of_ours(store: DatabaseStore, some: Some, part: int) -> None:
    network = Served()
    own = httpx2.AsyncClient(transport=network)
    chats = {}
    async with StreamingOpenAI(api_key="none", base_url="http://m.invalid", http_client=own, max_retries=0) as client:
        for api in get_args(ModelApi):
            assistant = AgentAssistant(Agent(name="a"))
            assistant.prepare(ConfiguredModels(ModelOptions(model="m", api=api), client), Choices())
            chats[api] = Chat(store, assistant)
        for variant in some(list(variants())[part * SHARE :: SHARE * 4]):
            network.body = [frames(variant.events)]
            events = await chats[variant.api].events(create(variant.name))
            assert events[0]["type"] == "thread.created", variant.name
    failed = await stored(
        store,
        "SELECT m.content FROM chat_turns t JOIN chat_messages m USING (user_id, session_id)"
        " WHERE t.error_code = 'internal_error' AND m.item_type = 'user_message'",
    )
    assert failed == []


@pytest.mark.parametrize(("api", "name"), [pair for pair in STREAMS if "text" in pair[1]])
async def test_a_whole_answer_is_kept(store: DatabaseStore, api: ModelApi, name: str) -> None:
    own = httpx2.AsyncClient(transport=Served(frames(STREAMS[api, name])))
    async with StreamingOpenAI(api_key="none", base_url="http://m.invalid", http_client=own, max_retries=0) as client:
        assistant = AgentAssistant(Agent(name="a"))
        assistant.prepare(ConfiguredModels(ModelOptions(model="m", api=api), client), Choices())
        await Chat(store, assistant).events(create("Hello"))
    kept = await stored(store, "SELECT content FROM chat_messages WHERE item_type = 'assistant_message'")
    assert kept[0]["content"].startswith("Hello")
