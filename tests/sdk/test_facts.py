"""How the SDKs behave where we rely on it or work around it, each as it was measured.

A failure after an upgrade is news: either a work-around can go, or something that we rely on has.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner
from agents.models.chatcmpl_converter import Converter
from agents.models.fake_id import FAKE_RESPONSES_ID
from chatkit.agents import AgentContext, simple_to_agent_input, stream_agent_response
from chatkit.server import ChatKitServer, StreamingResult
from chatkit.store import NotFoundError, default_generate_id
from chatkit.types import (
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
    ClientToolCallItem,
    CustomTask,
    FileAttachment,
    HiddenContextItem,
    ItemsListReq,
    Thread,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemReplacedEvent,
    ThreadItemUpdatedEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    UserMessageItem,
    Workflow,
    WorkflowItem,
)

from chatkit_postgres.assistant.models import DemoModels
from chatkit_postgres.context import RequestContext
from chatkit_postgres.store import DatabaseStore
from tests.support.chat import add_message, create, delta, message
from tests.support.items import NAIVE, assistant_message, thread, user_message


def alice() -> RequestContext:
    return RequestContext(user_id="alice")


class Plain(ChatKitServer[Any]):
    """The SDK's server with nothing of ours but the store."""

    def __init__(self, store: Any, *script: ThreadStreamEvent | Exception) -> None:
        super().__init__(store)
        self.script = script

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: Any
    ) -> AsyncIterator[ThreadStreamEvent]:
        for step in self.script:
            if isinstance(step, Exception):
                raise step
            yield step


async def streamed(server: Plain, request: Any) -> list[Any]:
    result = await server.process(request.model_dump_json(), alice())
    assert isinstance(result, StreamingResult)
    frames = [frame async for frame in result]
    return [json.loads(frame.removeprefix(b"data: ")) for frame in frames]


class TestIds:
    def test_default_ids_have_32_random_bits(self) -> None:
        assert len(default_generate_id("message").partition("_")[2]) == 8

    def test_chat_completions_models_name_every_message_the_same(self) -> None:
        assert FAKE_RESPONSES_ID == "__fake_id__"

    async def test_an_id_is_added_again_when_a_workflow_goes_on(self, store: DatabaseStore) -> None:
        """The run that follows a client tool call takes the workflow before it up, and stores it under its id."""
        await store.save_thread(thread("t"), alice())
        old = WorkflowItem(
            id="w",
            thread_id="t",
            created_at=datetime.now(),  # noqa: DTZ005 - as the SDK does
            workflow=Workflow(type="custom", tasks=[CustomTask(title="a")]),
        )
        call = ClientToolCallItem(id="c", thread_id="t", created_at=NAIVE, call_id="c", name="n", arguments={})
        for item in (old, call):
            await store.add_thread_item("t", item, alice())
        events = await self.run(store)
        done = [event.item.id for event in events if isinstance(event, ThreadItemDoneEvent)]
        assert done[0] == "w"

    async def test_an_aware_time_breaks_the_end_of_a_workflow(self, store: DatabaseStore) -> None:
        """Why the store returns ``created_at`` exactly as it was given."""
        await store.save_thread(thread("t"), alice())
        aware = WorkflowItem(
            id="w",
            thread_id="t",
            created_at=datetime.now(UTC),
            workflow=Workflow(type="custom", tasks=[CustomTask(title="a")]),
        )
        await store.add_thread_item("t", aware, alice())
        with pytest.raises(TypeError, match="offset-naive and offset-aware"):
            await self.run(store)

    @staticmethod
    async def run(store: DatabaseStore) -> list[ThreadStreamEvent]:
        context: AgentContext[RequestContext] = AgentContext(
            thread=await store.load_thread("t", alice()), store=store, request_context=alice()
        )
        config = RunConfig(model_provider=DemoModels(seconds_per_word=0), tracing_disabled=True)
        result = Runner.run_streamed(Agent(name="A"), "Hello", context=context, run_config=config)
        return [event async for event in stream_agent_response(context, result)]


