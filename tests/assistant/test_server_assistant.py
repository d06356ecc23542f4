"""How a team's ChatKitServer is made and asked: every shape of a constructor, and hooks that are written wrongly."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from chatkit.server import ChatKitServer
from chatkit.types import ThreadStreamEvent

from benchmarks.sample_server import MemoryStore
from chatkit_postgres import Database, DatabaseStore
from chatkit_postgres.assistant.loading import AssistantError, load_assistant
from chatkit_postgres.assistant.models import ModelOptions
from chatkit_postgres.assistant.server import ServerAssistant
from tests.support.chat import Chat, create


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


class IsACoroutine(Base):
    async def respond(self, thread: Any, input_user_message: Any, context: Any) -> Any:  # type: ignore[override] # as people write it
        return None


@pytest.mark.parametrize("kind", [ReturnsAList, IsACoroutine])
async def test_a_hook_that_yields_nothing_says_how_to_write_it(
    store: DatabaseStore, kind: type[Base], caplog: pytest.LogCaptureFixture
) -> None:
    assistant = load_assistant(kind, ModelOptions(), store)
    events = await Chat(store, assistant).events(create("Hello"))
    assert [event["type"] for event in events][-1] == "error"
    (line,) = [record.getMessage() for record in caplog.records if "hook_returns_no_events" in record.getMessage()]
    assert "async generator" in line
