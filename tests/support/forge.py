"""Signs any header and claims, as an issuer or an attacker would, without the code under test."""

import base64
import hashlib
import hmac
import json
import time
from functools import cache
from typing import Any, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

SECRET = "k" * 48


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value: int, length: int | None = None) -> str:
    return b64(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


def document(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def changed(made: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Applies the changes; a member whose value is ``...`` is removed."""
    return {name: value for name, value in (made | changes).items() if value is not ...}


class Forge(Protocol):
    """A key pair that signs tokens."""

    algorithm: str
    kid: str

    def raw(self, signed: bytes) -> bytes: ...

    def jwk(self, **changes: Any) -> dict[str, Any]: ...

    def other(self, kid: str) -> "Forge":
        """Another key pair for the same algorithm."""
        ...


def header(forge: Forge, **changes: Any) -> dict[str, Any]:
    return changed({"alg": forge.algorithm, "typ": "JWT", "kid": forge.kid}, changes)


def claims(**changes: Any) -> dict[str, Any]:
    return changed({"sub": "alice", "exp": int(time.time()) + 60}, changes)


def parts(forge: Forge, head: Any = None, body: Any = None) -> tuple[str, str, str]:
    first = b64(document(head if head is not None else header(forge)))
    second = b64(document(body if body is not None else claims()))
    return first, second, b64(forge.raw(f"{first}.{second}".encode()))


def token(forge: Forge, head: Any = None, body: Any = None) -> str:
    return ".".join(parts(forge, head, body))


def signed_as_is(forge: Forge, first: str, second: str) -> str:
    """Signs parts that are not in canonical base64url."""
    return f"{first}.{second}.{b64(forge.raw(f'{first}.{second}'.encode()))}"


class Hmac:
    def __init__(self, secret: bytes = SECRET.encode(), algorithm: str = "HS256", kid: str = "main") -> None:
        self.algorithm, self.kid, self.secret = algorithm, kid, secret

    def raw(self, signed: bytes) -> bytes:
        return hmac.new(self.secret, signed, getattr(hashlib, f"sha{self.algorithm[2:]}")).digest()

    def jwk(self, **changes: Any) -> dict[str, Any]:
        return changed({"kty": "oct", "k": b64(self.secret), "kid": self.kid, "alg": self.algorithm}, changes)

    def other(self, kid: str) -> Forge:
        return Hmac(kid.encode() * 48, self.algorithm, kid)


class Rsa:
    def __init__(self, bits: int = 2048, algorithm: str = "RS256", kid: str = "main") -> None:
        self.algorithm, self.kid = algorithm, kid
        self.key = _rsa_key(bits, kid)

    def raw(self, signed: bytes) -> bytes:
        return self.signed(signed, self.scheme)

    @property
    def scheme(self) -> padding.AsymmetricPadding:
        digest = _digest(self.algorithm)
        is_pss = self.algorithm.startswith("PS")
        return padding.PSS(padding.MGF1(digest), digest.digest_size) if is_pss else padding.PKCS1v15()

    def signed(self, signed: bytes, padded: padding.AsymmetricPadding) -> bytes:
        return self.key.sign(signed, padded, _digest(self.algorithm))

    def jwk(self, **changes: Any) -> dict[str, Any]:
        public = self.key.public_key().public_numbers()
        made = {"kty": "RSA", "n": number(public.n), "e": number(public.e), "kid": self.kid, "use": "sig"}
        return changed(made | {"alg": self.algorithm}, changes)

    def other(self, kid: str) -> Forge:
        return Rsa(2048, self.algorithm, kid)


class Ec:
    curves = {"ES256": ("P-256", ec.SECP256R1(), 32), "ES384": ("P-384", ec.SECP384R1(), 48)}  # noqa: RUF012
    curves["ES512"] = ("P-521", ec.SECP521R1(), 66)

    def __init__(self, algorithm: str = "ES256", kid: str = "main") -> None:
        self.algorithm, self.kid = algorithm, kid
        self.curve, curve, self.size = self.curves[algorithm]
        self.key = ec.generate_private_key(curve)

    def der(self, signed: bytes) -> bytes:
        return self.key.sign(signed, ec.ECDSA(_digest(self.algorithm)))

    def raw(self, signed: bytes) -> bytes:
        r, s = decode_dss_signature(self.der(signed))
        return r.to_bytes(self.size, "big") + s.to_bytes(self.size, "big")

    def jwk(self, **changes: Any) -> dict[str, Any]:
        public = self.key.public_key().public_numbers()
        made = {"kty": "EC", "crv": self.curve, "x": number(public.x, self.size), "y": number(public.y, self.size)}
        return changed(made | {"kid": self.kid, "use": "sig", "alg": self.algorithm}, changes)

    def other(self, kid: str) -> Forge:
        return Ec(self.algorithm, kid)


class Ed:
    def __init__(self, kid: str = "main", algorithm: str = "EdDSA") -> None:
        self.algorithm, self.kid = algorithm, kid
        self.key = ed25519.Ed25519PrivateKey.generate()

    def raw(self, signed: bytes) -> bytes:
        return self.key.sign(signed)

    def jwk(self, **changes: Any) -> dict[str, Any]:
        public = self.key.public_key().public_bytes_raw()
        made = {"kty": "OKP", "crv": "Ed25519", "x": b64(public), "kid": self.kid, "use": "sig"}
        return changed(made | {"alg": self.algorithm}, changes)

    def other(self, kid: str) -> Forge:
        return Ed(kid, self.algorithm)


@cache
def _rsa_key(bits: int, _kid: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def _digest(algorithm: str) -> hashes.HashAlgorithm:
    return {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[algorithm[2:]]
