"""Follows running turns through the database, so that a reader can join a turn on any process.

A follower receives the items of the turn so far, then its new text, at most a second late, and then its end. All
followers of a process are polled by one statement; a follower whose client has not read the last news yet is left out.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context

from chatkit.types import (
    AssistantMessageContentPartTextDelta,
    StreamOptions,
    StreamOptionsEvent,
    ThreadItemUpdatedEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    ThreadUpdatedEvent,
)

from chatkit_postgres.chat.turns.buffer import DeltaTemplate, Encode
from chatkit_postgres.chat.turns.live_items import LiveItems
from chatkit_postgres.chat.turns.replay import error_event
from chatkit_postgres.chat.turns.wakeup import Wakeup
from chatkit_postgres.chat.wire import thread_response
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import BACKGROUND, wait_policy
from chatkit_postgres.errors import ChatError, DatabaseUnavailable, NotFound, Superseded
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.live import News, Position, RunningTurnRow

POLL_SECONDS = 0.3

StreamOptionsOf = Callable[[ThreadMetadata, RequestContext], StreamOptions]

logger = get_logger(__name__)


class Follower:
    """A reader of a turn that runs in this process or another one."""

    def __init__(
        self,
        turn: RunningTurnRow,
        context: RequestContext,
        *,
        store: DatabaseStore,
        encode: Encode,
        stream_options: StreamOptionsOf,
    ) -> None:
        self._turn = turn
        self._context = context
        self._store = store
        self._encode = encode
        self._stream_options = stream_options
        self._items = LiveItems()
        self._thread: ThreadMetadata | None = None
        self._templates: dict[tuple[str, int], DeltaTemplate] = {}
        self._frames: list[bytes] = []
        self._has_news = Wakeup()
        self._has_ended = False
        self.position = Position(context.user_id, turn.session_id, turn.turn_id, sequence=0, seen_at=None)

    @property
    def is_waiting(self) -> bool:
        """Whether its client has received everything, and wants more."""
        return not self._frames and not self._has_ended

    async def begin(self) -> None:
        """Read what there is so far. Raises NotFound."""
        self._items.replaced_ids = await self._store.live.replaced_item_ids(self._turn, self._context)
        thread = await self._store.load_thread(self._turn.thread_id, self._context)
        self._add([StreamOptionsEvent(stream_options=self._stream_options(thread, self._context))])
        self._thread = thread
        self._add(self._items.updated(await self._store.live.items(self._turn, self._context)))

    def needs_items(self, news: News) -> bool:
        """Whether more than the text of an answer has changed."""
        return news.state != "running" or news.changed_at != self.position.seen_at

    async def take_items(self, news: News) -> None:
        """Read what has changed. Raises ChatError; the next poll then returns the same news."""
        with suppress(NotFound):
            await self._reload()
        self.take(news)

    def take(self, news: News) -> None:
        """Take new text and the end."""
        self._add(self._items.appended(news.entries))
        sequence = news.entries[-1].sequence if news.entries else self.position.sequence
        self.position = Position(
            self.position.owner, self.position.session_id, self.position.turn_id, sequence, news.changed_at
        )
        if news.state != "running":
            self._add(self._items.finished())
            if news.state is None:
                self._add([error_event(NotFound.code)])
            elif news.error_code is not None:
                self._add([error_event(Superseded.code if news.state == "superseded" else news.error_code)])
            self.end()

    def end(self) -> None:
        self._has_ended = True
        self._has_news.set()

    async def read(self, seconds: float) -> bytes | None:
        """As Reader.read."""
        if not self._frames and not self._has_ended and not await self._has_news.wait(seconds):
            return None
        frames = b"".join(self._frames)
        self._frames.clear()
        self._has_news.clear()
        return frames

    async def _reload(self) -> None:
        thread = await self._store.load_thread(self._turn.thread_id, self._context)
        if self._thread is not None and thread_response(thread) != thread_response(self._thread):
            self._add([ThreadUpdatedEvent(thread=thread_response(thread))])
        self._thread = thread
        self._add(self._items.updated(await self._store.live.items(self._turn, self._context)))

    def _add(self, events: Sequence[ThreadStreamEvent]) -> None:
        if events:
            self._frames += map(self._frame, events)
            self._has_news.set()

    def _frame(self, event: ThreadStreamEvent) -> bytes:
        match event:
            case ThreadItemUpdatedEvent(
                item_id=item_id, update=AssistantMessageContentPartTextDelta(content_index=index, delta=delta)
            ):
                template = self._templates.get((item_id, index))
                if template is None:
                    template = DeltaTemplate(item_id, index, lambda event: self._encode(event, self._context))
                    self._templates[item_id, index] = template
                return template.frame(delta)
            case _:
                return self._encode(event, self._context)


class Followers:
    """All followers of a process."""

    def __init__(
        self,
        store: DatabaseStore,
        encode: Encode,
        stream_options: StreamOptionsOf,
        *,
        is_draining: Callable[[], bool],
    ) -> None:
        self._store = store
        self._is_draining = is_draining
        self._encode = encode
        self._stream_options = stream_options
        self._followers: set[Follower] = set()
        self._polling: asyncio.Task[None] | None = None

    async def follow(self, turn: RunningTurnRow, context: RequestContext) -> Follower:
        """Raises NotFound if the thread was deleted."""
        follower = Follower(turn, context, store=self._store, encode=self._encode, stream_options=self._stream_options)
        await follower.begin()
        self._followers.add(follower)
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll(), name="followers", context=Context())
        return follower

    def leave(self, follower: Follower) -> None:
        self._followers.discard(follower)
        if not self._followers and self._polling is not None:
            self._polling.cancel()
            # Another follower may join before it has ended.
            self._polling = None

    async def _poll(self) -> None:
        wait_policy.set(BACKGROUND)
        while self._followers:
            await asyncio.sleep(POLL_SECONDS)
            if self._is_draining():
                # Their clients follow the turns on another process.
                for follower in self._followers:
                    follower.end()
            followers = [follower for follower in self._followers if follower.is_waiting]
            if not followers:
                continue
            try:
                found = await self._store.live.poll([follower.position for follower in followers])
            except DatabaseUnavailable:
                continue
            except Exception as error:  # noqa: BLE001 - the next poll tries again
                log_failure(logger, "followers_not_polled", error)
                continue
            reads = []
            for number, news in found.items():
                follower = followers[number]
                if follower.needs_items(news):
                    reads.append(self._read(follower, news))
                else:
                    self._take(follower, news)
            await asyncio.gather(*reads)

    def _take(self, follower: Follower, news: News) -> None:
        try:
            follower.take(news)
        except Exception as error:  # noqa: BLE001 - one follower's failure is not the others'
            log_failure(logger, "follower_failed", error)
            follower.end()

    async def _read(self, follower: Follower, news: News) -> None:
        try:
            await follower.take_items(news)
        except DatabaseUnavailable:
            return
        except ChatError:
            follower.end()
        except Exception as error:  # noqa: BLE001 - one follower's failure is not the others'
            log_failure(logger, "follower_failed", error)
            follower.end()
