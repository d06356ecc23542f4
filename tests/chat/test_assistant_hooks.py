"""What an assistant of one's own can decide: titles, entities, models and tools, speech."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from agents import Agent, ModelProvider
from agents.models.interface import Model
from chatkit.agents import AgentContext
from chatkit.types import (
    AudioInput,
    ClientToolCallItem,
    CustomTask,
    InferenceOptions,
    InputTranscribeParams,
    InputTranscribeReq,
    ProgressUpdateEvent,
    ThreadItem,
    ThreadItemDoneEvent,
    ThreadRetryAfterItemParams,
    ThreadsCreateReq,
    ThreadsRetryAfterItemReq,
    ThreadStreamEvent,
    ToolChoice,
    TranscriptionResult,
    UserMessageItem,
    UserMessageTagContent,
    UserMessageTextContent,
)
from chatkit.widgets import DynamicWidgetRoot

from chatkit_postgres.assistant import AgentAssistant, Assistant, Choices
from chatkit_postgres.assistant.default import current_time
from chatkit_postgres.assistant.demo.model import DemoModel
from chatkit_postgres.chat.merge import LiveContext
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import NotSupported, Unprocessable
from chatkit_postgres.store import DatabaseStore
from tests.support.chat import Chat, Scripted, create, message, stored
from tests.support.items import NAIVE, thread, user_message

Context = AgentContext[RequestContext]


class Entitled(Assistant):
    """Answers in three parts when it may, and has its title after so many of them."""

    def __init__(self, title: str | Exception | None, after: int = 0) -> None:
        self._title = title
        self._after = after
        self._title_is_due, self._has_title = asyncio.Event(), asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def respond(self, history: Sequence[ThreadItem], context: Context) -> AsyncGenerator[ThreadStreamEvent, None]:
        await self.may_answer.wait()
        for number in range(3):
            yield ThreadItemDoneEvent(item=message(f"m{number}", "answer"))
            if number + 1 == self._after:
                self._title_is_due.set()
                if number < 2:  # The next part comes when the title is there.
                    await self._has_title.wait()
                    await asyncio.sleep(0.01)

    async def title(self, message: UserMessageItem, context: Context) -> str | None:
        if self._after:
            await self._title_is_due.wait()
        self._has_title.set()
        if isinstance(self._title, Exception):
            raise self._title
        return self._title


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("thread.") for event in events]


async def test_a_slow_title_comes_between_the_parts_of_the_answer(store: DatabaseStore) -> None:
    events = await Chat(store, Entitled("Slow", after=1)).events(create("Hello"))
    titled = kinds(events).index("updated")
    assert 3 < titled < len(events) - 1
    assert [row["title"] for row in await stored(store, "SELECT title FROM chat_sessions")] == ["Slow"]


async def test_a_title_that_takes_longer_than_the_answer_comes_after_it(store: DatabaseStore) -> None:
    events = await Chat(store, Entitled("Late", after=3)).events(create("Hello"))
    assert kinds(events)[-1] == "updated"


@pytest.mark.parametrize(
    ("given", "title"),
    [("a\x00b \ud800", "a\ufffdb \ufffd"), ("", None), ("  \n", None), (5, None), ("x" * 9000, "x" * 500)],
)
async def test_whatever_a_model_makes_of_a_title_is_made_presentable(
    store: DatabaseStore, given: Any, title: str | None
) -> None:
    events = await Chat(store, Entitled(given)).events(create("Hello"))
    assert "error" not in kinds(events)
    assert [row["title"] for row in await stored(store, "SELECT title FROM chat_sessions")] == [title]


class Helped(Entitled):
    """Uses the context's helpers where no agent runs."""

    async def respond(self, history: Sequence[ThreadItem], context: Context) -> AsyncGenerator[ThreadStreamEvent, None]:
        await context.stream(ProgressUpdateEvent(text="Looking"))
        await context.add_workflow_task(CustomTask(title="Looked"))
        await context.stream_widget(DynamicWidgetRoot.model_validate({"type": "Card", "children": []}))
        await context.end_workflow()
        yield ThreadItemDoneEvent(item=message("m", "answer"))


async def test_the_helpers_of_the_context_work_without_an_agent(store: DatabaseStore) -> None:
    events = await Chat(store, Helped("T")).events(create("Hello"))
    told = [kind for kind in kinds(events) if kind in {"progress_update", "item.added", "item.done"}]
    assert told == ["item.done", "progress_update", "item.added", "item.done", "item.done", "item.done"]
    rows = await stored(store, "SELECT item_type FROM chat_messages ORDER BY position")
    assert [row["item_type"] for row in rows[1:]] == ["widget", "workflow", "assistant_message"]


async def test_a_title_that_fails_costs_only_the_title(store: DatabaseStore) -> None:
    events = await Chat(store, Entitled(RuntimeError("no"))).events(create("Hello"))
    assert kinds(events).count("item.done") == 4
    assert "error" not in kinds(events)


async def test_a_users_own_title_is_not_overwritten(store: DatabaseStore) -> None:
    assistant = Entitled("The assistant's", after=2)
    assistant.may_answer.clear()
    turn = await Chat(store, assistant).start(create("Hello"))
    context = RequestContext(user_id="alice")
    assert turn.session.thread_id is not None
    renamed = await store.load_thread(turn.session.thread_id, context)
    renamed.title = "The user's"
    await store.save_thread(renamed, context)
    assistant.may_answer.set()
    await turn.task
    assert [row["title"] for row in await stored(store, "SELECT title FROM chat_sessions")] == ["The user's"]


