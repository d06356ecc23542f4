"""The stream of a run that goes on."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from agents import Agent, RunResultStreaming, RunState, StreamEvent
from agents.run import AgentRunner


class ResumedStream:
    """Stands in for the RunResultStreaming of a run that goes on, which can only be restored once it is awaited."""

    def __init__(
        self,
        agent: Agent[Any],
        state: Coroutine[Any, Any, RunState[Any]],
        runner: AgentRunner,
        options: dict[str, Any],
        note: Callable[[RunResultStreaming], None],
    ) -> None:
        self._agent = agent
        self._state = state
        self._runner = runner
        self._options = options
        self._note = note
        self.run: RunResultStreaming | None = None

    async def stream_events(self) -> AsyncGenerator[StreamEvent, None]:
        if self.run is None:
            self.run = self._runner.run_streamed(self._agent, await self._state, **self._options)
            self._note(self.run)
        async for event in self.run.stream_events():
            yield event

    def cancel(self, *args: Any, **named: Any) -> None:
        if self.run is not None:
            self.run.cancel(*args, **named)
        self._state.close()

    def __getattr__(self, name: str) -> Any:
        if self.run is None:
            raise AttributeError(f"{name!r} is known once the events are read")
        return getattr(self.run, name)
