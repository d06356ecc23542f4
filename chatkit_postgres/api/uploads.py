"""Reads an uploaded file from a form with one field ``file``, or from the body; counts its bytes as they arrive."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from chatkit_postgres.api.body import BodyLimits, declared_bytes
from chatkit_postgres.attachments.intake import Upload
from chatkit_postgres.errors import (
    BadRequest,
    FileTooLarge,
    RequestTimedOut,
    StorageUnavailable,
    UnsupportedMediaType,
)
from chatkit_postgres.observability.logs import get_logger, log_failure

logger = get_logger(__name__)

IN_MEMORY_BYTES = 1024 * 1024
FORM_BYTES = 16 * 1024
"""Maximum size of a form without its file."""


@dataclass(frozen=True)
class UploadLimits:
    max_bytes: int = 20 * 1024 * 1024
    seconds: float = 300

    def within(self, announced: int) -> BodyLimits:
        return BodyLimits(max_bytes=min(self.max_bytes, announced), seconds=self.seconds)


@asynccontextmanager
async def read_upload(request: Request, limits: BodyLimits) -> AsyncGenerator[Upload, None]:
    """The whole file, open until the block ends. Raises FileTooLarge, RequestTimedOut, BadRequest or
    UnsupportedMediaType."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Content-Encoding: send the file as it is.")
    is_form = request.headers.get("content-type", "").lower().startswith("multipart/form-data")
    max_bytes = limits.max_bytes + (FORM_BYTES if is_form else 0)
    if (declared_bytes(request) or 0) > max_bytes:
        raise FileTooLarge
    try:
        async with asyncio.timeout(limits.seconds):
            upload = await (_from_form if is_form else _from_body)(request, max_bytes)
    except TimeoutError:
        raise RequestTimedOut from None
    except OSError as error:
        # The temporary file: the disk is full, or there is no directory for it.
        log_failure(logger, "no_temporary_file", error, reason=error.strerror)
        raise StorageUnavailable from None
    except ClientDisconnect:
        raise BadRequest("The file was not received completely.") from None
    with upload.file:
        if upload.size > limits.max_bytes:
            raise FileTooLarge
        yield upload


async def _from_form(request: Request, max_bytes: int) -> Upload:
    chunks = _limited_chunks(request, max_bytes)
    parser = MultiPartParser(request.headers, chunks, max_files=1, max_fields=10, max_part_size=FORM_BYTES)
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError):
        # UnicodeError: the form declares an unknown charset.
        raise BadRequest("The body must be a form with one file in the field 'file'.") from None
    file = form.get("file")
    if not isinstance(file, UploadFile):
        await form.close()
        raise BadRequest("The body must be a form with one file in the field 'file'.")
    return Upload(file.file, file.size or 0, file.filename or "", file.content_type or "")


async def _from_body(request: Request, max_bytes: int) -> Upload:
    file = SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 - the caller closes it
    size = 0
    try:
        async for chunk in _limited_chunks(request, max_bytes):
            size += len(chunk)
            file.write(chunk)
    except BaseException:
        file.close()
        raise
    # A binary file in all but its declared type.
    return Upload(cast("BinaryIO", file), size, content_type=request.headers.get("content-type", ""))


async def _limited_chunks(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    count = 0
    async for chunk in request.stream():
        count += len(chunk)
        if count > max_bytes:
            raise FileTooLarge
        yield chunk
