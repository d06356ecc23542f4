"""Follows running turns through the database, so that a reader can join a turn on any process.

A follower receives the items of the turn so far, then its new text, at most a second late, and then its end. All turns
that are followed in a process are polled by one statement, however many follow each of them.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from uuid import UUID

from chatkit.types import (
    StreamOptions,
    StreamOptionsEvent,
    ThreadItemReplacedEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    ThreadUpdatedEvent,
)

from chatkit_postgres.chat.turns.buffer import Encode, EventBuffer, Reader
from chatkit_postgres.chat.turns.live_items import LiveItems
from chatkit_postgres.chat.turns.replay import error_event
from chatkit_postgres.chat.wire import thread_response
from chatkit_postgres.context import RequestContext
from chatkit_postgres.db import BACKGROUND, wait_policy
from chatkit_postgres.errors import ChatError, DatabaseUnavailable, NotFound, Superseded
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.live import News, Position, RunningTurnRow

POLL_SECONDS = 0.3
NEWS_SECONDS = 1

StreamOptionsOf = Callable[[ThreadMetadata, RequestContext], StreamOptions]

logger = get_logger(__name__)


class FollowedTurn:
    """A turn that runs in this process or another one, and the events that lead from its items so far to its end."""

    def __init__(self, turn: RunningTurnRow, context: RequestContext, *, store: DatabaseStore, encode: Encode) -> None:
        self._turn = turn
        self._context = context
        self._store = store
        self._items = LiveItems()
        self._taking = asyncio.Lock()
        """So that an older state of the items is never taken after a newer one."""
        self.buffer = EventBuffer(lambda event: encode(event, context))
        self.position = Position(context.user_id, turn.session_id, turn.turn_id, sequence=0, seen_at=None)

    async def begin(self) -> None:
        """Read what there is so far. Raises NotFound."""
        self._items.replaced_ids = await self._store.live.replaced_item_ids(self._turn, self._context)
        self.thread = await self._store.load_thread(self._turn.thread_id, self._context)
        self._items.updated(await self._store.live.items(self._turn, self._context))

    def so_far(self) -> list[ThreadStreamEvent]:
        """The events for a follower that joins now: each item in its present state. A replay of the deltas would show
        less than the client has already."""
        return self._items.so_far()

    async def take(self, news: News) -> None:
        """Take new text and the end, and read what else has changed. Raises ChatError; after
        DatabaseUnavailable the next poll returns the same news, and any other error ends the stream."""
        async with self._taking:
            if self.buffer.ended:
                return
            if news.state != "running" or news.changed_at != self.position.seen_at:
                with suppress(NotFound):
                    await self._reload()
            self._take(news)

    def _take(self, news: News) -> None:
        self._add(self._items.appended(news.entries))
        position = self.position
        sequence = max([position.sequence, *(entry.sequence for entry in news.entries)])
        self.position = Position(position.owner, position.session_id, position.turn_id, sequence, news.changed_at)
        if news.state != "running":
            self._add(self._items.finished())
            if news.state is None:
                self._add([error_event(NotFound.code)])
            elif news.error_code is not None:
                self._add([error_event(Superseded.code if news.state == "superseded" else news.error_code)])
            self.buffer.end()

    async def _reload(self) -> None:
        thread = await self._store.load_thread(self._turn.thread_id, self._context)
        if thread_response(thread) != thread_response(self.thread):
            self._add([ThreadUpdatedEvent(thread=thread_response(thread))])
        self.thread = thread
        self._add(self._items.updated(await self._store.live.items(self._turn, self._context)))

    def _add(self, events: Sequence[ThreadStreamEvent]) -> None:
        for event in events:
            self.buffer.add(event, replaces=event.item.id if isinstance(event, ThreadItemReplacedEvent) else None)


class Follower:
    """A reader of a followed turn."""

    def __init__(self, followed: FollowedTurn, beginning: bytes) -> None:
        self.followed = followed
        self.reader: Reader = followed.buffer.read_from_end()
        self._beginning = beginning

    async def read(self, seconds: float) -> bytes | None:
        """As Reader.read."""
        if self._beginning:
            beginning, self._beginning = self._beginning, b""
            return beginning
        return await self.reader.read(seconds)


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
        self._turns: dict[tuple[str, UUID, str], FollowedTurn] = {}
        """By owner, turn, and the URL at which their clients reach this server, which is part of events with files."""
        self._polling: asyncio.Task[None] | None = None

    @property
    def turns(self) -> int:
        """How many turns are followed."""
        return len(self._turns)

    async def follow(self, turn: RunningTurnRow, context: RequestContext) -> Follower:
        """Raises NotFound if the thread was deleted."""
        key = (context.user_id, turn.turn_id, context.public_url)
        followed = self._open(key)
        if followed is None:
            followed = FollowedTurn(turn, context, store=self._store, encode=self._encode)
            await followed.begin()
        else:
            # A page that is reloaded must not show less than before. The next poll would do, too.
            with suppress(TimeoutError):
                async with asyncio.timeout(NEWS_SECONDS):
                    await self._take_news([followed])
            if followed.buffer.ended and self._open(key) is None:
                # Its end was sent to those who followed it before.
                followed = FollowedTurn(turn, context, store=self._store, encode=self._encode)
                await followed.begin()
        # Others may have joined or left meanwhile; from here on nobody can.
        followed = self._open(key) or followed
        options = StreamOptionsEvent(stream_options=self._stream_options(followed.thread, context))
        beginning = [self._encode(event, context) for event in (options, *followed.so_far())]
        follower = Follower(followed, b"".join(beginning))
        self._turns[key] = followed
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll(), name="followers", context=Context())
        return follower

    def leave(self, follower: Follower) -> None:
        followed = follower.followed
        followed.buffer.leave(follower.reader)
        if not followed.buffer.readers:
            self._forget(followed)
        if not self._turns and self._polling is not None:
            self._polling.cancel()
            # Another follower may join before it has ended.
            self._polling = None

    def _open(self, key: tuple[str, UUID, str]) -> FollowedTurn | None:
        followed = self._turns.get(key)
        return None if followed is None or followed.buffer.ended else followed

    def _forget(self, followed: FollowedTurn) -> None:
        self._turns = {key: other for key, other in self._turns.items() if other is not followed}

    async def _poll(self) -> None:
        wait_policy.set(BACKGROUND)
        while self._turns:
            await asyncio.sleep(POLL_SECONDS)
            if self._is_draining():
                # Their clients follow the turns on another process.
                for followed in self._turns.values():
                    followed.buffer.end()
            await self._take_news([*self._turns.values()])
            for followed in [*self._turns.values()]:
                if followed.buffer.ended:
                    self._forget(followed)

    async def _take_news(self, turns: Sequence[FollowedTurn]) -> None:
        turns = [followed for followed in turns if not followed.buffer.ended]
        if not turns:
            return
        try:
            found = await self._store.live.poll([followed.position for followed in turns])
        except DatabaseUnavailable:
            return
        except Exception as error:  # noqa: BLE001 - the next poll tries again
            log_failure(logger, "followers_not_polled", error)
            return
        await asyncio.gather(*(_take(turns[number], news) for number, news in found.items()))


async def _take(followed: FollowedTurn, news: News) -> None:
    try:
        await followed.take(news)
    except DatabaseUnavailable:
        return
    except ChatError:
        followed.buffer.end()
    except Exception as error:  # noqa: BLE001 - one turn's failure is not the others'
        log_failure(logger, "follower_failed", error)
        followed.buffer.end()
