"""A request body becomes one of the protocol's requests, or an error that names the field."""

from dataclasses import dataclass

from chatkit.types import (
    ChatKitReq,
    ItemsFeedbackReq,
    ItemsListReq,
    StructuredInputSubmission,
    ThreadsAddStructuredInputReq,
    ThreadsAddUserMessageReq,
    ThreadsCreateReq,
    ThreadsListReq,
    ThreadsUpdateReq,
    UserMessageInput,
)
from pydantic import TypeAdapter, ValidationError

from app import strict_json
from app.errors import BadRequest, Unprocessable

LONGEST_GIVEN_TITLE = 500
MOST_FEEDBACK_IDS = 100
LONGEST_SHOWN_PATH = 200
MOST_PARTS = 100
"""Of a message. A text with a few mentions has a dozen; each part costs more than its bytes whenever it is read."""

# Built once: building it costs two milliseconds, using it two microseconds.
_requests: TypeAdapter[ChatKitReq] = TypeAdapter(ChatKitReq)


@dataclass(frozen=True)
class RequestLimits:
    """What a request may hold; its bytes are counted before it comes here."""

    depth: int = 32
    values: int = 10_000
    message_characters: int = 32_000
    page: int = 100


def parse_request(body: bytes, limits: RequestLimits) -> ChatKitReq:
    """Raises BadRequest for what is not JSON, Unprocessable for JSON that is not a request."""
    if not body.strip():
        raise BadRequest("The request body is empty; it must be a JSON document.")
    try:
        document = strict_json.loads(body, most_depth=limits.depth, most_values=limits.values)
    except strict_json.StrictJsonError as error:
        raise BadRequest(f"The request body must be a JSON document, but {error}.") from None
    unsafe = strict_json.path_to_unsafe_text(document)
    if unsafe is not None:
        path, held = unsafe
        raise Unprocessable(f"{path[-LONGEST_SHOWN_PATH:] or 'body'}: {held} is not allowed in text.")
    try:
        request = _requests.validate_python(document)
    except ValidationError as error:
        raise _refusal(error) from None
    _check(request, limits)
    return request


def _refusal(error: ValidationError) -> Unprocessable:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if not first["loc"] and first["type"] == "union_tag_invalid":
        return Unprocessable("type: this operation is unknown.")
    if not first["loc"] and first["type"] == "union_tag_not_found":
        return Unprocessable("type: name the operation.")
    # The first part is the operation, which the union puts in front of the path.
    path = ".".join(str(part) for part in first["loc"][1:]) or "body"
    # Some of pydantic's sentences repeat what was sent.
    return Unprocessable(f"{path[-LONGEST_SHOWN_PATH:]}: {first['msg'][:LONGEST_SHOWN_PATH]}.")


def _check(request: ChatKitReq, limits: RequestLimits) -> None:
    match request:
        case ThreadsCreateReq() | ThreadsAddUserMessageReq():
            _check_message(request.params.input, limits)
        case ThreadsUpdateReq():
            title = request.params.title.strip()
            if not title:
                raise Unprocessable("params.title: a title needs at least one character.")
            if len(title) > LONGEST_GIVEN_TITLE:
                raise Unprocessable(f"params.title: at most {LONGEST_GIVEN_TITLE} characters.")
            request.params.title = title
        case ThreadsAddStructuredInputReq():
            _check_answers(request.params.input, limits)
        case ThreadsListReq() | ItemsListReq():
            if request.params.limit is not None and not 1 <= request.params.limit <= limits.page:
                raise Unprocessable(f"params.limit: 1 to {limits.page}.")
        case ItemsFeedbackReq():
            if not 1 <= len(request.params.item_ids) <= MOST_FEEDBACK_IDS:
                raise Unprocessable(f"params.item_ids: 1 to {MOST_FEEDBACK_IDS} ids.")
        case _:
            pass


def _check_answers(submission: StructuredInputSubmission, limits: RequestLimits) -> None:
    length = sum(len(value) for answer in submission.answers.values() for value in answer.values)
    if length > limits.message_characters:
        raise Unprocessable(f"params.input.answers: at most {limits.message_characters} characters.")


def _check_message(message: UserMessageInput, limits: RequestLimits) -> None:
    if not message.attachments and not any(part.text.strip() for part in message.content):
        raise Unprocessable("params.input.content: the message is empty.")
    if len(message.content) > MOST_PARTS:
        raise Unprocessable(f"params.input.content: at most {MOST_PARTS} parts.")
    length = sum(len(part.text) for part in message.content) + len(message.quoted_text or "")
    if length > limits.message_characters:
        raise Unprocessable(f"params.input.content: at most {limits.message_characters} characters.")
    if len(set(message.attachments)) != len(message.attachments):
        raise Unprocessable("params.input.attachments: each attachment once.")
