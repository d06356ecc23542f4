"""Signed URLs: each is valid for one file, one purpose, and a limited time.

The owner and the expiry time are encrypted, and authenticated together with the purpose and the file (AES-SIV,
RFC 5297). The encryption is deterministic, so a file has the same URL for some time, and browsers can cache it.
"""

import base64
import binascii
import math
import time
from collections.abc import Callable
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chatkit_postgres.errors import LinkExpired, NotFound
from chatkit_postgres.observability.logs import get_logger

logger = get_logger(__name__)

Purpose = Literal["upload", "content", "preview"]

MAX_KEY = 2048


class Links:
    """``secret`` is shared by all replicas. A URL for reading is valid for ``seconds`` to 1.5 times ``seconds``; a URL
    for uploading, for ``upload_seconds``."""

    def __init__(self, secret: str, *, seconds: int, upload_seconds: int, now: Callable[[], float] = time.time) -> None:
        self.seconds = seconds
        self.upload_seconds = upload_seconds
        self._now = now
        derived = HKDF(algorithm=SHA256(), length=64, salt=None, info=b"chatkit-postgres attachment links")
        self._cipher = AESSIV(derived.derive(secret.encode()))

    def to_upload(self, public_url: str, owner: str, attachment_id: str) -> str:
        key = self._sealed("upload", owner, attachment_id, math.ceil(self._now()) + self.upload_seconds)
        return f"{public_url}/api/attachments/{attachment_id}/content?key={key}"

    def to_read(self, public_url: str, owner: str, attachment_id: str, purpose: Literal["content", "preview"]) -> str:
        step = max(1, self.seconds // 2)
        until = math.ceil((self._now() + self.seconds) / step) * step
        key = self._sealed(purpose, owner, attachment_id, until)
        return f"{public_url}/api/attachments/{attachment_id}/{purpose}?key={key}"

    def owner_in(self, key: str, attachment_id: str, purpose: Purpose) -> str:
        """The user for whom the URL was signed. Raises NotFound if the key is not valid for this file and purpose,
        LinkExpired if its time is over."""
        try:
            sealed = base64.urlsafe_b64decode(key[:MAX_KEY].encode("ascii") + b"==")
            opened = self._cipher.decrypt(sealed, _context(purpose, attachment_id))
        except (InvalidTag, ValueError, binascii.Error):
            # Nobody but the operator is to know: the file may exist.
            logger.info("link_refused", reason="signed with another secret, for another file, or cut off")
            raise NotFound("There is nothing at this address.") from None
        if self._now() >= int.from_bytes(opened[:8]):
            raise LinkExpired
        return opened[8:].decode()

    def _sealed(self, purpose: Purpose, owner: str, attachment_id: str, until: int) -> str:
        sealed = self._cipher.encrypt(until.to_bytes(8) + owner.encode(), _context(purpose, attachment_id))
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")


def _context(purpose: Purpose, attachment_id: str) -> list[bytes]:
    return [purpose.encode(), attachment_id.encode()]
