"""What widgets send: only what the assistant knows and the stored widget declares, and what it changes is saved."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from chatkit.actions import Action
from chatkit.agents import AgentContext
from chatkit.errors import CustomStreamError
from chatkit.types import (
    LockedStatus,
    NoticeEvent,
    ThreadCustomActionParams,
    ThreadItem,
    ThreadItemDoneEvent,
    ThreadItemReplacedEvent,
    ThreadsCustomActionReq,
    ThreadsSyncCustomActionReq,
    ThreadStreamEvent,
    WidgetItem,
)
from chatkit.widgets import DynamicWidgetRoot
from pydantic import BaseModel

from app.assistant import Assistant, action
from app.assistant.actions import Outcome
from app.context import RequestContext
from app.errors import ChatError, InternalError, NotFound, ThreadLocked, Unprocessable
from app.store import DatabaseStore
from tests.support.chat import Chat, message, stored
from tests.support.items import NAIVE, thread, user_message

Context = AgentContext[RequestContext]


class Amount(BaseModel):
    amount: int


def alice() -> RequestContext:
    return RequestContext(user_id="alice")


def widget_of(*children: dict[str, Any], **more: Any) -> DynamicWidgetRoot:
    return DynamicWidgetRoot.model_validate({"type": "Card", "children": [*children], **more})


def pressing(action_type: str, **more: Any) -> dict[str, Any]:
    return {"type": "Button", "label": "x", "onClickAction": {"type": action_type, **more}}


class Shop(Assistant):
    async def respond(self, history: Sequence[ThreadItem], context: Context) -> AsyncGenerator[ThreadStreamEvent, None]:
        yield ThreadItemDoneEvent(item=message("m", "unused"))

    @action("pay", Amount)
    async def pay(self, payload: Amount, _sender: WidgetItem | None, context: Context) -> Outcome:
        await context.stream(NoticeEvent(level="info", message="paying"))
        return widget_of({"type": "Text", "value": f"Paid {payload.amount}"})

    @action("explain", Amount)
    async def explain(
        self, payload: Amount, sender: WidgetItem | None, _context: Context
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        assert sender is not None
        yield ThreadItemReplacedEvent(item=sender.model_copy(update={"widget": widget_of()}))
        yield ThreadItemDoneEvent(item=message("m", f"It is {payload.amount}."))

    @action("help", free=True)
    async def help(self, _payload: object, sender: WidgetItem | None, _context: Context) -> Outcome:
        assert sender is None
        return message("m", "Helped")

    @action("nothing", free=True)
    async def nothing(self, *_: object) -> Outcome:
        return None

    @action("break", free=True)
    async def breaks(self, *_: object) -> Outcome:
        raise RuntimeError("the secret")

    @action("refuse", free=True)
    async def refuses(self, *_: object) -> Outcome:
        raise CustomStreamError("Sold out.", allow_retry=False)


@pytest.fixture
async def chat(store: DatabaseStore) -> Chat:
    await store.save_thread(thread("t"), alice())
    await store.add_thread_item("t", user_message("t", "u"), alice())
    await store.add_thread_item(
        "t",
        WidgetItem(
            id="w",
            thread_id="t",
            created_at=NAIVE,
            widget=widget_of(
                {"type": "Col", "children": [pressing("pay")]},
                {"type": "Form", "onSubmitAction": {"type": "explain"}, "children": []},
                pressing("local", handler="client"),
                confirm={"label": "OK", "action": {"type": "unknown"}},
            ),
        ),
        alice(),
    )
    return Chat(store, Shop())


def params(action_type: str, payload: Any = None, item_id: str | None = "w") -> ThreadCustomActionParams:
    return ThreadCustomActionParams(thread_id="t", item_id=item_id, action=Action(type=action_type, payload=payload))


async def streamed(chat: Chat, *of: Any, **more: Any) -> list[dict[str, Any]]:
    return await chat.events(ThreadsCustomActionReq(params=params(*of, **more)))


async def at_once(chat: Chat, *of: Any, **more: Any) -> bytes:
    context = RequestContext(user_id="alice")
    return await chat.server.answer(ThreadsSyncCustomActionReq(params=params(*of, **more)), context)


async def test_a_handler_that_returns_a_widget_changes_it_and_what_is_told_is_stored(chat: Chat) -> None:
    events = await streamed(chat, "pay", {"amount": 3})
    assert [event["type"] for event in events] == ["stream_options", "notice", "thread.item.replaced"]
    kept = await chat.store.load_item("t", "w", alice())
    assert isinstance(kept, WidgetItem)
    assert events[-1]["item"]["widget"] == kept.widget.model_dump(exclude_none=True)
    assert "Paid 3" in str(kept.widget)
    assert await stored(chat.store, "SELECT operation, state FROM chat_turns") == [
        {"operation": "threads.custom_action", "state": "completed"}
    ]


async def test_the_same_at_once(chat: Chat) -> None:
    assert b"Paid 7" in await at_once(chat, "pay", {"amount": 7})
    assert "Paid 7" in str(await chat.store.load_item("t", "w", alice()))
    assert await stored(chat.store, "SELECT * FROM chat_turns") == []


async def test_a_handler_may_stream_an_answer(chat: Chat) -> None:
    events = await streamed(chat, "explain", {"amount": 5})
    assert [event["type"] for event in events] == ["stream_options", "thread.item.replaced", "thread.item.done"]
    page = await chat.store.load_thread_items("t", None, 10, "asc", alice())
    assert [item.type for item in page.data] == ["user_message", "widget", "assistant_message"]
    assert page.data[-1].id == events[-1]["item"]["id"] != "m"


async def test_an_answer_that_streams_cannot_be_had_at_once(chat: Chat) -> None:
    with pytest.raises(Unprocessable, match="answers with a stream"):
        await at_once(chat, "explain", {"amount": 5})


@pytest.mark.parametrize("send", [streamed, at_once])
@pytest.mark.parametrize(
    ("sent", "item", "says"),
    [
        (("unknown",), "w", "params.action.type"),
        (("never heard of",), "w", "params.action.type"),
        (("local",), "w", "params.action.type"),
        (("pay", {"amount": 1}), None, "params.action.type"),
        (("pay", {"amount": "many"}), "w", "params.action.payload.amount"),
        (("pay",), "w", "params.action.payload"),
        (("help",), "u", "params.item_id: this item is not a widget"),
    ],
)
async def test_what_is_not_declared_or_not_valid_is_refused_and_changes_nothing(
    chat: Chat, send: Any, sent: tuple[Any, ...], item: str | None, says: str
) -> None:
    before = await stored(chat.store, "SELECT * FROM chat_messages ORDER BY position")
    with pytest.raises(Unprocessable) as refused:
        await send(chat, *sent, item_id=item)
    assert says in str(refused.value)
    assert await stored(chat.store, "SELECT * FROM chat_messages ORDER BY position") == before
    assert await stored(chat.store, "SELECT * FROM chat_turns") == []


async def test_a_free_action_needs_no_widget(chat: Chat) -> None:
    events = await streamed(chat, "help", item_id=None)
    assert events[-1]["item"]["content"][0]["text"] == "Helped"
    assert await at_once(chat, "nothing", item_id=None) == b"{}"
    assert [event["type"] for event in await streamed(chat, "nothing", item_id=None)] == ["stream_options"]


async def test_a_handler_that_fails_says_nothing_of_why(chat: Chat) -> None:
    events = await streamed(chat, "break", item_id=None)
    assert (events[-1]["type"], events[-1]["allow_retry"]) == ("error", True)
    assert "secret" not in str(events)
    with pytest.raises(InternalError):
        await at_once(chat, "break", item_id=None)


async def test_a_handler_that_refuses_says_why(chat: Chat) -> None:
    events = await streamed(chat, "refuse", item_id=None)
    assert (events[-1]["message"], events[-1]["allow_retry"]) == ("Sold out.", False)
    with pytest.raises(ChatError, match="Sold out"):
        await at_once(chat, "refuse", item_id=None)


@pytest.mark.parametrize("send", [streamed, at_once])
async def test_a_locked_thread_takes_no_action(chat: Chat, send: Any) -> None:
    context = RequestContext(user_id="alice")
    locked = await chat.store.load_thread("t", context)
    locked.status = LockedStatus()
    await chat.store.save_thread(locked, context)
    with pytest.raises(ThreadLocked):
        await send(chat, "pay", {"amount": 1})


@pytest.mark.parametrize("send", [streamed, at_once])
async def test_a_widget_that_is_not_there_is_not_found(chat: Chat, send: Any) -> None:
    with pytest.raises(NotFound):
        await send(chat, "pay", {"amount": 1}, item_id="elsewhere")
