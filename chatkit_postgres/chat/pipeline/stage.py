"""Pipeline: the stages that each event of an answer passes, in order."""

from collections.abc import Sequence
from contextlib import aclosing

from chatkit.types import ThreadStreamEvent

from chatkit_postgres.ports import Events


class Stage:
    """One step. By default an event passes unchanged."""

    async def apply(self, event: ThreadStreamEvent) -> Sequence[ThreadStreamEvent]:
        """Return the events for the next stage: usually the same one; none to drop it."""
        return (event,)

    async def sent(self, events: Sequence[ThreadStreamEvent]) -> Sequence[ThreadStreamEvent]:  # noqa: ARG002
        """Called after each event of the assistant, with the events that were sent for it. Return events that follow;
        they pass no further stage."""
        return ()

    async def finish(self) -> Sequence[ThreadStreamEvent]:
        """Called after the last event of a complete answer. Return events that follow; they pass no further stage."""
        return ()


class Pipeline:
    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages
        # The last stage first: a thread is announced before the limit ends the answer.
        self._observers = [stage for stage in reversed(stages) if type(stage).sent is not Stage.sent]

    async def run(self, events: Events) -> Events:
        """Yield the events that come out of the last stage, one by one: the first of several is sent before the next
        is saved. Closes ``events``."""
        stages, count = self._stages, len(self._stages)
        async with aclosing(events):
            async for event in events:
                sent = []
                waiting = [(event, 0)]
                while waiting:
                    current, number = waiting.pop()
                    passed: Sequence[ThreadStreamEvent] = (current,)
                    while number < count and len(passed) == 1:
                        passed = await stages[number].apply(passed[0])
                        number += 1
                    if number == count and len(passed) == 1:
                        sent.append(passed[0])
                        yield passed[0]
                    else:
                        waiting.extend((derived, number) for derived in reversed(passed))
                for stage in self._observers:
                    announced = [*await stage.sent(sent)]
                    while announced:
                        # Not kept in memory until the next event: it may be a whole thread.
                        yield announced.pop(0)
        for stage in stages:
            for following in await stage.finish():
                yield following
