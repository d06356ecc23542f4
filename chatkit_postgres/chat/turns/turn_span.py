"""The span of a turn: whose it is, how it ended and, if that is wanted, what was said."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chatkit.types import (
    AssistantMessageItem,
    ThreadItemDoneEvent,
    ThreadItemRemovedEvent,
    ThreadItemReplacedEvent,
    ThreadStreamEvent,
    UserMessageItem,
)

from chatkit_postgres.context import RequestContext
from chatkit_postgres.observability import trace_names
from chatkit_postgres.observability.tracing import conversation, is_content_traced, span
from chatkit_postgres.store.caller import required_session


@contextmanager
def turn_span(context: RequestContext) -> Iterator[Callable[[ThreadStreamEvent], None]]:
    """Around a turn. Yields what has to be called with each of its events."""
    session, outcome, user_id = required_session(context), context.outcome, context.user_id
    said = Said()
    with span(f"turn {session.operation}", trace_names.turn(session.operation)) as traced:
        if traced.trace_id is not None:
            # Not a method: connections that are opened in this task keep what is in its context.
            conversation.set(lambda: trace_names.conversation(session.thread_id, user_id))
        yield said.add if is_content_traced() else _ignore
        # Collectors show a trace by its outermost span, which is that of the request.
        traced.set_with_parent(trace_names.shown_conversation(session.thread_id, user_id, said.question, said.answer))
        end = trace_names.turn_end(outcome.state, outcome.error_code)
        traced.set(end, is_failed=outcome.state == "failed")


def _ignore(_: ThreadStreamEvent) -> None:
    pass


class Said:
    """The texts of a turn."""

    def __init__(self) -> None:
        self.question = ""
        self._answers: dict[str, str] = {}

    @property
    def answer(self) -> str:
        return "\n\n".join(self._answers.values())

    def add(self, event: ThreadStreamEvent) -> None:
        match event:
            case ThreadItemDoneEvent(item=UserMessageItem() as message):
                self.question = "\n".join(part.text for part in message.content)
            case (
                ThreadItemDoneEvent(item=AssistantMessageItem() as message)
                | ThreadItemReplacedEvent(item=AssistantMessageItem() as message)
            ):
                self._answers[message.id] = "\n".join(part.text for part in message.content)
            case ThreadItemRemovedEvent():
                self._answers.pop(event.item_id, None)
            case _:
                pass
