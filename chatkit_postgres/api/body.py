"""Reads the body of a JSON request; its type, size and duration are checked as it arrives."""

import asyncio
from dataclasses import dataclass

from fastapi import Request
from starlette.requests import ClientDisconnect

from chatkit_postgres.errors import BadRequest, PayloadTooLarge, RequestTimedOut, UnsupportedMediaType


@dataclass(frozen=True)
class BodyLimits:
    max_bytes: int
    seconds: float = 30
    """From the end of the headers to the end of the body."""


async def read_json_body(request: Request, limits: BodyLimits) -> bytes:
    """Raises UnsupportedMediaType, PayloadTooLarge or RequestTimedOut; BadRequest if the client is gone."""
    _check_kind(request)
    if (declared_bytes(request) or 0) > limits.max_bytes:
        raise PayloadTooLarge
    try:
        async with asyncio.timeout(limits.seconds):
            return await _read_limited(request, limits.max_bytes)
    except TimeoutError:
        raise RequestTimedOut from None
    except ClientDisconnect:
        raise BadRequest from None


def declared_bytes(request: Request) -> int | None:
    """The declared length of the body; None if there is none, or none that is a number."""
    declared = request.headers.get("content-length", "")
    return int(declared[:20]) if declared.isdecimal() else None


def _check_kind(request: Request) -> None:
    kinds = request.headers.getlist("content-type")
    essence, _, parameters = (kinds[0] if len(kinds) == 1 else "").partition(";")
    name, _, charset = parameters.strip().partition("=")
    is_json = essence.strip().lower() == "application/json"
    if not is_json or (name.strip().lower() == "charset" and charset.strip('" ').lower() not in {"utf-8", "utf8"}):
        raise UnsupportedMediaType
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Content-Encoding: send the body as it is.")


async def _read_limited(request: Request, max_bytes: int) -> bytes:
    """Count the received bytes, because a declared length may be wrong or missing."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise PayloadTooLarge
    return bytes(body)
