"""Pipeline: the stages that each event of an answer passes, in order."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from chatkit.types import ThreadStreamEvent

Events = AsyncGenerator[ThreadStreamEvent, None]


class Stage:
    """One step. By default an event passes unchanged."""

    async def apply(self, event: ThreadStreamEvent) -> Sequence[ThreadStreamEvent]:
        """Return the events for the next stage: usually the same one; none to drop it."""
        return (event,)

    async def sent(self, event: ThreadStreamEvent) -> None:
        """Called after an event was sent."""

    async def finish(self) -> Sequence[ThreadStreamEvent]:
        """Called after the last event of a complete answer. Return events that follow it."""
        return ()


class Pipeline:
    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages
        self._observers = [stage for stage in stages if type(stage).sent is not Stage.sent]

    async def run(self, events: Events) -> Events:
        """Yield the events that come out of the last stage. Closes ``events``."""
        async with aclosing(events):
            async for event in events:
                for passed in await self._pass((event,), self._stages):
                    yield passed
                    for stage in self._observers:
                        await stage.sent(passed)
        for number, stage in enumerate(self._stages, 1):
            for passed in await self._pass(await stage.finish(), self._stages[number:]):
                yield passed

    @staticmethod
    async def _pass(events: Sequence[ThreadStreamEvent], stages: Sequence[Stage]) -> Sequence[ThreadStreamEvent]:
        for stage in stages:
            if len(events) == 1:
                events = await stage.apply(events[0])
            else:
                events = [passed for event in events for passed in await stage.apply(event)]
        return events
