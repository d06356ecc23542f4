"""What widgets send: only what the assistant knows and the stored widget declares, and what it changes is saved."""

import asyncio
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
    ThreadItemRemovedEvent,
    ThreadItemReplacedEvent,
    ThreadItemUpdatedEvent,
    ThreadsCustomActionReq,
    ThreadsSyncCustomActionReq,
    ThreadStreamEvent,
    WidgetComponentUpdated,
    WidgetItem,
)
from chatkit.widgets import DynamicWidgetComponent, DynamicWidgetRoot
from pydantic import BaseModel

from chatkit_postgres.assistant import Assistant, action
from chatkit_postgres.assistant.actions import ActionResult
from chatkit_postgres.chat.widget_tree import declares
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import ChatError, Conflict, InternalError, NotFound, ThreadLocked, Unprocessable
from chatkit_postgres.store import DatabaseStore
from tests.support.chat import Chat, message, stored
from tests.support.items import NAIVE, thread, user_message
from tests.support.sql import sql_connection

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
    def __init__(self) -> None:
        self.is_acting, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def respond(self, history: Sequence[ThreadItem], context: Context) -> AsyncGenerator[ThreadStreamEvent, None]:
        yield ThreadItemDoneEvent(item=message("m", "unused"))

    @action("pay", Amount)
    async def pay(self, payload: Amount, _sender: WidgetItem | None, _context: Context) -> ActionResult:
        return widget_of({"type": "Text", "value": f"Paid {payload.amount}"})

    @action("announce", free=True)
    async def announce(self, _payload: object, _sender: WidgetItem | None, context: Context) -> ActionResult:
        await context.stream(NoticeEvent(level="info", message="announced"))
        return None

    @action("several", free=True)
    async def several(
        self, _payload: object, _sender: WidgetItem | None, context: Context
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        """Each is stored before the next is made."""
        for number in range(3):
            yield ThreadItemDoneEvent(item=message(f"m{number}", f"text {number}"))
            page = await context.store.load_thread_items("t", None, 10, "desc", alice())
            assert f"text {number}" in page.data[0].model_dump_json()

    @action("go on", free=True)
    async def go_on(self, *_: object) -> AsyncGenerator[ThreadStreamEvent, None]:
        badge = DynamicWidgetComponent.model_validate({"type": "Badge", "id": "state", "label": "changed"})
        yield ThreadItemUpdatedEvent(item_id="w", update=WidgetComponentUpdated(component_id="state", component=badge))

    @action("change its mind", free=True)
    async def change_its_mind(self, *called: Any) -> AsyncGenerator[ThreadStreamEvent, None]:
        """Goes on with what it has replaced, and with what it has taken back."""
        async for event in self.go_on(*called):
            yield event
        widget = await called[2].store.load_item("t", "w", alice())
        other = widget_of({"type": "Text", "value": "another"}, {"type": "Badge", "id": "state", "label": "fresh"})
        yield ThreadItemReplacedEvent(item=widget.model_copy(update={"widget": other}))
        async for event in self.go_on(*called):
            yield event
        yield ThreadItemRemovedEvent(item_id="w")
        async for event in self.go_on(*called):
            yield event

    @action("slowly")
    async def slowly(self, _payload: object, _sender: WidgetItem | None, _context: Context) -> ActionResult:
        self.is_acting.set()
        await self.may_go_on.wait()
        return widget_of({"type": "Text", "value": "late"})

    @action("explain", Amount)
    async def explain(
        self, payload: Amount, sender: WidgetItem | None, _context: Context
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        assert sender is not None
        yield ThreadItemReplacedEvent(item=sender.model_copy(update={"widget": widget_of()}))
        yield ThreadItemDoneEvent(item=message("m", f"It is {payload.amount}."))

    @action("help", free=True)
    async def help(self, _payload: object, sender: WidgetItem | None, _context: Context) -> ActionResult:
        assert sender is None
        return message("m", "Helped")

    @action("nothing", free=True)
    async def nothing(self, *_: object) -> ActionResult:
        return None

    @action("break", free=True)
    async def breaks(self, *_: object) -> ActionResult:
        raise RuntimeError("the secret")

    @action("refuse", free=True)
    async def refuses(self, *_: object) -> ActionResult:
        raise CustomStreamError("Sold out.", allow_retry=False)


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
async def chat(store: DatabaseStore, shop: Shop) -> Chat:
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
                {"type": "Badge", "id": "state", "label": "as it was"},
                pressing("slowly"),
                pressing("go on"),
                pressing("local", handler="client"),
                confirm={"label": "OK", "action": {"type": "unknown"}},
            ),
        ),
        alice(),
    )
    return Chat(store, shop)


