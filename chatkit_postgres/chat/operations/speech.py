"""Transcribes a recording."""

from chatkit.types import AudioInput, InputTranscribeParams, TranscriptionResult

from chatkit_postgres.assistant import Assistant
from chatkit_postgres.context import RequestContext
from chatkit_postgres.errors import PayloadTooLarge, Unprocessable
from chatkit_postgres.text import clean_text
from chatkit_postgres.validation import decode_base64


async def transcribe(
    assistant: Assistant, params: InputTranscribeParams, context: RequestContext, *, max_bytes: int
) -> TranscriptionResult:
    """Raises NotSupported, Unprocessable for what is not base64, PayloadTooLarge."""
    try:
        data = await decode_base64(params.audio_base64)
    except ValueError:
        raise Unprocessable("params.audio_base64: this is not base64.") from None
    if not data:
        raise Unprocessable("This recording is empty (params.audio_base64).")
    if len(data) > max_bytes:
        raise PayloadTooLarge(f"params.audio_base64: a recording may have up to {max_bytes} bytes.")
    result = await assistant.transcribe(AudioInput(data=data, mime_type=params.mime_type), context)
    return TranscriptionResult(text=clean_text(result.text))
