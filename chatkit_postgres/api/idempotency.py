"""Idempotency-Key: the same request, sent again, is the same turn."""

import hashlib
import json
import re

from chatkit.types import StreamingReq
from fastapi import Request

from chatkit_postgres.errors import BadRequest

HEADER = "Idempotency-Key"
_ACCEPTABLE = re.compile(r"[\x21-\x7e]{1,255}")


def idempotency_key(request: Request) -> str | None:
    """Raises BadRequest for two keys, or one that is not 1 to 255 visible ASCII characters."""
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    if len(given) > 1 or not _ACCEPTABLE.fullmatch(given[0]):
        raise BadRequest(f"{HEADER}: one key of 1 to 255 visible ASCII characters.")
    return given[0]


def request_hash(operation: StreamingReq) -> str:
    """SHA-256 of the canonical JSON of type and params."""
    document = operation.model_dump(mode="json", include={"type", "params"})
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