class Watching(DemoModel):
    """Notes what it is asked."""

    def __init__(self) -> None:
        super().__init__(seconds_per_word=0)
        self.asked: list[tuple[Any, Any]] = []

    def stream_response(self, system_instructions: Any, input: Any, model_settings: Any, *of: Any, **more: Any) -> Any:  # noqa: A002 - the SDK's
        self.asked.append((input, model_settings))
        return super().stream_response(system_instructions, input, model_settings, *of, **more)


class Models(ModelProvider):
    def __init__(self) -> None:
        self.model = Watching()
        self.names: list[str | None] = []

    def get_model(self, model_name: str | None) -> Model:
        self.names.append(model_name)
        return self.model


class Knowing(AgentAssistant):
    async def resolve_tag(self, tag: UserMessageTagContent, context: Context) -> str:
        return f"{tag.id} belongs to {context.request_context.user_id}, whatever {tag.data} says"


def wanting(**options: Any) -> ThreadsCreateReq:
    request = create("What time is it?")
    request.params.input.inference_options = InferenceOptions(**options)
    return request


def prepared(assistant: AgentAssistant) -> tuple[AgentAssistant, Models]:
    models = Models()
    assistant.prepare(models, Choices(frozenset({"small"}), frozenset({"current_time"})))
    return assistant, models


async def test_a_tag_is_resolved_with_the_rights_of_its_user(store: DatabaseStore) -> None:
    assistant, models = prepared(Knowing(Agent(name="A")))
    request = create("x")
    tag = UserMessageTagContent(id="order-7", text="order", data={"owner": "mallory"})
    request.params.input.content = [UserMessageTextContent(text="Look at "), tag]
    await Chat(store, assistant).events(request)
    assert "order-7 belongs to alice" in str(models.model.asked[0][0])


async def test_the_chosen_model_and_tool_are_used(store: DatabaseStore) -> None:
    assistant, models = prepared(AgentAssistant(Agent(name="A", tools=[current_time])))
    chat = Chat(store, assistant)
    await chat.events(wanting(model="small", tool_choice=ToolChoice(id="current_time")))
    assert set(models.names) == {"small"}
    # Demanded once; after the call the model is free to answer.
    assert [settings.tool_choice for _, settings in models.model.asked] == ["current_time", None]
    await chat.events(wanting())
    assert models.names[-1] is None


async def test_a_tool_is_not_demanded_again_for_what_it_brought(store: DatabaseStore) -> None:
    """A client tool's output continues the same message: demanded again, it would be called for ever."""
    assistant, models = prepared(AgentAssistant(Agent(name="A", tools=[current_time])))
    alice = RequestContext(user_id="alice")
    asked = user_message("t", "u").model_copy(
        update={"inference_options": InferenceOptions(model="small", tool_choice=ToolChoice(id="current_time"))}
    )
    brought = ClientToolCallItem(
        id="c", thread_id="t", created_at=NAIVE, call_id="c", name="look", arguments={}, status="completed", output=1
    )
    await store.save_thread(thread("t"), alice)
    context = LiveContext.of(thread("t"), store, alice)
    async with aclosing(assistant.respond([asked, brought], context)) as events:
        _ = [event async for event in events]
    assert [settings.tool_choice for _, settings in models.model.asked] == [None]
    assert set(models.names) == {"small"}


async def test_what_cannot_be_chosen_any_more_is_not_used_by_a_retry(store: DatabaseStore) -> None:
    assistant, models = prepared(AgentAssistant(Agent(name="A", tools=[current_time])))
    chat = Chat(store, assistant)
    events = await chat.events(wanting(model="small", tool_choice=ToolChoice(id="current_time")))
    params = ThreadRetryAfterItemParams(thread_id=events[0]["thread"]["id"], item_id=events[1]["item"]["id"])
    assistant.choices = Choices()
    models.names.clear()
    await chat.events(ThreadsRetryAfterItemReq(params=params))
    assert set(models.names) == {None}
    assert models.model.asked[-1][1].tool_choice is None


async def test_a_chosen_model_gets_no_settings_of_the_default_one(
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_DEFAULT_MODEL", "gpt-5")
    assistant, models = prepared(AgentAssistant(Agent(name="A", tools=[current_time])))
    assert assistant.default_agent.model_settings.reasoning is not None
    await Chat(store, assistant).events(wanting(model="small", tool_choice=ToolChoice(id="current_time")))
    assert [settings.reasoning for _, settings in models.model.asked] == [None, None]


@pytest.mark.parametrize("options", [{"model": "large"}, {"tool_choice": ToolChoice(id="rm")}, {"model": ""}])
async def test_nothing_else_can_be_chosen(store: DatabaseStore, options: dict[str, Any]) -> None:
    assistant, models = prepared(AgentAssistant(Agent(name="A")))
    with pytest.raises(Unprocessable, match=r"params\.input\.inference_options"):
        await Chat(store, assistant).events(wanting(**options))
    assert models.names == []
    assert await stored(store, "SELECT * FROM chat_sessions") == []


class Hearing(Scripted):
    async def transcribe(self, audio: AudioInput, context: RequestContext) -> TranscriptionResult:
        return TranscriptionResult(text=f"{audio.data.decode()} for {context.user_id}")


async def test_speech_is_the_assistants_affair(store: DatabaseStore) -> None:
    speech = base64.b64encode(b"hello").decode()
    request = InputTranscribeReq(params=InputTranscribeParams(audio_base64=speech, mime_type="audio/webm"))
    context = RequestContext(user_id="alice")
    assert b"hello for alice" in await Chat(store, Hearing()).server.answer(request, context)
    with pytest.raises(NotSupported):
        await Chat(store, Scripted()).server.answer(request, context)
