"""What any ChatKit store for many users must do. Subclass it and give it a ``store`` to hold another one to it.

A context is any object with a ``user_id``; the classes at the end of test_database_store.py add what only this
store promises.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from chatkit.store import NotFoundError, Store
from chatkit.types import (
    ActiveStatus,
    ClientToolCallItem,
    ClosedStatus,
    FileAttachment,
    ImageAttachment,
    LockedStatus,
    Page,
    StructuredInputFreeform,
    StructuredInputItem,
    Thread,
    ThreadItemBase,
    Workflow,
    WorkflowItem,
)
from pydantic import AnyUrl

from tests.support.items import NAIVE, assistant_message, examples_of, item_types, thread, user_message

ALICE = SimpleNamespace(user_id="alice")
BOB = SimpleNamespace(user_id="bob")
FAKE = "__fake_id__"
"""Which chat completions give to every message and call, through the Agents SDK."""
PREVIEW = AnyUrl("https://example.com/i.png")
STRANGE_LIMITS = [None, 0, -5, 1, 10**12]


class StoreContract(ABC):
    @pytest.fixture
    @abstractmethod
    def store(self) -> Store[Any]: ...

    # Threads

    async def test_a_thread_is_loaded_as_it_was_saved(self, store: Store[Any]) -> None:
        saved = thread("t", title="A title", allowed_image_domains=["example.com"], metadata={"a": [1, {"b": None}]})
        await store.save_thread(saved, ALICE)
        loaded = await store.load_thread("t", ALICE)
        assert loaded.model_dump(exclude={"created_at"}) == saved.model_dump(exclude={"created_at"})

    @pytest.mark.parametrize("status", [ActiveStatus(), LockedStatus(reason="wait"), ClosedStatus()])
    async def test_a_status_is_kept(self, store: Store[Any], status: Any) -> None:
        await store.save_thread(thread("t", status=status), ALICE)
        assert (await store.load_thread("t", ALICE)).status == status

    async def test_a_saved_thread_can_be_saved_again_with_changes(self, store: Store[Any]) -> None:
        await store.save_thread(thread("t", title="before"), ALICE)
        await store.save_thread(thread("t", title=None, metadata={"new": True}), ALICE)
        loaded = await store.load_thread("t", ALICE)
        assert (loaded.title, loaded.metadata) == (None, {"new": True})

    async def test_items_given_with_a_thread_are_not_stored_with_it(self, store: Store[Any]) -> None:
        with_items = Thread(
            id="t", created_at=NAIVE, items=Page(data=[user_message("t", "ghost")]), metadata={"kept": 1}
        )
        await store.save_thread(with_items, ALICE)
        loaded = await store.load_thread("t", ALICE)
        assert type(loaded).__name__ == "ThreadMetadata"
        assert loaded.metadata == {"kept": 1}
        assert (await store.load_thread_items("t", None, 10, "asc", ALICE)).data == []

    async def test_loading_twice_gives_two_objects(self, store: Store[Any]) -> None:
        await store.save_thread(thread("t", metadata={"list": []}), ALICE)
        first = await store.load_thread("t", ALICE)
        first.metadata["list"].append("mine alone")
        assert (await store.load_thread("t", ALICE)).metadata == {"list": []}

    async def test_an_absent_thread_is_not_found(self, store: Store[Any]) -> None:
        with pytest.raises(NotFoundError):
            await store.load_thread("nowhere", ALICE)

    async def test_a_deleted_thread_and_its_items_are_gone(self, store: Store[Any]) -> None:
        await self._thread_with_messages(store, "t", 2)
        await store.delete_thread("t", ALICE)
        with pytest.raises(NotFoundError):
            await store.load_thread("t", ALICE)
        with pytest.raises(NotFoundError):
            await store.load_item("t", "m0", ALICE)
        assert (await store.load_threads(10, None, "desc", ALICE)).data == []

    async def test_an_item_cannot_be_added_to_an_absent_thread(self, store: Store[Any]) -> None:
        with pytest.raises(NotFoundError):
            await store.add_thread_item("nowhere", user_message("nowhere", "m"), ALICE)
        with pytest.raises(NotFoundError):
            await store.save_item("nowhere", user_message("nowhere", "m"), ALICE)

    # Lists of threads

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_threads_are_paged_in_order_of_creation(self, store: Store[Any], order: str) -> None:
        # All with the same created_at of the caller's: the order must come from elsewhere.
        names = [f"t{number}" for number in range(7)]
        for name in names:
            await store.save_thread(thread(name), ALICE)
        await store.save_thread(thread("not-hers"), BOB)
        seen: list[str] = []
        after: str | None = None
        for has_more in (True, True, False):
            page = await store.load_threads(3, after, order, ALICE)
            assert page.has_more is has_more
            assert (page.after is not None) is has_more
            seen += [found.id for found in page.data]
            after = page.after
        assert seen == (names if order == "asc" else names[::-1])

    async def test_a_thread_cursor_of_another_user_is_not_found(self, store: Store[Any]) -> None:
        await store.save_thread(thread("hers"), ALICE)
        await store.save_thread(thread("his"), BOB)
        for cursor in ("his", "nobody's"):
            with pytest.raises(NotFoundError):
                await store.load_threads(10, cursor, "desc", ALICE)

    @pytest.mark.parametrize("limit", STRANGE_LIMITS)
    async def test_any_limit_gives_a_page_of_threads(self, store: Store[Any], limit: Any) -> None:
        for number in range(3):
            await store.save_thread(thread(f"t{number}"), ALICE)
        page = await store.load_threads(limit, None, "asc", ALICE)
        assert 1 <= len(page.data) <= 3
        assert page.has_more is (len(page.data) < 3)

    # Items

    @pytest.mark.parametrize("item_type", item_types(), ids=lambda kind: str(kind.__name__))
    async def test_every_item_is_loaded_exactly_as_it_was_saved(
        self, store: Store[Any], item_type: type[ThreadItemBase]
    ) -> None:
        await store.save_thread(thread("t"), ALICE)
        for number, item in enumerate(examples_of(item_type, "t")):
            item.id = f"item_{number}"
            await store.add_thread_item("t", item, ALICE)
            loaded = await store.load_item("t", item.id, ALICE)
            assert loaded == item
            assert loaded.created_at.tzinfo is None

    def test_there_are_eleven_types_of_items(self) -> None:
        assert len(item_types()) == 11

    async def test_an_item_that_names_another_thread_is_kept_verbatim(self, store: Store[Any]) -> None:
        await store.save_thread(thread("t"), ALICE)
        await store.add_thread_item("t", user_message("elsewhere", "m"), ALICE)
        assert await store.load_item("t", "m", ALICE) == user_message("elsewhere", "m")

    async def test_items_keep_the_order_in_which_they_were_added(self, store: Store[Any]) -> None:
        ids = ["z", "a", "m", "0", "b"]  # equal timestamps, and ids that do not sort this way
        await store.save_thread(thread("t"), ALICE)
        for item_id in ids:
            await store.add_thread_item("t", user_message("t", item_id), ALICE)
        assert await self._ids(store, "t", "asc") == ids
        assert await self._ids(store, "t", "desc") == ids[::-1]

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_items_are_paged_without_gap_or_repetition(self, store: Store[Any], order: str) -> None:
        names = await self._thread_with_messages(store, "t", 7)
        seen: list[str] = []
        after: str | None = None
        for has_more in (True, True, False):
            page = await store.load_thread_items("t", after, 3, order, ALICE)
            assert page.has_more is has_more
            assert (page.after is not None) is has_more
            seen += [item.id for item in page.data]
            after = page.after
        assert seen == (names if order == "asc" else names[::-1])

    async def test_an_item_added_while_somebody_pages_does_not_disturb(self, store: Store[Any]) -> None:
        await self._thread_with_messages(store, "t", 4)
        first = await store.load_thread_items("t", None, 2, "desc", ALICE)
        await store.add_thread_item("t", user_message("t", "new"), ALICE)
        second = await store.load_thread_items("t", first.after, 2, "desc", ALICE)
        assert [item.id for item in first.data + second.data] == ["m3", "m2", "m1", "m0"]

    async def test_a_cursor_of_another_thread_or_user_is_not_found(self, store: Store[Any]) -> None:
        await self._thread_with_messages(store, "t", 2)
        await self._thread_with_messages(store, "other", 1, prefix="o")
        await self._thread_with_messages(store, "t", 1, context=BOB, prefix="b")
        for cursor in ("o0", "b0", "nowhere"):
            with pytest.raises(NotFoundError):
                await store.load_thread_items("t", cursor, 10, "asc", ALICE)

    @pytest.mark.parametrize("limit", STRANGE_LIMITS)
    async def test_any_limit_gives_a_page_of_items(self, store: Store[Any], limit: Any) -> None:
        await self._thread_with_messages(store, "t", 3)
        page = await store.load_thread_items("t", None, limit, "asc", ALICE)
        assert 1 <= len(page.data) <= 3
        assert page.has_more is (len(page.data) < 3)

    async def test_a_page_never_has_more_than_a_hundred_items(self, store: Store[Any]) -> None:
        await self._thread_with_messages(store, "t", 101)
        page = await store.load_thread_items("t", None, 10**12, "asc", ALICE)
        assert len(page.data) == 100
        assert page.has_more

    async def test_items_of_an_absent_thread_are_an_empty_page(self, store: Store[Any]) -> None:
        page = await store.load_thread_items("nowhere", None, 10, "asc", ALICE)
        assert (page.data, page.has_more, page.after) == ([], False, None)

    async def test_an_absent_item_is_not_found(self, store: Store[Any]) -> None:
        await store.save_thread(thread("t"), ALICE)
        with pytest.raises(NotFoundError):
            await store.load_item("t", "nowhere", ALICE)

    async def test_the_same_item_id_lives_in_two_threads_and_with_two_users(self, store: Store[Any]) -> None:
        for context, thread_id in ((ALICE, "t"), (ALICE, "u"), (BOB, "t")):
            await store.save_thread(thread(thread_id), context)
            await store.add_thread_item(
                thread_id, assistant_message(thread_id, "__fake_id__", f"{context.user_id}/{thread_id}"), context
            )
        for context, thread_id in ((ALICE, "t"), (ALICE, "u"), (BOB, "t")):
            found: Any = await store.load_item(thread_id, "__fake_id__", context)
            assert found.content[0].text == f"{context.user_id}/{thread_id}"

    async def test_an_item_is_found_in_its_own_thread_only(self, store: Store[Any]) -> None:
        await self._thread_with_messages(store, "t", 1)
        await store.save_thread(thread("u"), ALICE)
        with pytest.raises(NotFoundError):
            await store.load_item("u", "m0", ALICE)

    async def test_a_deleted_item_is_gone_and_the_rest_stays(self, store: Store[Any]) -> None:
        await self._thread_with_messages(store, "t", 3)
        await store.delete_thread_item("t", "m1", ALICE)
        await store.delete_thread_item("t", "m1", ALICE)
        assert await self._ids(store, "t", "asc") == ["m0", "m2"]

    async def test_nul_in_what_a_model_says_becomes_the_replacement_character(self, store: Store[Any]) -> None:
        await store.save_thread(thread("t", title="a\x00b", metadata={"k\x00": "v\x00"}), ALICE)
        await store.add_thread_item("t", assistant_message("t", "m", "x\x00y \\u0000 \\\\u0000 z"), ALICE)
        found: Any = await store.load_item("t", "m", ALICE)
        assert found.content[0].text == "x\ufffdy \\u0000 \\\\u0000 z"
        loaded = await store.load_thread("t", ALICE)
        assert (loaded.title, loaded.metadata) == ("a\ufffdb", {"k\ufffd": "v\ufffd"})

    # An id that is there already

    @pytest.mark.parametrize("item_type", item_types(), ids=lambda kind: str(kind.__name__))
    async def test_adding_an_item_twice_stores_it_once(self, store: Store[Any], item_type: type[Any]) -> None:
        await store.save_thread(thread("t"), ALICE)
        for number, item in enumerate(examples_of(item_type, "t")):
            item.id = f"item_{number}"
            for _ in range(2):
                await store.add_thread_item("t", item, ALICE)
        ids = await self._ids(store, "t", "asc")
        assert len(ids) == len(set(ids)) == len(examples_of(item_type, "t"))

    async def test_another_item_under_the_same_id_is_kept_under_a_new_one(self, store: Store[Any]) -> None:
        await store.save_thread(thread("t"), ALICE)
        later = NAIVE + timedelta(seconds=1)
        call = ClientToolCallItem(id=FAKE, thread_id="t", created_at=NAIVE, call_id="1", name="n", arguments={})
        given: list[Any] = [
            assistant_message("t", FAKE, "one"),
            assistant_message("t", FAKE, "two"),
            # As often as it is said.
            assistant_message("t", FAKE, "two").model_copy(update={"created_at": later}),
            call,
            call.model_copy(update={"call_id": "2"}),
            WorkflowItem(id=FAKE, thread_id="t", created_at=NAIVE, workflow=Workflow(type="custom", tasks=[])),
        ]
        for item in given:
            await store.add_thread_item("t", item, ALICE)
        kept = (await store.load_thread_items("t", None, 100, "asc", ALICE)).data
        assert [item.model_copy(update={"id": FAKE}) for item in kept] == given
        assert len({item.id for item in kept}) == len(given)
        for item in kept:
            assert await store.load_item("t", item.id, ALICE) == item

    async def test_another_item_does_not_take_the_place_of_one_that_has_its_answer(self, store: Store[Any]) -> None:
        await store.save_thread(thread("t"), ALICE)
        done = ClientToolCallItem(
            id=FAKE, thread_id="t", created_at=NAIVE, call_id="1", name="n", arguments={}, status="completed", output=1
        )
        other = done.model_copy(update={"call_id": "2", "status": "pending", "output": None})
        await store.add_thread_item("t", done, ALICE)
        for write in (store.add_thread_item, store.save_item):
            await write("t", other, ALICE)
            other = other.model_copy(update={"call_id": "3"})
        kept: list[Any] = (await store.load_thread_items("t", None, 100, "asc", ALICE)).data
        assert [item.call_id for item in kept] == ["1", "2", "3"]
        assert kept[0] == done

    async def test_a_context_may_be_a_mapping(self, store: Store[Any]) -> None:
        await store.save_thread(thread("t", title="hers"), {"user_id": "alice", "request": object()})
        assert (await store.load_thread("t", ALICE)).title == "hers"
        with pytest.raises(NotFoundError):
            await store.load_thread("t", {"user_id": "bob"})
        for nobody in ({}, {"user_id": ""}, {"user_id": None}, {"userId": "alice"}):
            with pytest.raises(TypeError):
                await store.load_thread("t", nobody)

    async def test_saving_an_item_replaces_it_where_it_is(self, store: Store[Any]) -> None:
        await self._thread_with_messages(store, "t", 2)
        await store.save_item("t", user_message("t", "m0", "corrected"), ALICE)
        await store.save_item("t", user_message("t", "m2", "new"), ALICE)
        assert await self._ids(store, "t", "asc") == ["m0", "m1", "m2"]
        replaced: Any = await store.load_item("t", "m0", ALICE)
        assert replaced.content[0].text == "corrected"

    async def test_adding_a_workflow_again_continues_it(self, store: Store[Any]) -> None:
        await store.save_thread(thread("t"), ALICE)
        for expanded in (False, True):
            workflow = Workflow(type="custom", tasks=[], expanded=expanded)
            item = WorkflowItem(id="w", thread_id="t", created_at=NAIVE, workflow=workflow)
            await store.add_thread_item("t", item, ALICE)
        continued: Any = await store.load_item("t", "w", ALICE)
        assert continued.workflow.expanded is True

    @pytest.mark.parametrize("again", ["add_thread_item", "save_item"])
    async def test_an_answer_once_given_is_not_undone(self, store: Store[Any], again: str) -> None:
        await store.save_thread(thread("t"), ALICE)
        call = ClientToolCallItem(id="c", thread_id="t", created_at=NAIVE, call_id="1", name="n", arguments={})
        question = StructuredInputItem(
            id="q", thread_id="t", created_at=NAIVE, inputs=[StructuredInputFreeform(id="i", question="?")]
        )
        for pending, settled in (
            (call, call.model_copy(update={"status": "completed", "output": {"done": True}})),
            (question, question.model_copy(update={"status": "answered"})),
            (question.model_copy(update={"id": "s"}), question.model_copy(update={"id": "s", "status": "skipped"})),
        ):
            await store.add_thread_item("t", pending, ALICE)
            await store.save_item("t", settled, ALICE)
            await getattr(store, again)("t", pending, ALICE)
            assert await store.load_item("t", pending.id, ALICE) == settled

    async def test_items_added_at_once_are_all_there_in_one_order(self, store: Store[Any]) -> None:
        await store.save_thread(thread("t"), ALICE)
        names = [f"m{number}" for number in range(20)]
        await asyncio.gather(*(store.add_thread_item("t", user_message("t", name), ALICE) for name in names))
        first = await self._ids(store, "t", "asc")
        assert sorted(first) == sorted(names)
        assert await self._ids(store, "t", "desc") == first[::-1]

    # Attachments

    async def test_attachments_are_loaded_as_they_were_saved(self, store: Store[Any]) -> None:
        for attachment in (
            FileAttachment(id="a", name="n.txt", mime_type="text/plain", metadata={"hidden": 1}),
            ImageAttachment(
                id="b",
                name="i.png",
                mime_type="image/png",
                preview_url=AnyUrl("https://example.com/i.png"),
                thread_id="t",
            ),
        ):
            await store.save_attachment(attachment, ALICE)
            assert await store.load_attachment(attachment.id, ALICE) == attachment
            moved = attachment.model_copy(update={"thread_id": "u"})
            await store.save_attachment(moved, ALICE)
            assert await store.load_attachment(attachment.id, ALICE) == moved

    async def test_a_deleted_attachment_stays_deleted(self, store: Store[Any]) -> None:
        attachment = FileAttachment(id="a", name="n.txt", mime_type="text/plain")
        await store.save_attachment(attachment, ALICE)
        await store.delete_attachment("a", ALICE)
        for attempt in (store.load_attachment("a", ALICE), store.save_attachment(attachment, ALICE)):
            with pytest.raises(NotFoundError):
                await attempt
        with pytest.raises(NotFoundError):
            await store.load_attachment("a", ALICE)

    # Strangers

    @pytest.mark.parametrize(
        "attempt",
        [
            lambda store: store.load_thread("t", BOB),
            lambda store: store.load_item("t", "m0", BOB),
            lambda store: store.add_thread_item("t", user_message("t", "m9"), BOB),
            lambda store: store.save_item("t", user_message("t", "m0", "stolen"), BOB),
            lambda store: store.delete_thread("t", BOB),
            lambda store: store.load_attachment("a", BOB),
        ],
    )
    async def test_a_stranger_finds_nothing_and_changes_nothing(
        self, store: Store[Any], attempt: Callable[[Store[Any]], Awaitable[Any]]
    ) -> None:
        before = await self._everything(store)
        with pytest.raises(NotFoundError):
            await attempt(store)
        assert await self._everything(store, prepare=False) == before

    async def test_deleting_what_is_not_there_is_silent(self, store: Store[Any]) -> None:
        before = await self._everything(store)
        for attachment_id, context in (("a", BOB), ("nowhere", ALICE), ("nowhere", BOB)):
            await store.delete_attachment(attachment_id, context)
        assert await self._everything(store, prepare=False) == before

    async def test_what_a_stranger_saves_under_the_same_ids_is_the_strangers(self, store: Store[Any]) -> None:
        before = await self._everything(store)
        await store.delete_thread_item("t", "m0", BOB)
        await store.save_attachment(FileAttachment(id="a", name="his", mime_type="text/html"), BOB)
        await store.save_thread(thread("t", title="his"), BOB)
        assert (await store.load_thread_items("t", None, 10, "asc", BOB)).data == []
        assert [found.title for found in (await store.load_threads(10, None, "asc", BOB)).data] == ["his"]
        assert await self._everything(store, prepare=False) == before

    # Ids

    def test_new_ids_are_128_bits_long_and_say_what_they_name(self, store: Store[Any]) -> None:
        some = thread("t")
        prefixes: Any = {
            "message": "msg_",
            "tool_call": "tc_",
            "task": "tsk_",
            "workflow": "wf_",
            "attachment": "atc_",
            "sdk_hidden_context": "shcx_",
        }
        made = [store.generate_thread_id(ALICE) for _ in range(100)]
        assert all(len(made_id.removeprefix("thr_")) == 32 for made_id in made)
        for kind, prefix in prefixes.items():
            item_id = store.generate_item_id(kind, some, ALICE)
            assert len(item_id.removeprefix(prefix)) == 32
            made.append(item_id)
        assert len(set(made)) == len(made)

    # Helpers

    @staticmethod
    async def _thread_with_messages(
        store: Store[Any], thread_id: str, count: int, *, context: Any = ALICE, prefix: str = "m"
    ) -> list[str]:
        await store.save_thread(thread(thread_id), context)
        names = [f"{prefix}{number}" for number in range(count)]
        for name in names:
            await store.add_thread_item(thread_id, user_message(thread_id, name), context)
        return names

    @staticmethod
    async def _ids(store: Store[Any], thread_id: str, order: str) -> list[str]:
        return [item.id for item in (await store.load_thread_items(thread_id, None, 100, order, ALICE)).data]

    async def _everything(self, store: Store[Any], *, prepare: bool = True) -> list[Any]:
        """All that is Alice's, after giving her a thread, messages and an attachment."""
        if prepare:
            await self._thread_with_messages(store, "t", 2)
            await store.save_attachment(FileAttachment(id="a", name="hers", mime_type="text/plain"), ALICE)
        return [
            await store.load_threads(100, None, "asc", ALICE),
            await store.load_thread_items("t", None, 100, "asc", ALICE),
            await store.load_attachment("a", ALICE),
        ]
