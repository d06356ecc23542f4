"""From the request's headers to a RequestContext."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request
from structlog.contextvars import bind_contextvars

from chatkit_postgres.api.public_url import PublicUrl
from chatkit_postgres.api.rate_limit import RateLimit
from chatkit_postgres.api.request_id import request_id_of
from chatkit_postgres.auth.disabled_users import DisabledUsers
from chatkit_postgres.auth.tokens import TokenVerifier
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import ForeignOrigin, Unauthorized, UserDisabled

LONGEST_LOCALE = 35  # RFC 5646, section 4.4.1

Authenticate = Callable[[Request], Awaitable[RequestContext]]


@dataclass(frozen=True)
class CookieRules:
    """The cookie that may hold the token, and the pages that may use it."""

    name: str
    origins: frozenset[str]


def authenticated_by(
    verifier: TokenVerifier,
    disabled: DisabledUsers,
    rate_limit: RateLimit,
    cookie: CookieRules | None,
    public_url: PublicUrl,
) -> Authenticate:
    async def authenticate(request: Request) -> RequestContext:
        """Raises Unauthorized without exactly one good token, ForeignOrigin, UserDisabled or TooManyRequests."""
        identity = await verifier.identify(_token(request, cookie))
        bind_contextvars(user_id=identity.user_id)
        if await disabled.includes(identity.user_id):
            raise UserDisabled
        await rate_limit.spend(identity.user_id)
        return RequestContext(
            user_id=identity.user_id,
            request_id=request_id_of(request.scope),
            public_url=public_url(request),
            locale=_locale(request.headers.get("accept-language", "")),
            claims=identity.claims,
        )

    return authenticate


def _token(request: Request, cookie: CookieRules | None) -> str:
    """From the one Authorization header, or else from the cookie. Both may be there if they say the same."""
    headers = request.headers.getlist("authorization")
    cookies = _cookies(request, cookie.name) if cookie is not None else []
    if len(headers) > 1 or len(set(cookies)) > 1:
        raise Unauthorized
    if headers:
        scheme, _, token = headers[0].partition(" ")
        if scheme.lower() != "bearer" or any(found != token.strip() for found in cookies):
            raise Unauthorized
        return token.strip()
    if cookie is None or not cookies:
        raise Unauthorized
    _check_origin(request, cookie.origins)
    return cookies[0]


def _cookies(request: Request, name: str) -> list[str]:
    """Every value the name has: a page on a sibling domain may have set another beside ours, and it may come first."""
    pairs = (pair.partition("=") for header in request.headers.getlist("cookie") for pair in header.split(";"))
    return [value.strip().strip('"') for found, _, value in pairs if found.strip() == name]


def _check_origin(request: Request, origins: frozenset[str]) -> None:
    """A browser adds the cookie for whichever page asks, and tells which page it was."""
    given = request.headers.getlist("origin")
    if len(given) == 1 and given[0] in origins:
        return
    # What browsers say where they send no Origin, or one that a proxy in front has another name for.
    if request.headers.getlist("sec-fetch-site") == ["same-origin"]:
        return
    raise ForeignOrigin


def _locale(header: str) -> str | None:
    """The one that is wanted most; of several, the first (RFC 9110, 12.5.4)."""
    wanted = [(_weight(weight), tag.strip()) for tag, _, weight in (part.partition(";") for part in header.split(","))]
    named = [(weight, tag) for weight, tag in wanted if weight > 0 and _is_locale(tag)]
    return max(named, key=lambda pair: pair[0])[1] if named else None


def _is_locale(tag: str) -> bool:
    return 0 < len(tag) <= LONGEST_LOCALE and tag.replace("-", "").isalnum() and tag.isascii()


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1.0
    try:
        return float(value) if name.strip().lower() == "q" else 0.0
    except ValueError:
        return 0.0
