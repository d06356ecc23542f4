"""How a team's ChatKitServer is made and asked: constructors, hooks that are written wrongly, and runs around which is
whatever is around an agent's."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from agents import Agent, GuardrailFunctionOutput, Runner, function_tool, input_guardrail
from chatkit.agents import AgentContext, simple_to_agent_input, stream_agent_response
from chatkit.errors import CustomStreamError
from chatkit.server import ChatKitServer
from chatkit.types import ThreadStreamEvent

from benchmarks.sample_server import MemoryStore
from chatkit_postgres import Database, DatabaseStore, Refusal
from chatkit_postgres.assistant.loading import AssistantError, load_assistant
from chatkit_postgres.assistant.models import ModelOptions
from chatkit_postgres.assistant.server import ServerAssistant
from chatkit_postgres.chat.server import ChatServer
from chatkit_postgres.errors import OnlyToolsUsed
from tests.support.chat import Chat, create, message, stored


class Base(ChatKitServer[Any]):
    async def respond(self, thread: Any, input_user_message: Any, context: Any) -> AsyncIterator[ThreadStreamEvent]:
        nothing: tuple[ThreadStreamEvent, ...] = ()
        for event in nothing:
            yield event


class NoArguments(Base):
    def __init__(self) -> None:
        self.memory = MemoryStore()
        super().__init__(self.memory)


class PositionalOnly(Base):
    def __init__(self, store: Any, /) -> None:
        super().__init__(store)


class WithDefaults(Base):
    def __init__(self, store: Any, attachment_store: Any = None, *, colour: str = "teal") -> None:
        super().__init__(store, attachment_store)
        self.colour = colour


class PassesOn(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class WantsMore(Base):
    def __init__(self, store: Any, region: str) -> None:
        super().__init__(store)
        self.region = region


class HasOurStore(Base):
    """As who used the store alone before."""

    def __init__(self) -> None:
        super().__init__(DatabaseStore(Database("postgresql://127.0.0.1:1/elsewhere")))


def make_class() -> type[Base]:
    return NoArguments


def make_from(store: Any) -> Base:
    return WithDefaults(store)


async def make_later() -> Base:
    return NoArguments()


class Failing(Base):
    def __init__(self) -> None:
        raise KeyError("REGION")


def loaded(name: str, store: DatabaseStore) -> Any:
    return load_assistant(f"{__name__}:{name}", ModelOptions(), store)


MADE = ["Base", "NoArguments", "PositionalOnly", "WithDefaults", "PassesOn", "HasOurStore", "make_class", "make_from"]


@pytest.mark.parametrize("name", MADE)
def test_a_server_is_made_however_it_wants_to_be_and_has_our_store(name: str) -> None:
    store = DatabaseStore(Database("postgresql:///"))
    assistant = loaded(name, store)
    assert isinstance(assistant, ServerAssistant)
    assert assistant.server.store is store
    # Also under the second name that a subclass may have for it.
    assert not any(isinstance(value, MemoryStore) for value in vars(assistant.server).values())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("WantsMore", "it requires region, but only `store` is passed"),
        ("make_later", "it is an async function; name a plain one"),
        ("Failing", "KeyError: 'REGION'"),
        ("MemoryStore", "leads to a MemoryStore, not to an agents.Agent, an Assistant or a ChatKitServer"),
    ],
)
def test_what_cannot_be_made_says_why(name: str, reason: str) -> None:
    with pytest.raises(AssistantError) as refused:
        loaded(name, DatabaseStore(Database("postgresql:///")))
    assert reason in str(refused.value)


class ReturnsAList(Base):
    def respond(self, thread: Any, input_user_message: Any, context: Any) -> Any:
        return []


async def test_a_hook_that_yields_nothing_says_how_to_write_it(
    store: DatabaseStore, caplog: pytest.LogCaptureFixture
) -> None:
    assistant = load_assistant(ReturnsAList, ModelOptions(), store)
    events = await Chat(store, assistant).events(create("Hello"))
    assert [event["type"] for event in events][-1] == "error"
    (line,) = [record.getMessage() for record in caplog.records if "hook_returns_no_events" in record.getMessage()]
    assert "async generator" in line


@function_tool
def current_time() -> str:
    """The time."""
    raise ValueError("the clock has stopped")


@function_tool(failure_error_function=None)
def calendar() -> str:
    """The calendar."""
    raise CustomStreamError("The calendar is closed today.", allow_retry=False)


@input_guardrail
async def no_shouting(_context: Any, _agent: Any, given: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(
        output_info=Refusal("Please do not shout."), tripwire_triggered="HELLO" in str(given)
    )


class Running(Base):
    """A run of the Agents SDK, as people write it."""

    agent = Agent[Any](name="Ours", tools=[current_time, calendar], input_guardrails=[no_shouting])

    async def respond(self, thread: Any, input_user_message: Any, context: Any) -> AsyncIterator[ThreadStreamEvent]:
        page = await self.store.load_thread_items(thread.id, None, 20, "desc", context)
        running = AgentContext[Any](thread=thread, store=self.store, request_context=context)
        asked = await simple_to_agent_input(list(reversed(page.data)))
        async for event in stream_agent_response(running, Runner.run_streamed(self.agent, asked, context=running)):
            yield event


async def asked(chat: Chat, words: str) -> list[dict[str, Any]]:
    return [event for event in await chat.events(create(words)) if event["type"] == "error"]


@pytest.fixture
def running(store: DatabaseStore) -> Chat:
    return Chat(store, load_assistant(Running, ModelOptions(), store))


async def test_a_guardrails_own_sentence_reaches_the_user(running: Chat) -> None:
    (error,) = await asked(running, "HELLO")
    assert (error["message"], error["allow_retry"]) == ("Please do not shout.", False)
    assert await asked(running, "Hello") == []


async def test_a_tool_that_fails_is_logged_and_the_answer_goes_on(
    running: Chat, caplog: pytest.LogCaptureFixture
) -> None:
    assert await asked(running, "What time is it?") == []
    (line,) = [record.getMessage() for record in caplog.records if "tool_failed" in record.getMessage()]
    assert "current_time" in line
    assert "the clock has stopped" not in line


async def test_what_a_tool_raises_for_the_user_ends_the_turn_with_it(running: Chat) -> None:
    (error,) = await asked(running, "Open the calendar")
    assert error["message"] == "The calendar is closed today."


async def test_an_answer_that_grows_too_long_is_ended(running: Chat, store: DatabaseStore) -> None:
    assistant = running.server.assistant
    running.server = ChatServer(store, assistant, running.attachments, max_answer_characters=300)
    (error,) = await asked(running, "Tell me something long")
    assert "long" in error["message"]
    (turn,) = await stored(store, "SELECT error_code FROM chat_turns")
    assert turn["error_code"] == "answer_too_long"
    (row,) = await stored(store, "SELECT sender_name FROM chat_messages WHERE sender_type = 'assistant'")
    assert row["sender_name"] == "Ours"


class Stopping(Running):
    """Its agent stops after a tool, without a word."""

    agent = Agent[Any](name="Ours", tools=[current_time], tool_use_behavior="stop_on_first_tool")


class SavesItself(Stopping):
    """As above, but the server adds a message to its store."""

    async def respond(self, thread: Any, input_user_message: Any, context: Any) -> AsyncIterator[ThreadStreamEvent]:
        async for event in super().respond(thread, input_user_message, context):
            yield event
        await self.store.add_thread_item(thread.id, message("own", "Done."), context)


@pytest.mark.parametrize(("server", "sentences"), [(Stopping, [OnlyToolsUsed.sentence]), (SavesItself, [])])
async def test_a_run_that_says_nothing_is_one_sentence(
    store: DatabaseStore, server: type[Base], sentences: list[str]
) -> None:
    chat = Chat(store, load_assistant(server, ModelOptions(), store))
    assert [error["message"] for error in await asked(chat, "What time is it?")] == sentences
