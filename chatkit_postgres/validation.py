"""Reads errors of pydantic, and decodes base64 outside of the event loop."""

import asyncio
import base64
from dataclasses import dataclass

from pydantic import ValidationError


@dataclass(frozen=True, slots=True)
class Problem:
    kind: str
    """pydantic's name of the error, such as ``missing``."""
    location: tuple[int | str, ...]
    message: str
    """For people; it may repeat the input."""

    def path(self, *prefix: str, skip: int = 0) -> str:
        """With dots, without the first ``skip`` parts of the location."""
        return ".".join([*prefix, *map(str, self.location[skip:])])


def first_problem(error: ValidationError) -> Problem:
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return Problem(found["type"], found["loc"], found["msg"].removeprefix("Value error, "))


async def decode_base64(text: str) -> bytes:
    """Strict, and in a thread, because the text may be long. Raises ValueError."""
    return await asyncio.to_thread(base64.b64decode, text, validate=True)