def params(action_type: str, payload: Any = None, item_id: str | None = "w") -> ThreadCustomActionParams:
    return ThreadCustomActionParams(thread_id="t", item_id=item_id, action=Action(type=action_type, payload=payload))


async def streamed(chat: Chat, *of: Any, **more: Any) -> list[dict[str, Any]]:
    return await chat.events(ThreadsCustomActionReq(params=params(*of, **more)))


async def at_once(chat: Chat, *of: Any, **more: Any) -> bytes:
    context = RequestContext(user_id="alice")
    return await chat.server.answer(ThreadsSyncCustomActionReq(params=params(*of, **more)), context)


async def test_a_handler_that_returns_a_widget_changes_it_and_what_is_told_is_stored(chat: Chat) -> None:
    events = await streamed(chat, "pay", {"amount": 3})
    assert [event["type"] for event in events] == ["stream_options", "thread.item.replaced"]
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


async def test_what_a_handler_streams_is_told_and_only_where_somebody_listens(chat: Chat) -> None:
    events = await streamed(chat, "announce", item_id=None)
    assert [event["type"] for event in events] == ["stream_options", "notice"]
    with pytest.raises(InternalError):
        await at_once(chat, "announce", item_id=None)


async def test_a_handler_goes_on_when_what_it_said_is_stored(chat: Chat) -> None:
    events = await streamed(chat, "several", item_id=None)
    assert [event["type"] for event in events] == ["stream_options", *["thread.item.done"] * 3]


async def test_a_change_to_a_stored_widget_is_stored(chat: Chat) -> None:
    context = RequestContext(user_id="alice")
    await chat.store.load_item("t", "w", context)
    events = await streamed(chat, "go on")
    assert events[-1]["type"] == "thread.item.updated"
    assert "changed" in str(await chat.store.load_item("t", "w", alice()))


async def test_a_change_goes_on_from_what_is_stored_and_brings_nothing_back(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []
    save_item = DatabaseStore.save_item

    async def watching(store: DatabaseStore, thread_id: str, item: ThreadItem, context: Any) -> None:
        saved.append(item.model_dump_json())
        await save_item(store, thread_id, item, context)

    monkeypatch.setattr(DatabaseStore, "save_item", watching)
    events = await streamed(chat, "change its mind")
    assert "error" not in [event["type"] for event in events]
    # Changed, replaced, and the replacement changed; not the first one again.
    assert ["another" in item for item in saved] == [False, True, True]
    with pytest.raises(NotFound):
        await chat.store.load_item("t", "w", alice())


@pytest.mark.parametrize("meanwhile", ["locked", "gone", "being written"])
async def test_an_action_at_once_brings_nothing_back(chat: Chat, shop: Shop, meanwhile: str) -> None:
    acting = asyncio.create_task(at_once(chat, "slowly"))
    await shop.is_acting.wait()
    if meanwhile == "locked":
        context = RequestContext(user_id="alice")
        thread_now = await chat.store.load_thread("t", context)
        thread_now.status = LockedStatus()
        await chat.store.save_thread(thread_now, context)
    elif meanwhile == "gone":
        await chat.store.delete_thread_item("t", "w", alice())
    else:
        async with sql_connection(chat.store.database) as connection:
            await connection.exec_driver_sql("UPDATE chat_messages SET is_partial = true WHERE item_id = 'w'")
    before = await stored(chat.store, "SELECT item_id, item::text FROM chat_messages ORDER BY position")
    shop.may_go_on.set()
    with pytest.raises({"locked": ThreadLocked, "gone": NotFound, "being written": Conflict}[meanwhile]):
        await acting
    assert await stored(chat.store, "SELECT item_id, item::text FROM chat_messages ORDER BY position") == before


def test_what_is_inside_of_a_payload_is_not_declared() -> None:
    hiding = pressing("shown", payload={"onClickAction": {"type": "hidden"}, "action": {"type": "hidden"}})
    assert declares(widget_of(hiding), "shown")
    assert not declares(widget_of(hiding), "hidden")


def test_a_subclass_may_do_it_in_another_way() -> None:
    class Other(Shop):
        async def pay(self, payload: Amount, _sender: WidgetItem | None, _context: Context) -> ActionResult:
            return None

    other = Other()
    registered = other.find_action("pay")
    assert registered is not None
    assert registered.handle == other.pay


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
