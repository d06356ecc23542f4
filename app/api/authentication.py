"""From the request's headers to a RequestContext."""

from collections.abc import Awaitable, Callable

from fastapi import Request
from structlog.contextvars import bind_contextvars

from app.api.request_id import request_id_of
from app.auth.tokens import TokenVerifier
from app.context import RequestContext
from app.errors import Unauthorized

LONGEST_LOCALE = 35  # RFC 5646, section 4.4.1

Authenticate = Callable[[Request], Awaitable[RequestContext]]


def authenticated_by(verifier: TokenVerifier) -> Authenticate:
    async def authenticate(request: Request) -> RequestContext:
        """Raises Unauthorized without exactly one good bearer token."""
        headers = request.headers.getlist("authorization")
        if len(headers) != 1:
            raise Unauthorized
        scheme, _, token = headers[0].partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized
        user_id = verifier.user_id(token.strip())
        bind_contextvars(user_id=user_id)
        return RequestContext(
            user_id=user_id,
            request_id=request_id_of(request.scope),
            locale=_locale(request.headers.get("accept-language", "")),
        )

    return authenticate


def _locale(header: str) -> str | None:
    first = header.partition(",")[0].partition(";")[0].strip()
    acceptable = 0 < len(first) <= LONGEST_LOCALE and first.replace("-", "").isalnum() and first.isascii()
    return first if acceptable else None
