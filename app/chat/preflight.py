"""What can be refused before a turn opens, so that a bad request changes nothing."""

from chatkit.types import (
    AttachmentsCreateReq,
    AttachmentsDeleteReq,
    ChatKitReq,
    InferenceOptions,
    ItemsFeedbackReq,
    ThreadsAddUserMessageReq,
    ThreadsCreateReq,
    ThreadsUpdateReq,
)

from app.assistant import Assistant, Choices
from app.context import RequestContext
from app.errors import NotSupported, Unprocessable
from app.store import DatabaseStore
from app.store.scope import check_active


async def preflight(
    request: ChatKitReq,
    context: RequestContext,
    store: DatabaseStore,
    assistant: Assistant,
    *,
    takes_attachments: bool,
) -> None:
    """Raises NotFound, ThreadLocked, ThreadClosed, Unprocessable or NotSupported."""
    match request:
        case ThreadsCreateReq() | ThreadsAddUserMessageReq():
            _check_options(request.params.input.inference_options, assistant.choices)
            attachments = request.params.input.attachments
            if attachments and isinstance(request, ThreadsAddUserMessageReq):
                # The SDK binds attachments to the thread before the statement that would refuse the message.
                check_active(await store.load_thread(request.params.thread_id, context))
            for attachment_id in attachments:
                await store.load_attachment(attachment_id, context)
        case ItemsFeedbackReq(params=params) | ThreadsUpdateReq(params=params):
            check_active(await store.load_thread(params.thread_id, context))
        case AttachmentsCreateReq() | AttachmentsDeleteReq() if not takes_attachments:
            raise NotSupported("This server does not take attachments.")
        case _:
            pass


def _check_options(options: InferenceOptions, choices: Choices) -> None:
    if options.model is not None and options.model not in choices.models:
        raise Unprocessable("params.input.inference_options.model: this model cannot be chosen.")
    if options.tool_choice is not None and options.tool_choice.id not in choices.tools:
        raise Unprocessable("params.input.inference_options.tool_choice.id: this tool cannot be chosen.")
