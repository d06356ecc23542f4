"""Checks a request before its turn opens, so that a refused request changes nothing."""

from chatkit.types import (
    ChatKitReq,
    InferenceOptions,
    ItemsFeedbackReq,
    ThreadsAddUserMessageReq,
    ThreadsCreateReq,
    ThreadsUpdateReq,
)

from chatkit_postgres.assistant import Assistant, Choices
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import AttachmentUnavailable, Unprocessable
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.store.refusals import check_active


async def preflight(request: ChatKitReq, context: RequestContext, store: DatabaseStore, assistant: Assistant) -> None:
    """Raises NotFound, ThreadLocked, ThreadClosed, Unprocessable or AttachmentUnavailable."""
    match request:
        case ThreadsCreateReq() | ThreadsAddUserMessageReq():
            message = request.params.input
            _check_options(message.inference_options, assistant.choices)
            if message.attachments:
                await _check_attachments(message.attachments, context, store)
        case ItemsFeedbackReq(params=params) | ThreadsUpdateReq(params=params):
            check_active(await store.load_thread(params.thread_id, context))
        case _:
            pass


async def _check_attachments(attachment_ids: list[str], context: RequestContext, store: DatabaseStore) -> None:
    """Refuse early, before anything is written; the statement that opens the turn checks again."""
    found = await store.attachments.load_files(attachment_ids, context)
    if any(file.state != "ready" or file.session_id is not None for file in found):
        raise AttachmentUnavailable
    if context.session is not None:
        context.session.attachments = {file.attachment.id: file.attachment for file in found}


def _check_options(options: InferenceOptions, choices: Choices) -> None:
    if options.model is not None and not choices.allows_model(options.model):
        raise Unprocessable("params.input.inference_options.model: this model cannot be chosen.")
    if options.tool_choice is not None and not choices.allows_tool(options.tool_choice.id):
        raise Unprocessable("params.input.inference_options.tool_choice.id: this tool cannot be chosen.")