class TestStore:
    """What the SDK asks of a store."""

    async def test_threads_come_to_be_saved_with_their_items(self, store: DatabaseStore) -> None:
        saved: list[ThreadMetadata] = []

        class Watching(DatabaseStore):
            async def save_thread(self, thread: ThreadMetadata, context: Any) -> None:
                saved.append(thread.model_copy())
                await super().save_thread(thread, context)

        class Titled(Plain):
            async def respond(self, thread: ThreadMetadata, *_: Any) -> AsyncIterator[ThreadStreamEvent]:
                thread.title = "Titled"
                yield ThreadItemDoneEvent(item=assistant_message(thread.id, "m"))

        await streamed(Titled(Watching(store.database)), create("Hello"))
        assert [type(thread) for thread in saved] == [ThreadMetadata, Thread]

    async def test_times_are_naive_and_local(self, store: DatabaseStore) -> None:
        (_, user, *_) = await streamed(Plain(store), create("Hello"))
        assert datetime.fromisoformat(user["item"]["created_at"]).tzinfo is None

    async def test_limits_reach_the_store_as_they_are(self, store: DatabaseStore) -> None:
        seen: list[Any] = []

        class Watching(DatabaseStore):
            async def load_thread_items(self, thread_id: str, after: Any, limit: Any, *of: Any) -> Any:
                seen.append(limit)
                return await super().load_thread_items(thread_id, after, limit, *of)

        class Keyworded(Watching):
            async def load_thread_items(self, thread_id: str, **more: Any) -> Any:  # type: ignore[override] # as called
                seen.append(more["limit"])
                return await DatabaseStore.load_thread_items(self, thread_id, **more)

        for limit in (-5, 10**12):
            request = ItemsListReq.model_validate({"params": {"thread_id": "t", "limit": limit}})
            await Plain(Keyworded(store.database)).process(request.model_dump_json(), alice())
        assert seen == [-5, 10**12]

    async def test_updates_are_not_saved_and_done_items_are(self, store: DatabaseStore) -> None:
        script = (ThreadItemAddedEvent(item=message("m")), delta("m", "text"))
        events = await streamed(Plain(store, *script), create("Hello"))
        page = await store.load_thread_items(events[0]["thread"]["id"], None, 10, "asc", alice())
        assert [item.type for item in page.data] == ["user_message"]

    async def test_a_new_thread_is_saved_before_its_attachments_are_looked_at(self, store: DatabaseStore) -> None:
        request = create("Hello")
        request.params.input.attachments = ["atc_nowhere"]
        with pytest.raises(NotFoundError):
            await streamed(Plain(store), request)
        assert len((await store.load_threads(10, None, "desc", alice())).data) == 1


