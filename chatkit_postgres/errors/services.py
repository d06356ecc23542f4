"""Server errors: temporary (503) and unsupported operations (501)."""

from chatkit_postgres.errors.base import ChatError


class Unavailable(ChatError):
    status = 503
    code = "unavailable"
    sentence = "The service is busy or restarting. Please try again in a moment."
    retry = True
    retry_after_seconds = 2


class Draining(Unavailable):
    code = "draining"


class ServerFull(Unavailable):
    """As many turns run in this process as it may run."""

    code = "server_full"
    retry_after_seconds = 5


class NotStarted(Unavailable):
    """The application is mounted in a host that does not run its lifespan."""

    code = "not_started"


class Interrupted(Unavailable):
    """The process that ran the turn died or stalled."""

    code = "interrupted"
    sentence = "The answer was interrupted. Please try again."


class KeysUnavailable(Unavailable):
    """No key of the issuer is known yet, or the last known ones are too old to be trusted."""

    code = "keys_unavailable"
    retry_after_seconds = 10


class StorageUnavailable(Unavailable):
    """The file storage could not be reached, or is full."""

    code = "storage_unavailable"

    def __init__(self, sentence: str | None = None, *, reason: str | None = None) -> None:
        """``reason``: for the operator; the client does not receive it."""
        super().__init__(sentence)
        self.reason = reason


class DatabaseUnavailable(Unavailable):
    """The database could not be reached, or lacked resources, after all allowed retries."""

    code = "database_unavailable"


class NotSupported(ChatError):
    status = 501
    code = "not_supported"
    sentence = "This server does not support that."
