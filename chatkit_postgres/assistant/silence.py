"""Drops empty assistant messages, and fails a run that shows nothing to the user."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Protocol

from chatkit.types import (
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
    ClientEffectEvent,
    ErrorEvent,
    HiddenContextItem,
    NoticeEvent,
    SDKHiddenContextItem,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemReplacedEvent,
    ThreadItemUpdatedEvent,
    ThreadStreamEvent,
    WorkflowItem,
)

from chatkit_postgres.errors import ModelSilent, OnlyToolsUsed, RefusedWithoutWords


class Ending(Protocol):
    """What the hooks of a run know of its end."""

    has_used_tools: bool
    has_refused: bool


class Hooks(Ending, Protocol):
    def has_only_calls(self, item: WorkflowItem) -> bool: ...


async def without_empty_messages(
    events: AsyncIterator[ThreadStreamEvent], hooks: Hooks, *, waits: Callable[[], bool] = lambda: False
) -> AsyncGenerator[ThreadStreamEvent, None]:
    """Hold each message's events until its first character that is not blank.

    Unless the run ``waits`` for an approval, raises ModelSilent, or a more precise error, at the end if no output was
    visible; reasoning and the names of tools do not count.
    """
    messages = _Messages(hooks)
    async for event in events:
        for ready in messages.ready_after(event):
            yield ready
    if messages.are_silent and not waits():
        raise reason_of(hooks)


def reason_of(*hooks: Ending) -> ModelSilent:
    """The error of runs that show nothing."""
    if any(run.has_refused for run in hooks):
        return RefusedWithoutWords()
    return OnlyToolsUsed() if any(run.has_used_tools for run in hooks) else ModelSilent()


def shows(event: ThreadStreamEvent) -> bool:
    """Whether a user sees anything of an event after the answer has ended."""
    match event:
        case ThreadItemDoneEvent(item=AssistantMessageItem() as item):
            return has_text(item)
        case ThreadItemDoneEvent(item=HiddenContextItem() | SDKHiddenContextItem()):
            return False
        case ThreadItemDoneEvent(item=WorkflowItem(workflow=workflow)):
            return workflow.type != "reasoning"
        case ThreadItemDoneEvent() | ThreadItemReplacedEvent() | ClientEffectEvent() | NoticeEvent() | ErrorEvent():
            return True
        case _:
            return False


class _Messages:
    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self.are_silent = True
        self._held: dict[str, list[ThreadStreamEvent]] = {}
        """Events of messages whose text is blank so far, by message id."""

    def ready_after(self, event: ThreadStreamEvent) -> list[ThreadStreamEvent]:
        match event:
            case ThreadItemAddedEvent(item=AssistantMessageItem() as item) if not has_text(item):
                self._held[item.id] = [event]
                return []
            case ThreadItemUpdatedEvent(item_id=item_id) if item_id in self._held:
                self._held[item_id].append(event)
                return self._held.pop(item_id) if _is_text(event) else []
            case ThreadItemDoneEvent(item=item):
                held = self._held.pop(item.id, [])
                if held and isinstance(item, AssistantMessageItem) and not has_text(item):
                    return []
                self.are_silent = self.are_silent and not self._is_shown(item)
                return [*held, event]
            case ClientEffectEvent():
                self.are_silent = False
                return [event]
            case _:
                return [event]

    def _is_shown(self, item: ThreadItem) -> bool:
        match item:
            case HiddenContextItem() | SDKHiddenContextItem():
                return False
            case WorkflowItem(workflow=workflow):
                return workflow.type != "reasoning" and not self._hooks.has_only_calls(item)
            case _:
                return True


def has_text(item: AssistantMessageItem) -> bool:
    return any(part.text.strip() for part in item.content)


def _is_text(event: ThreadItemUpdatedEvent) -> bool:
    return isinstance(event.update, AssistantMessageContentPartTextDelta) and bool(event.update.delta.strip())
