"""EdDSA for python-jose, which has no key class for it: verification only, over cryptography.

Better Auth signs with Ed25519 by default (RFC 8037).
"""

from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jose import jwk
from jose.backends.base import Key
from jose.utils import base64url_decode

EDDSA = "EdDSA"


class Ed25519Key(Key):  # type: ignore[misc] # python-jose ships no annotations
    def __init__(self, key: dict[str, Any], algorithm: str = EDDSA) -> None:
        super().__init__(key, algorithm)
        self._public = Ed25519PublicKey.from_public_bytes(base64url_decode(key["x"].encode()))

    def verify(self, msg: bytes, sig: bytes) -> bool:
        try:
            self._public.verify(sig, msg)
        except InvalidSignature:
            return False
        return True


jwk.register_key(EDDSA, Ed25519Key)
