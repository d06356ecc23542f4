"""A team's subclass of AgentContext is the context of a run; no client tool of several called at once is lost."""

from typing import Any

import pytest
from chatkit.agents import AgentContext, ClientToolCall
from chatkit.types import ClientToolCallItem, ThreadItemDoneEvent
from pydantic import ConfigDict, PrivateAttr

from chatkit_postgres import DatabaseStore, RequestContext
from chatkit_postgres.assistant.tools.client_tools import WAITING, with_all_calls
from tests.support.items import NAIVE, thread


def alice() -> RequestContext:
    return RequestContext(user_id="alice")


class Till:
    pass


class ShopContext(AgentContext[RequestContext]):
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="allow")
    till: Till
    shop: str = "main"
    _seen: list[str] = PrivateAttr(default_factory=list)


def shop_context(store: DatabaseStore) -> ShopContext:
    made = ShopContext(thread=thread("t"), store=store, request_context=alice(), till=Till(), shop="north", more=1)
    made._seen.append("before")
    return made


async def test_it_is_the_same_context_to_its_tools(store: DatabaseStore) -> None:
    made = shop_context(store)
    running = with_all_calls(made)
    assert isinstance(running, ShopContext)
    assert type(running).__name__ == "ShopContext"
    assert (running.till, running.shop, running._seen) == (made.till, "north", ["before"])
    assert running.request_context is made.request_context
    assert running.thread is made.thread
    assert running.model_extra == {"more": 1}


@pytest.mark.parametrize("kind", ["own", "plain"])
async def test_of_two_client_tools_the_first_is_asked_for_and_the_other_waits(store: DatabaseStore, kind: str) -> None:
    plain = AgentContext[Any](thread=thread("t"), store=store, request_context=alice())
    running = with_all_calls(shop_context(store) if kind == "own" else plain)
    await store.save_thread(running.thread, running.request_context)
    for name in ("first", "second"):
        running.client_tool_call = ClientToolCall(name=name, arguments={})
    item = ClientToolCallItem(
        id="c", thread_id="t", created_at=NAIVE, call_id="c", name="second", arguments={}, status="pending"
    )
    event = await running.first_call(ThreadItemDoneEvent(item=item))
    assert isinstance(event, ThreadItemDoneEvent)
    assert isinstance(event.item, ClientToolCallItem)
    assert event.item.name == "first"
    assert [call["name"] for call in running.thread.metadata[WAITING]] == ["second"]
