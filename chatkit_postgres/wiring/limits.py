"""How much a request and a turn may take."""

from chatkit_postgres.api.body import BodyLimits
from chatkit_postgres.api.chatkit import EdgeLimits
from chatkit_postgres.chat.requests import RequestLimits
from chatkit_postgres.chat.running_turn import TurnLimits
from chatkit_postgres.settings import Settings


def edge_limits(settings: Settings) -> EdgeLimits:
    max_bytes = settings.max_body_bytes
    if settings.transcription_model is not None:
        # In base64, with what is around it.
        max_bytes = max(max_bytes, settings.max_audio_bytes * 4 // 3 + 4096)
    return EdgeLimits(
        body=BodyLimits(max_bytes=max_bytes, seconds=settings.body_seconds),
        request=RequestLimits(
            bytes=settings.max_body_bytes,
            attachments=settings.max_attachments_per_message,
            metadata_characters=settings.max_metadata_characters,
            depth=settings.max_json_depth,
            values=settings.max_json_values,
            message_characters=settings.max_message_characters,
            page=settings.max_page_size,
        ),
        heartbeat_seconds=settings.heartbeat_seconds,
    )


def turn_limits(settings: Settings) -> TurnLimits:
    return TurnLimits(
        turn_seconds=settings.turn_seconds,
        stale_seconds=settings.turn_stale_seconds,
        turns_per_user=settings.turns_per_user,
    )
