"""Transcribes speech with the audio endpoint of an OpenAI-compatible server."""

import re

from chatkit.types import AudioInput, TranscriptionResult
from openai import APIError, APIStatusError, AsyncOpenAI, RateLimitError

from chatkit_postgres.errors import TranscriptionFailed, Unavailable, Unprocessable
from chatkit_postgres.observability.logs import failure, get_logger

SECONDS = 60

_ENDINGS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "x-m4a": "m4a"}

logger = get_logger(__name__)


class Transcriber:
    def __init__(self, client: AsyncOpenAI, model: str) -> None:
        self._client = client.with_options(timeout=SECONDS, max_retries=1)
        self._model = model

    async def transcribe(self, audio: AudioInput) -> TranscriptionResult:
        """Raises Unprocessable if the server cannot read the recording, Unavailable or TranscriptionFailed."""
        subtype = audio.media_type.partition("/")[2]
        # The server detects the format by the ending of the file name.
        name = f"speech.{_ENDINGS.get(subtype, re.sub('[^a-z0-9]', '', subtype) or 'webm')}"
        try:
            transcription = await self._client.audio.transcriptions.create(
                model=self._model, file=(name, audio.data, audio.media_type)
            )
        except RateLimitError:
            raise Unavailable from None
        except APIStatusError as error:
            logger.warning("transcription_failed", status=error.status_code)
            if error.status_code in {400, 415, 422}:
                raise Unprocessable("params.audio_base64: this recording could not be understood.") from None
            raise TranscriptionFailed from None
        except APIError as error:
            logger.warning("transcription_failed", **failure(error))
            raise Unavailable from None
        return TranscriptionResult(text=transcription.text)

    async def close(self) -> None:
        await self._client.close()
