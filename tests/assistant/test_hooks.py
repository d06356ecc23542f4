"""Hooks that cannot be called as they will be are refused when the assistant is loaded, by name and with the remedy."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import pytest
from agents import Agent
from chatkit.server import ChatKitServer

from chatkit_postgres.assistant import AgentAssistant, Assistant, AssistantError, action, load_assistant
from chatkit_postgres.assistant.models import ModelOptions
from chatkit_postgres.db import Database
from chatkit_postgres.store import DatabaseStore


def loaded(named: object) -> Assistant:
    return load_assistant(named, ModelOptions(), DatabaseStore(Database("postgresql:///")))


async def _coroutine(_self: Any, *_: Any) -> None: ...


async def _stream(_self: Any, *_: Any) -> Any:
    yield None


def _generator(_self: Any, *_: Any) -> Iterator[None]:
    yield None


def _plain(_self: Any, *_: Any) -> None: ...


async def _without_message(_self: Any, _thread: Any, _context: Any) -> Any:
    yield None


async def _without_context(_self: Any, _history: Any) -> Any:
    yield None


async def _with_more(_self: Any, _message: Any, _context: Any, _more: Any) -> None: ...


WRONG = [
    (Assistant, "respond", _coroutine, "it has no yield: write an async generator"),
    (Assistant, "respond", _generator, "plain generator: write async def"),
    (Assistant, "respond", _without_context, "called with 2 arguments"),
    (Assistant, "title", _with_more, "called with 2 arguments"),
    (Assistant, "title", _stream, "write no yield in it"),
    (Assistant, "stream_options", _coroutine, "write a plain def"),
    (AgentAssistant, "converter", _coroutine, "write a plain def"),
    (AgentAssistant, "agent", _stream, "write no yield in it"),
    (ChatKitServer, "respond", _without_message, "called with 3 arguments"),
    (ChatKitServer, "respond", _generator, "plain generator: write async def"),
    (ChatKitServer, "get_stream_options", _coroutine, "write a plain def"),
]


@pytest.mark.parametrize(("base", "hook", "function", "remedy"), WRONG)
def test_a_hook_of_another_kind_is_refused(
    base: type[Any], hook: str, function: Callable[..., Any], remedy: str
) -> None:
    given = (Agent(name="A"),) if base is AgentAssistant else (None,) if base is ChatKitServer else ()
    kind = type(
        "Mine", (base,), {"respond": _stream, hook: function} if base is not AgentAssistant else {hook: function}
    )
    with pytest.raises(AssistantError) as refused:
        loaded(kind(*given))
    assert f"Mine.{hook}" in str(refused.value)
    assert remedy in str(refused.value)


def test_a_hook_that_may_return_something_to_await_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    loaded(type("Mine", (Assistant,), {"respond": _stream, "title": _plain})())
    assert "hook_is_not_async" in caplog.text
    assert "Mine.title" in caplog.text


def test_a_hook_may_be_written_as_its_kind_allows(caplog: pytest.LogCaptureFixture) -> None:
    hooks = {"respond": _plain, "title": _coroutine, "stream_options": _plain, "agent_context": _coroutine}
    loaded(type("Mine", (AgentAssistant,), hooks)(Agent(name="A")))
    loaded(type("Mine", (ChatKitServer,), {"respond": _stream, "action": _plain})(None))
    assert "hook_is_not_async" not in caplog.text


def test_hooks_that_are_called_right_are_not_refused() -> None:
    def with_database(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def called(self: Any, message: Any, context: Any) -> Any:
            return await function(self, message, context, "database")

        return called

    class Mine(Assistant):
        respond = _stream  # type: ignore[assignment]
        title = with_database(_with_more)

        @property
        def own_tool_choices(self) -> list[str]:  # type: ignore[override] # as a team may write it
            return ["search"]

        @staticmethod
        async def resolve_tag(tag: Any, context: Any) -> str:  # noqa: ARG004 - the hook has them
            return ""

    assert "search" in loaded(Mine()).choices.tools


def test_an_action_that_cannot_be_called_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match="needs an async function: async def _plain"):
        action("press")(_plain)

    async def short(_payload: Any) -> None: ...

    async def method(self: Any, payload: Any, sender: Any) -> None: ...

    for function in (short, method):
        with pytest.raises(TypeError, match=r"is called with \(payload, sender, context\)"):
            action("press")(function)


def test_a_keyword_for_the_store_and_a_list_of_choices_are_taken() -> None:
    class Mine(Assistant):
        own_tool_choices = ["search"]  # type: ignore[assignment] # noqa: RUF012 - as a team may write it
        respond = _stream  # type: ignore[assignment]

        def __init__(self, *, store: DatabaseStore) -> None:
            self.store = store

    assistant = loaded(Mine)
    assert "search" in assistant.choices.tools
