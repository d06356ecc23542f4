"""Turns a request's credentials into a RequestContext."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Request, params
from multidict import CIMultiDict, CIMultiDictProxy
from starlette.exceptions import HTTPException
from structlog.contextvars import bind_contextvars

from chatkit_postgres.api.public_url import PublicUrl
from chatkit_postgres.api.rate_limit import RateLimit
from chatkit_postgres.api.request_id import request_id_of
from chatkit_postgres.auth.daily_tokens import DailyTokens
from chatkit_postgres.auth.disabled_users import DisabledUsers
from chatkit_postgres.auth.staff import StaffClaim
from chatkit_postgres.auth.tokens import TokenVerifier
from chatkit_postgres.auth.user import User, is_user_id, storable_claims
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import (
    ChatError,
    Forbidden,
    ForeignOrigin,
    InternalError,
    NotFound,
    NotStarted,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UserDisabled,
)
from chatkit_postgres.observability.logs import get_logger

MAX_DIGITS = 6
MAX_WARNINGS = 20
MAX_LOCALE = 35  # RFC 5646, section 4.4.1

logger = get_logger(__name__)

Authenticator = Callable[[Request], Awaitable[RequestContext]]
"""Returns the context of an authenticated request; raises for any other. ``Authentication`` is one."""
IdentifyUser = Callable[[Request], Awaitable[User | None]]
"""Returns only the user of a request; None for an anonymous one."""

UNSAFE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True)
class CookieRules:
    """The cookie that may hold the token, and the origins whose pages may use that cookie."""

    name: str
    origins: frozenset[str]


def user_of_token(verifier: TokenVerifier, cookie: CookieRules | None) -> IdentifyUser:
    """Identify users by token. Raises Unauthorized without exactly one valid token, and ForeignOrigin."""

    async def identify(request: Request) -> User:
        return await verifier.identify(_token(request, cookie))

    return identify


def user_of_application(
    identify_user: IdentifyUser,
    origins: frozenset[str],
    public_url: PublicUrl,
    staff_claim: StaffClaim | None = None,
    daily_tokens: DailyTokens | None = None,
) -> IdentifyUser:
    """Identify users with a function of the host. Browsers add the host's cookie, or other credentials, to requests of
    any page, so a browser's unsafe requests must come from the host's own origin, or one of ``origins``. Raises
    ForeignOrigin."""
    warned_of = set[str]()

    async def identify(request: Request) -> User | None:
        is_browser = "origin" in request.headers or "sec-fetch-site" in request.headers
        if request.method in UNSAFE_METHODS and is_browser:
            parts = urlsplit(public_url(request))
            _check_origin(request, origins | {f"{parts.scheme}://{parts.netloc}"})
        user = await _asked(identify_user, request)
        if user is None:
            return None
        if not isinstance(user, User) or type(user.id) is not str or not is_user_id(user.id) or not _has_tokens(user):
            cure = (
                "return a chatkit_postgres.auth.User; its id is a str of 1 to 255 printable characters, not padded, "
                "and its tokens_per_day an int that is not negative, or None"
            )
            logger.error("user_refused", returned=type(user).__name__, cure=cure)
            raise InternalError
        claims = user.claims or {}
        stored = storable_claims(claims)
        # Once for each name, and no more often if the names are somebody's to choose.
        if len(warned_of) < MAX_WARNINGS and (dropped := claims.keys() - stored.keys() - warned_of):
            warned_of.update(dropped)
            cure = "claims are strings up to 1,000 characters, numbers, booleans and lists of strings"
            logger.warning("claims_dropped", claims=sorted(map(str, dropped)), cure=cure)
        is_staff = user.is_staff is True or (staff_claim is not None and staff_claim.is_met_by(claims))
        tokens_per_day = user.tokens_per_day
        if tokens_per_day is None and daily_tokens is not None:
            tokens_per_day = daily_tokens.of(claims)
        return User(user.id, stored, is_staff, tokens_per_day)

    return identify


def problem_of(identify_user: IdentifyUser) -> str | None:
    """Why a function of the host cannot be called with a request; None if it can."""
    try:
        # Of a decorated function, it is the decorator's that is called.
        signature = inspect.signature(identify_user, follow_wrapped=False)
    except ValueError:
        return None
    try:
        signature.bind(None)
    except TypeError:
        return "it is called with the request alone"
    injected = [p.name for p in signature.parameters.values() if type(p.default).__module__ == params.__name__]
    if injected:
        return f"what FastAPI injects is not resolved here ({', '.join(injected)}): call what you need in the function"
    return None


async def _asked(identify_user: IdentifyUser, request: Request) -> User | None:
    """The host's answer. Raises the nearest of our errors, with the host's sentence, for an HTTPException."""
    try:
        identified = identify_user(request)
        if not inspect.isawaitable(identified):
            logger.error("user_refused", returned=type(identified).__name__, cure="write async def authenticate")
            raise InternalError
        return await identified
    except HTTPException as error:
        logger.info("authenticate_refused", status=error.status_code)
        raise _refusal_of(error) from error


def _refusal_of(error: HTTPException) -> ChatError:
    sentence = error.detail if isinstance(error.detail, str) else None
    match error.status_code:
        case 404:
            return NotFound(sentence)
        case 429:
            wait = next((value for name, value in (error.headers or {}).items() if name.lower() == "retry-after"), "")
            return TooManyRequests(
                retry_after_seconds=int(wait) if wait.isdecimal() and len(wait) < MAX_DIGITS else None
            )
        case status if status >= 500:
            return Unavailable(sentence)
        case status if status == 401 or status < 400:
            # A redirect leads to a page where a person signs in; this is an API.
            return Unauthorized(sentence if status == 401 else None)
        case _:
            return Forbidden(sentence)


@dataclass(frozen=True)
class Authentication:
    """Builds the RequestContext of a request: checks the user, the disabled users and the rate limit."""

    identify: IdentifyUser
    disabled: DisabledUsers
    rate_limit: RateLimit
    public_url: PublicUrl
    is_started: Callable[[], bool]
    context_headers: tuple[str, ...] = ()

    async def __call__(self, request: Request) -> RequestContext:
        """Raises NotStarted, Unauthorized, ForeignOrigin, UserDisabled or TooManyRequests."""
        user = await self.user_of(request)
        await self.rate_limit.spend(user.id)
        return RequestContext(
            user_id=user.id,
            request_id=request_id_of(request.scope),
            public_url=self.public_url(request),
            locale=_locale(request.headers.get("accept-language", "")),
            claims=user.claims,
            is_staff=user.is_staff,
            tokens_per_day=user.tokens_per_day,
            headers=self._headers(request),
        )

    async def user_of(self, request: Request) -> User:
        """The user of a request that is not counted. Raises NotStarted, Unauthorized, ForeignOrigin or UserDisabled."""
        self.check_started()
        user = await self.identify(request)
        if user is None:
            raise Unauthorized(fault="nobody is signed in")
        bind_contextvars(user_id=user.id)
        if await self.disabled.includes(user.id):
            raise UserDisabled
        return user

    def check_started(self) -> None:
        """Raises NotStarted if a host mounts our application and does not run its lifespan."""
        if not self.is_started():
            logger.error("not_started", cure="run chatkit_postgres.lifespan(chat) in the lifespan of your application")
            raise NotStarted

    def _headers(self, request: Request) -> Mapping[str, str]:
        """The headers that an assistant may read; repeated ones are joined by commas (RFC 9110, 5.3)."""
        given = {name: ", ".join(request.headers.getlist(name)) for name in self.context_headers}
        return CIMultiDictProxy(CIMultiDict({name: value for name, value in given.items() if value}))


def _has_tokens(user: User) -> bool:
    """Whether ``tokens_per_day`` is what it may be."""
    tokens = user.tokens_per_day
    return tokens is None or (type(tokens) is int and 0 <= tokens < 2**53)


def _token(request: Request, cookie: CookieRules | None) -> str:
    """The token of the Authorization header or of the cookie. Both may be present if they are equal."""
    headers = request.headers.getlist("authorization")
    cookies = _cookies(request, cookie.name) if cookie is not None else []
    if len(headers) > 1 or len(set(cookies)) > 1:
        raise Unauthorized(fault="several tokens")
    if headers:
        scheme, _, token = headers[0].partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized(fault="not a bearer token")
        if any(found != token.strip() for found in cookies):
            raise Unauthorized(fault="several tokens")
        return token.strip()
    if cookie is None or not cookies:
        raise Unauthorized(fault="no token")
    _check_origin(request, cookie.origins)
    return cookies[0]


def _cookies(request: Request, name: str) -> list[str]:
    """All values of a cookie: a page on a sibling domain may have set one of the same name, which may come first."""
    pairs = (pair.partition("=") for header in request.headers.getlist("cookie") for pair in header.split(";"))
    return [value.strip().strip('"') for found, _, value in pairs if found.strip() == name]


def _check_origin(request: Request, origins: frozenset[str]) -> None:
    """Check the page that sent the request, because browsers add the cookie to requests of any page."""
    given = request.headers.getlist("origin")
    if len(given) == 1 and given[0] in origins:
        return
    # Browsers send this also where they send no Origin, or one that differs from ours because of a proxy.
    if request.headers.getlist("sec-fetch-site") == ["same-origin"]:
        return
    raise ForeignOrigin


def _locale(header: str) -> str | None:
    """The preferred language; of equally preferred ones, the first (RFC 9110, 12.5.4)."""
    wanted = [(_weight(weight), tag.strip()) for tag, _, weight in (part.partition(";") for part in header.split(","))]
    named = [(weight, tag) for weight, tag in wanted if weight > 0 and _is_locale(tag)]
    return max(named, key=lambda pair: pair[0])[1] if named else None


def _is_locale(tag: str) -> bool:
    return 0 < len(tag) <= MAX_LOCALE and tag.replace("-", "").isalnum() and tag.isascii()


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1.0
    try:
        return float(value) if name.strip().lower() == "q" else 0.0
    except ValueError:
        return 0.0
