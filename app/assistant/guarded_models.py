"""The Agents SDK's models for OpenAI's two APIs, with every failure to read an answer as an APIError."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import httpx2
from agents import AgentsException, ModelResponse, OpenAIChatCompletionsModel, OpenAIResponsesModel
from openai import APIError

from app.assistant.sse import drained
from app.errors import ChatError
from app.observability.logs import failure, get_logger

logger = get_logger(__name__)


class GuardedResponsesModel(OpenAIResponsesModel):
    async def get_response(self, *given: Any, **named: Any) -> ModelResponse:
        with _as_api_error():
            return await super().get_response(*given, **named)

    def stream_response(self, *given: Any, **named: Any) -> AsyncIterator[Any]:
        return _guarded(super().stream_response(*given, **named))


class GuardedChatCompletionsModel(OpenAIChatCompletionsModel):
    async def get_response(self, *given: Any, **named: Any) -> ModelResponse:
        with _as_api_error():
            return await super().get_response(*given, **named)

    def stream_response(self, *given: Any, **named: Any) -> AsyncIterator[Any]:
        return _guarded(super().stream_response(*given, **named))


async def _guarded(events: Any) -> AsyncIterator[Any]:
    with _as_api_error():
        async with aclosing(events):
            async for event in events:
                yield event


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
