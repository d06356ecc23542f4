"""Handles a widget action whose response is one changed item, without a stream."""

from contextlib import nullcontext
from dataclasses import replace

from chatkit.errors import CustomStreamError
from chatkit.types import SyncCustomActionResponse, ThreadCustomActionParams

from chatkit_postgres.assistant import Assistant
from chatkit_postgres.attachments import Attachments
from chatkit_postgres.chat.merge import LiveContext
from chatkit_postgres.chat.operations.actions import load_action
from chatkit_postgres.chat.pipeline.generated_images import holds_image
from chatkit_postgres.chat.sanitize import clean_model
from chatkit_postgres.chat.wire import is_hidden
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import AssistantRefused, ChatError, InternalError
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.refusals import check_active

logger = get_logger(__name__)


async def act_at_once(
    store: DatabaseStore,
    assistant: Assistant,
    attachments: Attachments,
    params: ThreadCustomActionParams,
    context: RequestContext,
) -> SyncCustomActionResponse:
    """Save the item that the action changed, and return it."""
    thread, action = await load_action(store, assistant, params, context)
    check_active(thread)
    context = replace(context, files=attachments.of(context))
    try:
        runs = assistant.runs_of(context)
        with runs.following() if runs is not None else nullcontext():
            changed = await action.outcome(LiveContext.of(thread, store, context))
    except CustomStreamError as error:
        raise error if isinstance(error, ChatError) else AssistantRefused(error.message) from None
    except Exception as error:  # noqa: BLE001 - whatever an assistant's code raises
        log_failure(logger, "action_failed", error)
        raise InternalError from None
    if changed is not None:
        if holds_image(changed):
            logger.error("action_failed", cure="an image is made by an action that streams")
            raise InternalError
        changed = clean_model(changed.model_copy(update={"thread_id": thread.id}))
        await store.items.change(thread.id, changed, context)
    return SyncCustomActionResponse(updated_item=None if is_hidden(changed) else changed)
