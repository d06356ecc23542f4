"""The base class of all errors."""

from typing import ClassVar

from chatkit.errors import CustomStreamError


class ChatError(CustomStreamError):
    """An error whose message a user may read. Details belong in the log, under the request id."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    sentence: ClassVar[str] = "Something went wrong on our side."
    retry: ClassVar[bool] = False
    retry_after_seconds: int | None = None

    def __init__(self, sentence: str | None = None) -> None:
        super().__init__(sentence or self.sentence, allow_retry=self.retry)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class InternalError(ChatError):
    retry = True
