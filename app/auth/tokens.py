"""A bearer token becomes a user id, or one indistinguishable refusal.

python-jose checks the signature and the time claims; what it leaves out is checked here.
"""

import time
from dataclasses import dataclass
from typing import Any

from jose import jwk, jwt
from jose.exceptions import JOSEError

from app.errors import Unauthorized

LONGEST_TOKEN_BYTES = 8 * 1024
LONGEST_USER_ID = 255


@dataclass(frozen=True)
class TokenRules:
    """What a token must say. ``key`` is the shared secret of the HMAC algorithms."""

    key: str
    algorithms: tuple[str, ...] = ("HS256",)
    issuer: str | None = None
    audience: str | None = None
    user_claim: str = "sub"
    leeway_seconds: int = 30


class TokenVerifier:
    def __init__(self, rules: TokenRules) -> None:
        self._rules = rules
        # Key objects, not the string: python-jose would look for JSON or PEM in a string.
        self._keys = {algorithm: jwk.HMACKey(rules.key, algorithm) for algorithm in rules.algorithms}

    def user_id(self, token: str) -> str:
        """The user a token speaks for. Anything unclean raises Unauthorized, always the same."""
        try:
            return self._verified(token)
        except Unauthorized:
            raise
        # A nested header raises RecursionError before any signature is looked at; a malformed claim whatever
        # it likes. None of it is the caller's business.
        except Exception:  # noqa: BLE001
            raise Unauthorized from None

    def _verified(self, token: str) -> str:
        if len(token) > LONGEST_TOKEN_BYTES or not token.isascii() or token.count(".") != 2:
            raise Unauthorized
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        key = self._keys.get(algorithm) if isinstance(algorithm, str) else None
        if key is None or "crit" in header:
            raise Unauthorized
        rules = self._rules
        claims = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=rules.audience,
            issuer=rules.issuer,
            options={
                "require_exp": True,
                "require_iss": rules.issuer is not None,
                "require_aud": rules.audience is not None,
                # A token that names an audience is not for us unless it names ours (RFC 7519, section 4.1.3).
                "verify_aud": True,
                "verify_at_hash": False,
                "leeway": rules.leeway_seconds,
            },
        )
        user_id = claims.get(rules.user_claim)
        if not is_user_id(user_id):
            raise Unauthorized
        return str(user_id)


def is_user_id(value: Any) -> bool:
    """1 to 255 printable characters, with no space at either end."""
    return (
        isinstance(value, str) and 1 <= len(value) <= LONGEST_USER_ID and value.isprintable() and value == value.strip()
    )


def mint(rules: TokenRules, user_id: str, *, seconds: int) -> str:
    """A token for a user, for development and tests. Raises ValueError for an impossible user id."""
    if not is_user_id(user_id):
        raise ValueError("a user id is 1 to 255 printable characters")
    now = int(time.time())
    claims: dict[str, Any] = {rules.user_claim: user_id, "iat": now, "exp": now + seconds}
    if rules.issuer is not None:
        claims["iss"] = rules.issuer
    if rules.audience is not None:
        claims["aud"] = rules.audience
    try:
        token: str = jwt.encode(claims, rules.key, algorithm=rules.algorithms[0])
    except JOSEError as error:
        raise ValueError("cannot sign with this key") from error
    return token
