"""Adapts the Agents SDK's models for OpenAI's two APIs to servers that are not OpenAI's.

A refused input is shortened and retried (refusals.py), ids of tool calls are replaced (call_ids.py), thoughts are
separated from the answer (think_blocks.py), and every failure to read a response is an APIError.
"""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from agents import AgentsException, ModelResponse, OpenAIChatCompletionsModel, OpenAIResponsesModel
from agents.models.reasoning_content_replay import ReasoningContentReplayContext
from openai import APIError

from chatkit_postgres.assistant.model_input.call_ids import CallIds, CallsOfResponse
from chatkit_postgres.assistant.model_input.input_shape import with_plain_answers
from chatkit_postgres.assistant.model_servers.refusals import Attempts, ModelMemory
from chatkit_postgres.assistant.model_servers.sse import drained
from chatkit_postgres.assistant.model_servers.think_blocks import (
    TEXT_DELTA,
    ThinkBlocks,
    ThoughtSeparator,
    strip_thoughts,
)
from chatkit_postgres.errors import ChatError
from chatkit_postgres.observability.logs import failure, get_logger
from chatkit_postgres.observability.tracing import called_model

BEFORE_THE_ANSWER = frozenset(
    {
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_summary_part.added",
        "keepalive",
    }
)
UNSUCCESSFUL_ENDS = frozenset({"response.failed", "response.incomplete", "error"})

logger = get_logger(__name__)


@dataclass(frozen=True)
class Guard:
    """State that all models of a provider share."""

    memory: ModelMemory = field(default_factory=ModelMemory)
    call_ids: CallIds = field(default_factory=CallIds)
    think_blocks: ThinkBlocks = "thought"


class _Guarded:
    """Overrides methods of the SDK's models; must come first in the MRO."""

    model: Any

    def __init__(self, *given: Any, guard: Guard, **named: Any) -> None:
        super().__init__(*given, **named)
        self._guard = guard

    async def get_response(
        self, system_instructions: str | None, input: str | list[Any], *given: Any, **named: Any
    ) -> ModelResponse:
        attempts = self._attempts(input, named)
        called_model.set(str(self.model))
        while True:
            try:
                with _as_api_error():
                    response: ModelResponse = await super().get_response(  # type: ignore[misc]
                        system_instructions, _input(attempts, input), *given, **named
                    )
                break
            except APIError as error:
                attempts.after(error)
        attempts.passed()
        if not _is_stored_by_provider(named):
            CallsOfResponse(self._guard.call_ids).rename(response.output, Counter())
        if self._guard.think_blocks != "text":
            strip_thoughts(response.output)
        return response

    async def stream_response(
        self, system_instructions: str | None, input: str | list[Any], *given: Any, **named: Any
    ) -> AsyncIterator[Any]:
        attempts = self._attempts(input, named)
        called_model.set(str(self.model))
        while True:
            held: list[Any] = []
            has_begun = False
            events = super().stream_response(  # type: ignore[misc]
                system_instructions, _input(attempts, input), *given, **named
            )
            try:
                async with aclosing(self._read(events, renames=not _is_stored_by_provider(named))) as read:
                    async for event in read:
                        if not has_begun and _is_before_the_answer(event):
                            held.append(event)
                            continue
                        if not has_begun:
                            _raise_if_unsuccessful(event)
                            has_begun = True
                            attempts.passed()
                            # Not kept while the answer streams: the first event has the whole response.
                            while held:
                                yield held.pop(0)
                        yield event
            except APIError as error:
                if has_begun:
                    raise
                attempts.after(error)
                continue
            for earlier in held if not has_begun else ():
                yield earlier
            return

    def _attempts(self, given: str | list[Any], named: dict[str, Any]) -> Attempts:
        items = [] if isinstance(given, str) else with_plain_answers(given)
        if _is_stored_by_provider(named):
            items = self._guard.call_ids.restored(items)
        return Attempts(items, str(self.model), self._guard.memory)

    async def _read(self, events: Any, *, renames: bool) -> AsyncGenerator[Any, None]:
        calls = CallsOfResponse(self._guard.call_ids)
        think_blocks = self._guard.think_blocks
        thoughts = ThoughtSeparator(are_shown=think_blocks == "thought") if think_blocks != "text" else None
        with _as_api_error():
            async with aclosing(events):
                async for event in events:
                    for ready in (event,) if thoughts is None else thoughts.after(event):
                        if renames and ready.type != TEXT_DELTA:
                            calls.rename_in(ready)
                        yield ready
            for ready in () if thoughts is None else thoughts.at_end():
                yield ready


class GuardedResponsesModel(_Guarded, OpenAIResponsesModel):
    pass


class GuardedChatCompletionsModel(_Guarded, OpenAIChatCompletionsModel):
    pass


def goes_back(context: ReasoningContentReplayContext) -> bool:
    """Whether ``reasoning_content`` is sent back while tools are called: to the model that has sent the content, of any
    name. DeepSeek and Kimi refuse a tool's output without it."""
    return context.reasoning.origin_model == context.model


def _is_stored_by_provider(named: Mapping[str, Any]) -> bool:
    """Whether the input continues a conversation that the provider stores, with the provider's ids of calls."""
    return bool(named.get("previous_response_id") or named.get("conversation_id"))


def _input(attempts: Attempts, given: str | Sequence[Any]) -> Any:
    return given if isinstance(given, str) else attempts.items


def _is_before_the_answer(event: Any) -> bool:
    """Whether there is no text yet: the response to a refused prompt may be an empty message."""
    match event.type:
        case "response.output_text.delta":
            return not event.delta
        case "response.output_text.done":
            return not event.text
        case "response.content_part.done":
            return not getattr(event.part, "text", "text")
        case "response.output_item.done":
            return event.item.type == "message" and not any(getattr(p, "text", "text") for p in event.item.content)
        case kind:
            return kind in BEFORE_THE_ANSWER


def _raise_if_unsuccessful(event: Any) -> None:
    """Raise APIError if the first event is an error, or a failed or incomplete response."""
    if event.type not in UNSUCCESSFUL_ENDS:
        return
    response = getattr(event, "response", None)
    error = getattr(response, "error", None) or event
    details = getattr(response, "incomplete_details", None)
    code = getattr(details, "reason", None) or getattr(error, "code", None)
    message = getattr(error, "message", None) or "the answer failed"
    raise drained(APIError(message, httpx2.Request("POST", "/"), body={"code": code, "message": message}))


@contextmanager
def _as_api_error() -> Iterator[None]:
    """Re-raise what the SDK raises on a malformed response as an APIError, so that it does not end a turn as an
    internal error."""
    try:
        yield
    except (APIError, AgentsException, ChatError):
        raise
    except Exception as error:
        logger.warning("model_answer_unreadable", **failure(error))
        unread = APIError("the answer cannot be read", httpx2.Request("POST", "/"), body=None)
        raise drained(unread) from error