class TestStreams:
    async def test_what_is_raised_before_the_answer_breaks_the_stream(self, store: DatabaseStore) -> None:
        """Why the first event is pulled before the headers are sent."""
        with pytest.raises(NotFoundError):
            await streamed(Plain(store), add_message("thr_nowhere", "Hello"))

    async def test_a_cancelled_stream_leaves_hidden_context_behind(self, store: DatabaseStore) -> None:
        """Which after a client tool call blocks its output; we override it."""
        server = Plain(store)
        await store.save_thread(thread("t"), alice())
        partial = assistant_message("t", "m", "so far")
        await server.handle_stream_cancelled(await store.load_thread("t", alice()), [partial], alice())
        page = await store.load_thread_items("t", None, 10, "asc", alice())
        assert [item.type for item in page.data] == ["assistant_message", "sdk_hidden_context"]

    async def test_a_tool_output_is_taken_only_by_the_last_item(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), alice())
        call = ClientToolCallItem(id="c", thread_id="t", created_at=NAIVE, call_id="c", name="n", arguments={})
        hidden = HiddenContextItem(id="h", thread_id="t", created_at=NAIVE, content="x")
        for item in (call, hidden):
            await store.add_thread_item("t", item, alice())
        body = {"type": "threads.add_client_tool_output", "params": {"thread_id": "t", "result": 1}}
        result = await Plain(store).process(json.dumps(body), alice())
        assert isinstance(result, StreamingResult)
        with pytest.raises(ValueError, match="was not a ClientToolCallItem"):
            _ = [frame async for frame in result]

    async def test_a_retry_deletes_before_there_is_an_answer(self, store: DatabaseStore) -> None:
        await store.save_thread(thread("t"), alice())
        for item in (user_message("t", "u"), assistant_message("t", "a")):
            await store.add_thread_item("t", item, alice())
        body = {"type": "threads.retry_after_item", "params": {"thread_id": "t", "item_id": "u"}}
        result = await Plain(store, RuntimeError("no answer")).process(json.dumps(body), alice())
        assert isinstance(result, StreamingResult)
        _ = [frame async for frame in result]
        page = await store.load_thread_items("t", None, 10, "asc", alice())
        assert [item.id for item in page.data] == ["u"]

    async def test_hidden_context_is_held_back_only_when_it_is_done(self, store: DatabaseStore) -> None:
        hidden = HiddenContextItem(id="h", thread_id="t", created_at=NAIVE, content="the secret")
        for event, is_told in (
            (ThreadItemDoneEvent(item=hidden), False),
            (ThreadItemAddedEvent(item=hidden), True),
            (ThreadItemReplacedEvent(item=hidden), True),
        ):
            assert ("the secret" in str(await streamed(Plain(store, event), create("Hello")))) is is_told

    async def test_a_far_index_fills_a_message_with_empty_parts(self, store: DatabaseStore) -> None:
        item: ThreadItem = AssistantMessageItem(id="m", thread_id="t", created_at=NAIVE, content=[])
        far = AssistantMessageContentPartTextDelta(content_index=5000, delta="x")
        pending = {"m": item}
        Plain(store)._update_pending_items(pending, ThreadItemUpdatedEvent(item_id="m", update=far))
        assert len(pending["m"].content) == 5001  # type: ignore[union-attr] # an assistant's message

    async def test_half_a_character_breaks_the_stream_outside_of_every_try(self, store: DatabaseStore) -> None:
        script = (ThreadItemAddedEvent(item=message("m")), delta("m", "\ud83d"))
        with pytest.raises(Exception, match="surrogates not allowed"):
            await streamed(Plain(store, *script), create("Hello"))

    async def test_the_metadata_of_attachments_stays_inside(self, store: DatabaseStore) -> None:
        file = FileAttachment(id="a", name="n", mime_type="text/plain", metadata={"path": "secret"})
        assert b"secret" not in Plain(store)._serialize(file)
        assert "secret" in file.model_dump_json()


class TestModels:
    async def test_the_sdks_own_history_fails_with_chat_completions_on_the_second_turn(self) -> None:
        given = await simple_to_agent_input([user_message("t", "u"), assistant_message("t", "a")])
        with pytest.raises(Exception, match="Unknown content"):
            Converter.items_to_messages(given)

    async def test_a_model_stops_when_its_result_is_cancelled(self, store: DatabaseStore) -> None:
        """And not when its reader leaves: hence the ``finally`` in AgentAssistant."""
        config = RunConfig(model_provider=DemoModels(seconds_per_word=0.01), tracing_disabled=True)
        result = Runner.run_streamed(Agent(name="A"), "Hello", run_config=config)
        async for _ in result.stream_events():
            break
        result.cancel()
        await asyncio.sleep(0.05)
        assert result.is_complete

    def test_base64_is_read_leniently(self) -> None:
        assert base64.b64decode("QUJD!!") == b"ABC"
