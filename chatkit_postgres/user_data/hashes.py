"""Keyed hashes of names: who has no key cannot tell whose hash it is, nor make one."""

import hmac


class Hashes:
    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def of_user(self, name: str) -> str:
        return self._of(b"erased user", name.encode())

    def of_thread(self, thread_id: str) -> str:
        return self._of(b"audited thread", thread_id.encode())

    def of_entry(self, previous: str, content: bytes) -> str:
        """The hash of an entry of the audit log, which follows the one with the hash ``previous``."""
        return self._of(b"audit entry", previous.encode() + b"\0" + content)

    def _of(self, kind: bytes, value: bytes) -> str:
        return hmac.new(self._key, kind + b"\0" + value, "sha256").hexdigest()
