"""Verification keys: a shared secret, or a set of public keys (JWKS, RFC 7517) by URL or file."""

import asyncio
import base64
import binascii
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from jose import jwk
from jose.backends.base import Key

from chatkit_postgres.auth import public_keys
from chatkit_postgres.auth.algorithms import ED25519_NAMES, FAMILIES, PSS_NAMES
from chatkit_postgres.errors import KeysUnavailable, Unauthorized
from chatkit_postgres.observability.logs import failure, get_logger, reason_of
from chatkit_postgres.strict_json import StrictJsonError, loads

FRESH_SECONDS = 600
SECONDS_BETWEEN_FETCHES = 30
MAX_SET_BYTES = 64 * 1024
MIN_RSA_BITS = 2048

# For each algorithm, the type and curve of its keys, and the members that make up such a key (RFC 7518, 8037).
_SHAPES: dict[str, tuple[str, str | None, tuple[str, ...]]] = {
    "RS256": ("RSA", None, ("n", "e")),
    "RS384": ("RSA", None, ("n", "e")),
    "RS512": ("RSA", None, ("n", "e")),
    "ES256": ("EC", "P-256", ("x", "y")),
    "ES384": ("EC", "P-384", ("x", "y")),
    "ES512": ("EC", "P-521", ("x", "y")),
    **dict.fromkeys(PSS_NAMES, ("RSA", None, ("n", "e"))),
    **dict.fromkeys(ED25519_NAMES, ("OKP", "Ed25519", ("x",))),
}
_COORDINATE_BYTES = {"P-256": 32, "P-384": 48, "P-521": 66, "Ed25519": 32}

public_keys.register()

logger = get_logger(__name__)


class Keys(Protocol):
    async def key_for(self, algorithm: str, key_id: str | None) -> Key:
        """Raises Unauthorized if there is no such key, KeysUnavailable while the keys are unknown."""
        ...

    async def refresh(self) -> bool:
        """Fetch the keys if that is due, and return whether any are known."""
        ...

    async def close(self) -> None: ...


class SharedSecret:
    """One secret for the HMAC algorithms. A token's ``kid`` is ignored."""

    def __init__(self, secret: str, algorithms: Iterable[str] = ("HS256",)) -> None:
        # Key objects, not the string: python-jose would look for JSON or PEM in a string.
        self._keys = {algorithm: jwk.HMACKey(secret, algorithm) for algorithm in algorithms}

    async def key_for(self, algorithm: str, _key_id: str | None) -> Key:
        key = self._keys.get(algorithm)
        if key is None:
            raise Unauthorized(fault="algorithm")
        return key

    async def refresh(self) -> bool:
        return True

    async def close(self) -> None:
        pass


