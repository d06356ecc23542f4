"""Checks, when an assistant is loaded, that its hooks can be called as the server calls them."""

import inspect
from collections.abc import Callable
from typing import Any

from chatkit_postgres.observability.logs import get_logger

STREAMS = frozenset({"respond", "action"})
"""Hooks that return an async iterator of events: an async generator, or a plain function."""
HOOKS = (
    *("respond", "title", "resolve_tag", "stream_options", "add_feedback", "transcribe", "approval_card"),
    *("agent", "agent_context", "converter", "tool_label", "start", "close"),
    # Of a ChatKitServer.
    *("action", "sync_action", "get_stream_options"),
)
OURS = ("chatkit_postgres.", "chatkit.")

logger = get_logger(__name__)


class HookError(Exception):
    """A hook cannot be called as the server calls it; the message has its place and the remedy."""


def check_hooks(assistant: object) -> None:
    """Raises HookError if an Assistant or a ChatKitServer overrides a hook by one of another kind, or with other
    parameters."""
    kind = type(assistant)
    for name in HOOKS:
        original = next((vars(base)[name] for base in kind.__mro__ if _is_ours(base) and name in vars(base)), None)
        own = getattr(kind, name, None)
        if original is None or own is original or not inspect.isfunction(own):
            continue
        code = own.__code__
        place = f"{code.co_filename}:{code.co_firstlineno}: {kind.__qualname__}.{name}"
        if name in STREAMS:
            _check_stream(own, place)
        else:
            _check_kind(own, original, place)
        count = len(inspect.signature(original).parameters)
        is_static = isinstance(inspect.getattr_static(kind, name), staticmethod)
        if not takes(own, count - is_static):
            raise HookError(f"{place} is called with {count - 1} arguments, as {inspect.signature(original)} has it")


def takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with that many positional arguments. Of a decorated function, it is the
    decorator's that is called."""
    try:
        inspect.signature(function, follow_wrapped=False).bind(*range(count))
    except TypeError:
        return False
    return True


def _is_ours(kind: type) -> bool:
    return f"{kind.__module__}.".startswith(OURS)


def _check_stream(own: Callable[..., Any], place: str) -> None:
    if inspect.iscoroutinefunction(own):
        raise HookError(f"{place} is a coroutine function, because it has no yield: write an async generator")
    if inspect.isgeneratorfunction(own):
        raise HookError(f"{place} is a plain generator: write async def")


def _check_kind(own: Callable[..., Any], original: Callable[..., Any], place: str) -> None:
    if inspect.isasyncgenfunction(own) or inspect.isgeneratorfunction(own):
        raise HookError(f"{place} is a generator: write no yield in it")
    is_async = inspect.iscoroutinefunction(original)
    if inspect.iscoroutinefunction(own) and not is_async:
        raise HookError(f"{place} is an async function: write a plain def")
    if is_async and not inspect.iscoroutinefunction(own) and not hasattr(own, "__wrapped__"):
        # It may return something to await.
        logger.warning("hook_is_not_async", hook=place, cure="write async def")
