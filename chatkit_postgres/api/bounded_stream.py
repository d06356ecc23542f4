"""A streamed response whose client must go on reading."""

import asyncio
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Send

SEND_SECONDS = 30


class BoundedStream(StreamingResponse):
    """A client that stops reading is disconnected."""

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Any) -> None:
            # A client that reads nothing for so long counts as gone.
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        await super().stream_response(send_in_time)
