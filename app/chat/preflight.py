"""What can be refused before a turn opens, so that a bad request changes nothing."""

from typing import Any

from chatkit.actions import Action
from chatkit.types import (
    AttachmentsCreateReq,
    AttachmentsDeleteReq,
    ChatKitReq,
    InputTranscribeReq,
    ThreadCustomActionParams,
    ThreadsAddUserMessageReq,
    ThreadsCreateReq,
    ThreadsCustomActionReq,
    ThreadsSyncCustomActionReq,
    WidgetItem,
)

from app.context import RequestContext
from app.errors import NotSupported, Unprocessable
from app.store import DatabaseStore


async def preflight(
    request: ChatKitReq, context: RequestContext, store: DatabaseStore, *, takes_attachments: bool
) -> None:
    """Raises NotFound, Unprocessable or NotSupported."""
    match request:
        case ThreadsCreateReq() | ThreadsAddUserMessageReq():
            for attachment_id in request.params.input.attachments:
                await store.load_attachment(attachment_id, context)
        case ThreadsCustomActionReq(params=params) | ThreadsSyncCustomActionReq(params=params):
            await _check_action(params, context, store)
        case AttachmentsCreateReq() | AttachmentsDeleteReq() if not takes_attachments:
            raise NotSupported("This server does not take attachments.")
        case InputTranscribeReq():
            raise NotSupported("This server does not transcribe speech.")
        case _:
            pass


def unknown_action(action: Action[str, Any]) -> Unprocessable:
    return Unprocessable(f"params.action.type: this assistant has no action {action.type[:100]!r}.")


async def _check_action(params: ThreadCustomActionParams, context: RequestContext, store: DatabaseStore) -> None:
    await store.load_thread(params.thread_id, context)
    if params.item_id is not None:
        sender = await store.load_item(params.thread_id, params.item_id, context)
        if not isinstance(sender, WidgetItem):
            raise Unprocessable("params.item_id: this item is not a widget.")
    raise unknown_action(params.action)
