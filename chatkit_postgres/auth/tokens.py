"""Verifies bearer tokens; every invalid token gets the same refusal.

python-jose checks the signature and the time claims. This module also checks canonical base64, duplicate members,
critical extensions, the type of the token, the types of claims, and an audience where none is configured.
"""

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jose import jwt
from jose.exceptions import JOSEError, JWTError

from chatkit_postgres.auth.daily_tokens import DailyTokens
from chatkit_postgres.auth.keys import Keys
from chatkit_postgres.auth.staff import StaffClaim
from chatkit_postgres.auth.user import User, is_user_id, storable_claims
from chatkit_postgres.errors import KeysUnavailable, Unauthorized
from chatkit_postgres.strict_json import loads

MAX_TOKEN_BYTES = 8 * 1024
MAX_KEY_ID = 255

# RFC 7519 and RFC 9068; a token without a type counts as the first.
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
# Each of them changes the signed bytes or the kind of token, and none is supported.
_FOREIGN_HEADERS = frozenset({"crit", "b64", "zip", "enc"})
_LATEST_TIME = 2**53


@dataclass(frozen=True)
class TokenRules:
    """The requirements for a token."""

    algorithms: tuple[str, ...] | None = ("HS256",)
    """None: the algorithms of the keys in the key set."""
    issuer: str | None = None
    audience: str | None = None
    user_claim: str = "sub"
    leeway_seconds: int = 30
    stored_claims: tuple[str, ...] = ()
    """Claims to store for each user, such as name, email or roles."""
    staff_claim: StaffClaim | None = None
    daily_tokens: DailyTokens | None = None


class TokenVerifier:
    def __init__(self, rules: TokenRules, keys: Keys) -> None:
        self._rules = rules
        self._keys = keys

    async def identify(self, token: str) -> User:
        """The user of a token. Raises Unauthorized for every invalid token, whose ``fault`` alone tells them apart, and
        KeysUnavailable while the issuer's keys are unknown."""
        try:
            return await self._verified(token)
        except (Unauthorized, KeysUnavailable):
            raise
        except JWTError:
            # The claims have been checked: by now it can only be this.
            raise Unauthorized(fault="signature") from None
        # Malformed claims can raise any exception, deep nesting RecursionError. Callers see one refusal for all.
        except Exception:  # noqa: BLE001
            raise Unauthorized(fault="malformed") from None

    async def _verified(self, token: str) -> User:
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise Unauthorized(fault="malformed")
        header_part, claims_part, signature_part = token.split(".")
        header, claims = _read(header_part), _read(claims_part)
        _bytes_of(signature_part)
        algorithm, key_id = self._checked_header(header)
        self._check_claims(claims)
        key = await self._keys.key_for(algorithm, key_id)
        rules = self._rules
        jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=rules.audience,
            issuer=rules.issuer,
            options={
                "require_exp": True,
                "require_iss": rules.issuer is not None,
                "require_aud": rules.audience is not None,
                "verify_aud": True,
                # The claim hashes an access token that we do not receive.
                "verify_at_hash": False,
                "leeway": rules.leeway_seconds,
            },
        )
        stored = {name: claims[name] for name in rules.stored_claims if name in claims}
        is_staff = rules.staff_claim is not None and rules.staff_claim.is_met_by(claims)
        tokens_per_day = rules.daily_tokens.of(claims) if rules.daily_tokens is not None else None
        return User(claims[rules.user_claim], storable_claims(stored), is_staff, tokens_per_day)

    def _checked_header(self, header: dict[str, Any]) -> tuple[str, str | None]:
        algorithm, kind, key_id = header.get("alg"), header.get("typ", "JWT"), header.get("kid")
        allowed = self._rules.algorithms
        if not isinstance(algorithm, str) or (allowed is not None and algorithm not in allowed):
            raise Unauthorized(fault="algorithm")
        if not isinstance(kind, str) or kind.lower() not in _TYPES or _FOREIGN_HEADERS & header.keys():
            raise Unauthorized(fault="kind of token")
        if "kid" in header and not (isinstance(key_id, str) and 1 <= len(key_id) <= MAX_KEY_ID):
            raise Unauthorized(fault="unknown key")
        return algorithm, key_id

    def _check_claims(self, claims: dict[str, Any]) -> None:
        """Check types that python-jose converts or ignores, and what it says only in sentences. The signature is not
        verified yet."""
        rules, now = self._rules, time.time()
        if not all(_is_time(claims[name]) for name in ("exp", "nbf", "iat") if name in claims) or "exp" not in claims:
            raise Unauthorized(fault="times")
        if claims["exp"] < now - rules.leeway_seconds:
            raise Unauthorized(fault="expired")
        if max(claims.get("nbf", 0), claims.get("iat", 0)) > now + rules.leeway_seconds:
            raise Unauthorized(fault="not valid yet")
        if not all(isinstance(claims[name], str) for name in ("iss", "sub", "jti") if name in claims):
            raise Unauthorized(fault="malformed")
        if rules.issuer is not None and claims.get("iss") != rules.issuer:
            raise Unauthorized(fault="issuer")
        if not _is_for(claims, rules.audience):
            raise Unauthorized(fault="audience")
        if not is_user_id(claims.get(rules.user_claim)):
            raise Unauthorized(fault="user claim")


def _is_for(claims: dict[str, Any], audience: str | None) -> bool:
    """Whether a token is for us: not if it names an audience and we have none (RFC 7519, section 4.1.3)."""
    if audience is None:
        return "aud" not in claims
    named = claims.get("aud")
    is_one_of = isinstance(named, list) and audience in named and all(isinstance(one, str) for one in named)
    return named == audience or is_one_of


def _read(part: str) -> dict[str, Any]:
    document = loads(_bytes_of(part), max_depth=8, max_values=500)
    if not isinstance(document, dict):
        raise Unauthorized(fault="malformed")
    return document


def _bytes_of(part: str) -> bytes:
    """Decode canonical base64url. Raises ValueError for padding, spare bits or another alphabet."""
    decoded = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    if not part or base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != part:
        raise ValueError("not canonical")
    return decoded


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LATEST_TIME


def mint(
    secret: str, user_id: str, *, seconds: int, rules: TokenRules | None = None, more: Mapping[str, Any] | None = None
) -> str:
    """Sign a token for a user, for development and tests, with ``more`` claims. Raises ValueError for an invalid user
    id, and for rules that require another key than a shared secret."""
    rules = rules or TokenRules()
    if not is_user_id(user_id):
        raise ValueError("a user id is 1 to 255 printable characters")
    now = int(time.time())
    claims: dict[str, Any] = {**(more or {}), rules.user_claim: user_id, "iat": now, "exp": now + seconds}
    if rules.issuer is not None:
        claims["iss"] = rules.issuer
    if rules.audience is not None:
        claims["aud"] = rules.audience
    try:
        token: str = jwt.encode(claims, secret, algorithm=(rules.algorithms or ("HS256",))[0])
    except JOSEError as error:
        raise ValueError("cannot sign with this key") from error
    return token
