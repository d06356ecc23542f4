"""Where hosted threads come from: the API of OpenAI."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, Self

import openai
from openai import AsyncOpenAI

PAGE = 100
AT_ONCE = 8
"""Threads whose items are fetched at the same time."""
MAX_RETRIES = 20
"""Retries of a request that is answered by 429 or 5xx, or by nothing, in two minutes and a half
or as Retry-After says."""
TIMEOUT_SECONDS = 60.0
HOSTED_URL = "https://api.openai.com/v1"

Json = dict[str, Any]


class HostedError(Exception):
    """What the API said, as a sentence for the operator. What was fetched before is kept."""


@dataclass(frozen=True, slots=True)
class HostedThread:
    thread: Json
    items: Sequence[Json]
    """In their order."""


class Known(Protocol):
    """What is saved already."""

    def items_of(self, thread_id: str) -> Sequence[Json]: ...


class Nothing:
    def items_of(self, thread_id: str) -> Sequence[Json]:  # noqa: ARG002 - the protocol's signature
        return ()


class HostedApi:
    def __init__(self, key: str, *, base_url: str = HOSTED_URL, max_retries: int = MAX_RETRIES) -> None:
        self._client = AsyncOpenAI(api_key=key, base_url=base_url, max_retries=max_retries, timeout=TIMEOUT_SECONDS)
        self._base_url = base_url
        self.gone: list[str] = []
        """Ids of threads that were deleted while they were read."""

    async def threads(self, *, user: str | None = None, known: Known | None = None) -> AsyncIterator[HostedThread]:
        """All threads of all users, or of one, with all items; only the items after those that are ``known`` are
        fetched. Raises HostedError."""
        saved = known or Nothing()
        only: dict[str, Any] = {"user": user} if user is not None else {}

        async def page(more: Json) -> Any:
            return await self._client.beta.chatkit.threads.list(limit=PAGE, order="asc", **more, **only)

        try:
            async for threads in _pages(page):
                for first in range(0, len(threads), AT_ONCE):
                    some = threads[first : first + AT_ONCE]
                    fetched = await asyncio.gather(*(self._with_items(thread, saved) for thread in some))
                    for thread in fetched:
                        if thread is not None:
                            yield thread
        except _GoneError:
            raise HostedError(f"There are no threads of ChatKit at {self._base_url}.") from None

    async def close(self) -> None:
        await self._client.close()

    async def _with_items(self, thread: Json, saved: Known) -> HostedThread | None:
        """None for a thread that was deleted meanwhile."""
        thread_id = str(thread.get("id"))
        items = list(saved.items_of(thread_id))
        if items:
            with suppress(_GoneError, HostedError):
                return HostedThread(thread, items + await self._items(thread_id, after=items[-1]["id"]))
            # The last one was deleted there.
        try:
            found = await self._items(thread_id)
        except _GoneError:
            self.gone.append(thread_id)
            return None
        known = {item.get("id") for item in items}
        return HostedThread(thread, items + [item for item in found if item.get("id") not in known])

    async def _items(self, thread_id: str, **after: Any) -> list[Json]:
        async def page(more: Json) -> Any:
            return await self._client.beta.chatkit.threads.list_items(
                thread_id, limit=PAGE, order="asc", **(after | more)
            )

        return [item async for items in _pages(page) for item in items]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _GoneError(Exception):
    pass


async def _pages(fetch: Callable[[Json], Awaitable[Any]]) -> AsyncIterator[list[Json]]:
    """The objects of each page, as they were sent. Pages follow each other by the id of the last object, whatever the
    page says of itself, except that it is the last one."""
    last: str | None = None
    while True:
        page = await _answered(fetch({"after": last} if last is not None else {}))
        found: list[Json] = [entry.to_dict(mode="json") for entry in page.data or ()]
        if not found:
            return
        yield found
        if page.has_more is False:
            return
        before, last = last, found[-1].get("id")
        if last is None or last == before:
            raise HostedError("OpenAI's API sends the same page again and again.")


async def _answered(request: Awaitable[Any]) -> Any:
    try:
        return await request
    except openai.NotFoundError:
        raise _GoneError from None
    except openai.AuthenticationError:
        raise HostedError("OPENAI_API_KEY: OpenAI refuses this key.") from None
    except openai.PermissionDeniedError as error:
        raise HostedError(f"OPENAI_API_KEY: this key may not read ChatKit's threads: {error.message}") from None
    except openai.APIStatusError as error:
        raise HostedError(f"OpenAI answers {error.status_code}, also after {MAX_RETRIES} attempts.") from None
    except openai.APIConnectionError as error:
        raise HostedError(f"OpenAI does not answer: {error.message}") from None
    except openai.APIError as error:
        raise HostedError(f"OpenAI's answer cannot be read: {error.message}") from None