class KeySet:
    """The keys of an issuer, fetched on demand and cached while the issuer is unreachable.

    Keys are fresh for ten minutes. An unknown ``kid`` triggers a fetch, but there is at most one fetch in thirty
    seconds, and one at a time. After a failed fetch, the last valid set is used for ``outage_seconds`` more. Without
    ``algorithms``, the first set determines them: all its keys must be of one family.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[bytes]],
        algorithms: tuple[str, ...] | None = None,
        *,
        outage_seconds: float = 24 * 3600,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._algorithms = algorithms
        self._outage_seconds = outage_seconds
        self._clock = clock
        self._members: list[dict[str, Any]] = []
        self._built: dict[tuple[str, str | None], Key] = {}
        self._loaded_at: float | None = None
        self._tried_at: float | None = None
        self._flight: asyncio.Task[None] | None = None
        self.problem: str | None = None
        """Why the last fetch failed, for an operator."""

    async def refresh(self) -> bool:
        await self._freshen()
        return self._are_known

    async def close(self) -> None:
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)

    @property
    def _are_known(self) -> bool:
        return self._loaded_at is not None and self._clock() - self._loaded_at <= FRESH_SECONDS + self._outage_seconds

    async def key_for(self, algorithm: str, key_id: str | None) -> Key:
        if algorithm not in _SHAPES:
            raise Unauthorized(fault="algorithm")
        await self._freshen()
        if (found := self._find(algorithm, key_id)) is not None:
            return found
        if key_id is None or not self._names(key_id):
            await self._fetch_if_allowed()
        if not self._are_known:
            raise KeysUnavailable
        found = self._find(algorithm, key_id)
        if found is None:
            raise Unauthorized(fault="unknown key")
        return found

    async def fetch(self) -> None:
        """Fetch now, even if no fetch is due; failures are logged. Concurrent callers share one fetch."""
        if self._flight is None:
            self._flight = asyncio.create_task(self._fetch())
        # Shielded, so that a cancelled caller does not cancel the fetch for the others.
        await asyncio.shield(self._flight)

    async def _freshen(self) -> None:
        is_fresh = self._loaded_at is not None and self._clock() - self._loaded_at <= FRESH_SECONDS
        if is_fresh:
            return
        last_try_failed = self._loaded_at is not None and self._tried_at != self._loaded_at
        if last_try_failed and self._are_known:
            # Fetch in the background, so that users with a cached key do not wait for an unreachable issuer.
            if self._may_fetch():
                self._flight = asyncio.create_task(self._fetch())
            return
        await self._fetch_if_allowed()

    async def _fetch_if_allowed(self) -> None:
        if self._flight is not None or self._may_fetch():
            await self.fetch()

    def _may_fetch(self) -> bool:
        is_due = self._tried_at is None or self._clock() - self._tried_at >= SECONDS_BETWEEN_FETCHES
        return is_due and self._flight is None

    async def _fetch(self) -> None:
        now = self._tried_at = self._clock()
        try:
            members = _members_of(await self._load())
            algorithms = self._algorithms or _algorithms_of(members)
            _check_use(members, algorithms)
        except Exception as error:  # noqa: BLE001 - the last valid set is used
            self._report(error)
        else:
            self._algorithms = algorithms
            self._members, self._built, self._loaded_at, self.problem = members, {}, now, None
            logger.info("jwks_loaded", keys=len(members), algorithms=list(algorithms))
        finally:
            self._flight = None

    def _report(self, error: Exception) -> None:
        age = None if self._loaded_at is None else round(self._clock() - self._loaded_at)
        good_for = 0 if age is None else max(0, round(FRESH_SECONDS + self._outage_seconds) - age)
        reason = self.problem = str(error) if isinstance(error, JwksError) else f"not reachable ({reason_of(error)})"
        logger.warning("jwks_not_loaded", reason=reason, keys_good_for_seconds=good_for, **failure(error))

    def _find(self, algorithm: str, key_id: str | None) -> Key | None:
        """Builds the requested key only, because another one in the set may be broken."""
        if not self._are_known or algorithm not in (self._algorithms or ()):
            return None
        built = self._built.get((algorithm, key_id))
        if built is not None:
            return built
        fitting = [
            member
            for member in self._members
            if _fits(member, algorithm) and (key_id is None or member.get("kid") == key_id)
        ]
        # Duplicates count as one key. Different keys of one id, or for a token without an id, are ambiguous.
        if not fitting or any(member != fitting[0] for member in fitting):
            return None
        key = _built(fitting[0], algorithm)
        if key is not None:
            self._built[algorithm, key_id] = key
        return key

    def _names(self, key_id: str) -> bool:
        return any(member.get("kid") == key_id for member in self._members)


class JwksError(ValueError):
    """The key set cannot be used. The message says why, and quotes nothing of the set."""


def _members_of(document: bytes) -> list[dict[str, Any]]:
    if len(document) > MAX_SET_BYTES:
        raise JwksError(f"longer than {MAX_SET_BYTES} bytes")
    try:
        read = loads(document, max_depth=8, max_values=5000)
    except StrictJsonError as error:
        raise JwksError(f"not an acceptable JSON document: {error}") from None
    members = read.get("keys") if isinstance(read, dict) else None
    if not isinstance(members, list):
        raise JwksError("no member `keys` with a list")
    usable = [member for member in members if any(_fits(member, algorithm) for algorithm in _SHAPES)]
    if not usable:
        raise JwksError("no public key for signatures")
    return usable


def _check_use(members: list[dict[str, Any]], algorithms: tuple[str, ...]) -> None:
    """Raises JwksError if no key fits an allowed algorithm: that is a misconfiguration, not an invalid token."""
    if not any(_fits(member, algorithm) for member in members for algorithm in algorithms):
        raise JwksError(f"no key for {', '.join(algorithms)}")


def _algorithms_of(members: list[dict[str, Any]]) -> tuple[str, ...]:
    """The algorithms of the keys, for a configuration that names none."""
    # An RSA key fits six algorithms; a key that names none of them is taken for RS256.
    found = {
        member.get("alg") or next(algorithm for algorithm in _SHAPES if _fits(member, algorithm)) for member in members
    }
    families = {name for name, family in FAMILIES.items() if found & set(family)}
    if len(families) > 1:
        raise JwksError(f"keys of several families ({', '.join(sorted(families))}): set CHAT_JWT_ALGORITHMS")
    return ED25519_NAMES if found & set(ED25519_NAMES) else tuple(sorted(found))


def _fits(member: Any, algorithm: str) -> bool:
    """Whether this is a public key for this algorithm, and meant for verifying signatures."""
    kind, curve, parts = _SHAPES[algorithm]
    return (
        isinstance(member, dict)
        and member.get("kty") == kind
        and (curve is None or member.get("crv") == curve)
        and _is_for(member.get("alg", algorithm), algorithm)
        and member.get("use", "sig") == "sig"
        and _verifies(member.get("key_ops", ["verify"]))
        and isinstance(member.get("kid", ""), str)
        # A private key in a public set is no secret: anybody can sign with it.
        and "d" not in member
        and all(_is_canonical(member.get(part)) for part in parts)
    )


def _is_for(named: Any, algorithm: str) -> bool:
    """Ed25519 has two names, and a key may have the one and a token the other."""
    return named == algorithm or (algorithm in ED25519_NAMES and named in ED25519_NAMES)


def _verifies(operations: Any) -> bool:
    return isinstance(operations, list) and "verify" in operations


def _is_canonical(value: Any) -> bool:
    """Whether this is canonical base64url, and not merely decodable."""
    if not isinstance(value, str) or not value:
        return False
    try:
        decoded = base64.b64decode(value.encode("ascii") + b"=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return False
    return base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() == value


def _built(member: dict[str, Any], algorithm: str) -> Key | None:
    _, curve, parts = _SHAPES[algorithm]
    if curve is not None and any(len(_decoded(member[part])) != _COORDINATE_BYTES[curve] for part in parts):
        return None
    try:
        key = jwk.construct({name: member[name] for name in ("kty", "crv", *parts) if name in member}, algorithm)
    except Exception as error:  # noqa: BLE001 - a point off the curve, an even exponent, or anything else the library rejects
        logger.warning("jwks_key_unusable", key_id=str(member.get("kid"))[:100], **failure(error))
        return None
    too_small = curve is None and key.prepared_key.key_size < MIN_RSA_BITS
    return None if too_small else key


def _decoded(value: str) -> bytes:
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
