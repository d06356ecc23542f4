"""Drops empty assistant messages, and fails a run that shows nothing to the user."""

from collections.abc import AsyncGenerator, AsyncIterator

from chatkit.types import (
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
    ClientEffectEvent,
    HiddenContextItem,
    SDKHiddenContextItem,
    ThreadItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemUpdatedEvent,
    ThreadStreamEvent,
    WorkflowItem,
)

from chatkit_postgres.errors import ModelSilent


async def without_empty_messages(events: AsyncIterator[ThreadStreamEvent]) -> AsyncGenerator[ThreadStreamEvent, None]:
    """Hold each message's events until its first character that is not blank.

    Raises ModelSilent at the end if no output was visible; reasoning does not count.
    """
    messages = _Messages()
    async for event in events:
        for ready in messages.ready_after(event):
            yield ready
    if messages.are_silent:
        raise ModelSilent


class _Messages:
    def __init__(self) -> None:
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
                self.are_silent = self.are_silent and not _is_shown(item)
                return [*held, event]
            case ClientEffectEvent():
                self.are_silent = False
                return [event]
            case _:
                return [event]


def has_text(item: AssistantMessageItem) -> bool:
    return any(part.text.strip() for part in item.content)


def _is_text(event: ThreadItemUpdatedEvent) -> bool:
    return isinstance(event.update, AssistantMessageContentPartTextDelta) and bool(event.update.delta.strip())


def _is_shown(item: ThreadItem) -> bool:
    match item:
        case HiddenContextItem() | SDKHiddenContextItem():
            return False
        case WorkflowItem(workflow=workflow):
            return workflow.type != "reasoning"
        case _:
            return True
