"""The model side of a conversation. It knows nothing of HTTP or SQL."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence

from chatkit.agents import AgentContext
from chatkit.types import ThreadItem, ThreadStreamEvent

from app.context import RequestContext


class Assistant(ABC):
    """Subclass this, or hand over an ``agents.Agent``, to decide what is answered."""

    @abstractmethod
    def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        """Stream the events of one answer.

        ``history`` is the thread, oldest first; its last item is what there is to answer. Whatever is yielded
        as done is saved before the client sees it. When the turn is stopped, CancelledError arrives at the
        ``await`` the assistant is in: end the model's stream in a ``finally``.
        """
        ...

    async def close(self) -> None:  # noqa: B027 - most assistants hold nothing
        """Give back what the assistant holds; called once, when the server shuts down."""
