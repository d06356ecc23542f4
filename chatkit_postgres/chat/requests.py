"""Parses a request body. Errors name the field; where a user can cause the error, a readable sentence comes first."""

import json
import re
from dataclasses import dataclass
from typing import Any

from chatkit.actions import Action
from chatkit.types import (
    ChatKitReq,
    InputTranscribeReq,
    ItemsFeedbackReq,
    ItemsListReq,
    StructuredInputSubmission,
    ThreadsAddStructuredInputReq,
    ThreadsAddUserMessageReq,
    ThreadsCreateReq,
    ThreadsCustomActionReq,
    ThreadsListReq,
    ThreadsSyncCustomActionReq,
    ThreadsUpdateReq,
    UserMessageInput,
)
from pydantic import TypeAdapter, ValidationError

from chatkit_postgres import strict_json
from chatkit_postgres.errors import BadRequest, PayloadTooLarge, Unprocessable
from chatkit_postgres.validation import first_problem

MAX_GIVEN_TITLE = 500
MAX_FEEDBACK_IDS = 100
MAX_SHOWN_PATH = 200
VALUES_OF_A_RECORDING = 20
"""Maximum JSON values of a request with a recording, which is one large string."""
CLIENT_CONTEXT = ("userInfo", "pageContext")
MAX_PARTS = 100
"""Maximum parts of a message. A text with a few mentions has a dozen; each part costs time whenever it is read."""

# MediaRecorder names a type of video for recordings in a container that may hold both.
_AUDIO = re.compile(r"(audio/[a-z0-9.+-]{1,50}|video/(webm|mp4))( *; *[a-z]+=[\w.\"-]+)*", re.IGNORECASE)
# Built once: building it costs two milliseconds, using it two microseconds.
_requests: TypeAdapter[ChatKitReq] = TypeAdapter(ChatKitReq)


@dataclass(frozen=True)
class RequestLimits:
    """Limits of a request's content; its bytes are counted while the body is received."""

    depth: int = 32
    values: int = 10_000
    message_characters: int = 32_000
    page: int = 100
    attachments: int = 10
    """Maximum attachments of one message."""
    metadata_characters: int = 4000
    """Maximum characters of a client's ``userInfo`` and ``pageContext``."""
    bytes: int = 256 * 1024
    """Maximum bytes of a request without a recording."""


def parse_request(body: bytes, limits: RequestLimits) -> ChatKitReq:
    """Raises BadRequest for a body that is no JSON, Unprocessable for JSON that is no request, PayloadTooLarge for a
    large request without a recording."""
    is_large = len(body) > limits.bytes
    if not body or body.isspace():
        raise BadRequest("The request body is empty; it must be a JSON document.")
    try:
        max_values = min(limits.values, VALUES_OF_A_RECORDING) if is_large else limits.values
        document = strict_json.loads(body, max_depth=limits.depth, max_values=max_values)
    except strict_json.StrictJsonError as error:
        if is_large and isinstance(error, strict_json.TooComplex):
            raise PayloadTooLarge from None
        raise BadRequest(f"The request body must be a JSON document, but {error}.") from None
    unsafe = strict_json.path_to_unsafe_text(document)
    if unsafe is not None:
        path, held = unsafe
        raise Unprocessable(f"{path[-MAX_SHOWN_PATH:] or 'body'}: {held} is not allowed in text.")
    try:
        request = _requests.validate_python(document)
    except ValidationError as error:
        raise _refusal(error) from None
    if is_large and not isinstance(request, InputTranscribeReq):
        raise PayloadTooLarge
    _check(request, limits)
    return request


def client_context(request: ChatKitReq, limits: RequestLimits) -> dict[str, Any]:
    """The part of ``metadata`` that is information about the user and the current page. Raises Unprocessable if it is
    too long."""
    found = {name: request.metadata[name] for name in CLIENT_CONTEXT if request.metadata.get(name) is not None}
    if found and len(json.dumps(found, ensure_ascii=False)) > limits.metadata_characters:
        names = ", ".join(CLIENT_CONTEXT)
        raise Unprocessable(f"metadata: at most {limits.metadata_characters} characters of {names}.")
    return found


def _refusal(error: ValidationError) -> Unprocessable:
    problem = first_problem(error)
    if not problem.location and problem.kind == "union_tag_invalid":
        return Unprocessable("type: this operation is unknown.")
    if not problem.location and problem.kind == "union_tag_not_found":
        return Unprocessable("type: name the operation.")
    # The union prepends the operation to the path.
    path = problem.path(skip=1) or "body"
    return Unprocessable(f"{path[-MAX_SHOWN_PATH:]}: {problem.message[:MAX_SHOWN_PATH]}.")


def _check(request: ChatKitReq, limits: RequestLimits) -> None:  # noqa: C901 - one arm for each kind
    match request:
        case ThreadsCreateReq() | ThreadsAddUserMessageReq():
            _check_message(request.params.input, limits)
        case ThreadsUpdateReq():
            request.params.title = _checked_title(request.params.title)
        case ThreadsAddStructuredInputReq():
            _check_answers(request.params.input, limits)
        case ThreadsListReq() | ItemsListReq():
            if request.params.limit is not None and not 1 <= request.params.limit <= limits.page:
                raise Unprocessable(f"params.limit: 1 to {limits.page}.")
        case ItemsFeedbackReq():
            if not 1 <= len(request.params.item_ids) <= MAX_FEEDBACK_IDS:
                raise Unprocessable(f"params.item_ids: 1 to {MAX_FEEDBACK_IDS} ids.")
        case ThreadsCustomActionReq() | ThreadsSyncCustomActionReq():
            _check_action(request.params.action)
        case InputTranscribeReq():
            if not _AUDIO.fullmatch(request.params.mime_type):
                raise Unprocessable("params.mime_type: send a recording, such as audio/webm.")
        case _:
            pass


def _check_action(action: Action[str, Any]) -> None:
    # The SDK's default for a missing type is no text, but a type variable.
    if not isinstance(action.type, str):
        raise Unprocessable("params.action.type: name the action.")


def _checked_title(given: str) -> str:
    title = given.strip()
    if not title:
        raise Unprocessable("A title needs at least one character (params.title).")
    if len(title) > MAX_GIVEN_TITLE:
        raise Unprocessable(f"This title is too long: it may have {MAX_GIVEN_TITLE} characters (params.title).")
    return title


def _check_answers(submission: StructuredInputSubmission, limits: RequestLimits) -> None:
    length = sum(len(value) for answer in submission.answers.values() for value in answer.values)
    if length > limits.message_characters:
        raise Unprocessable(
            f"These answers are too long: they may have {limits.message_characters} characters (params.input.answers)."
        )


def _check_message(message: UserMessageInput, limits: RequestLimits) -> None:
    if not message.attachments and not any(part.text.strip() for part in message.content):
        raise Unprocessable("This message is empty (params.input.content).")
    if len(message.content) > MAX_PARTS:
        raise Unprocessable(f"params.input.content: at most {MAX_PARTS} parts.")
    length = sum(len(part.text) for part in message.content) + len(message.quoted_text or "")
    if length > limits.message_characters:
        raise Unprocessable(
            f"This message is too long: it may have {limits.message_characters} characters (params.input.content)."
        )
    if len(message.attachments) > limits.attachments:
        raise Unprocessable(
            f"These are too many files: a message may have {limits.attachments} (params.input.attachments)."
        )
    if len(set(message.attachments)) != len(message.attachments):
        raise Unprocessable("params.input.attachments: each attachment once.")
