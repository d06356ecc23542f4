"""Key classes for signatures that python-jose does not support: verification only, with the cryptography library.

RSA-PSS (RFC 7518, section 3.5), and Ed25519 under both of its names: ``EdDSA`` (RFC 8037; Better Auth's default) and
``Ed25519`` (RFC 9864).
"""

from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from jose import jwk
from jose.backends.base import Key
from jose.utils import base64_to_long, base64url_decode

from chatkit_postgres.auth.algorithms import ED25519_NAMES

PSS_HASHES: dict[str, hashes.HashAlgorithm] = {
    "PS256": hashes.SHA256(),
    "PS384": hashes.SHA384(),
    "PS512": hashes.SHA512(),
}


class Ed25519Key(Key):  # type: ignore[misc] # python-jose ships no annotations
    def __init__(self, key: dict[str, Any], algorithm: str = "EdDSA") -> None:
        super().__init__(key, algorithm)
        self._public = Ed25519PublicKey.from_public_bytes(base64url_decode(key["x"].encode()))

    def verify(self, msg: bytes, sig: bytes) -> bool:
        try:
            self._public.verify(sig, msg)
        except InvalidSignature:
            return False
        return True


class RsaPssKey(Key):  # type: ignore[misc]
    def __init__(self, key: dict[str, Any], algorithm: str) -> None:
        super().__init__(key, algorithm)
        self._hash = PSS_HASHES[algorithm]
        self.prepared_key: RSAPublicKey = RSAPublicNumbers(
            e=base64_to_long(key["e"]), n=base64_to_long(key["n"])
        ).public_key()

    def verify(self, msg: bytes, sig: bytes) -> bool:
        # The salt is as long as the digest, and the mask is made with the same hash.
        padding = PSS(mgf=MGF1(self._hash), salt_length=self._hash.digest_size)
        try:
            self.prepared_key.verify(sig, msg, padding, self._hash)
        except InvalidSignature:
            return False
        return True


def register() -> None:
    """Register both key classes with python-jose."""
    for name in ED25519_NAMES:
        jwk.register_key(name, Ed25519Key)
    for name in PSS_HASHES:
        jwk.register_key(name, RsaPssKey)
