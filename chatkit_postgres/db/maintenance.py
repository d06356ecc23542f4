"""Periodic maintenance for all owners: the only statements that name no owner."""

import asyncio
import random

from chatkit_postgres.db.database import Database
from chatkit_postgres.db.statement import Statement
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.observability.logs import get_logger, log_failure

KEYS_LIVE_HOURS = 24
MAX_AT_ONCE = 100

logger = get_logger(__name__)

CLOSE_STALE_TURNS = Statement(
    "close_all_stale_turns",
    """
WITH closed AS (
  UPDATE chat_turns
     SET state = 'interrupted', ended_at = clock_timestamp(), error_code = 'interrupted'
   WHERE state = 'running' AND heartbeat_at < clock_timestamp() - make_interval(secs => :stale_seconds)
  RETURNING user_id, session_id, turn_id
), released AS (
  UPDATE chat_sessions s SET current_turn_id = NULL FROM closed
   WHERE s.user_id = closed.user_id AND s.session_id = closed.session_id AND s.current_turn_id = closed.turn_id
), discarded AS (
  DELETE FROM chat_messages m USING closed
   WHERE m.user_id = closed.user_id AND m.session_id = closed.session_id AND m.turn_id = closed.turn_id
     AND m.is_draft
)
SELECT count(*) AS count FROM closed
""",
    stale_seconds="double precision",
)

FORGET_KEYS = Statement(
    "forget_idempotency_keys",
    f"""
UPDATE chat_turns SET idempotency_key = NULL, request_hash = NULL
 WHERE idempotency_key IS NOT NULL AND started_at < now() - interval '{KEYS_LIVE_HOURS} hours'
""",  # noqa: S608 - a constant of ours
)

# Attachments that were announced and never uploaded, or uploaded and never sent.
MARK_ABANDONED = Statement(
    "mark_abandoned_attachments",
    """
UPDATE chat_attachments SET state = 'deleted', deleted_at = now()
 WHERE session_id IS NULL AND state <> 'deleted'
   AND storage_key IS NOT NULL
   AND (state = 'pending' AND upload_expires_at < now() - make_interval(secs => :late_seconds)
        OR state = 'ready' AND uploaded_at < now() - make_interval(secs => :unsent_seconds))
""",
    late_seconds="double precision",
    unsent_seconds="double precision",
)

# Attachments that may have bytes are listed at once, and all again after the last possible upload has ended. In random
# order, so that attachments that cannot be removed do not block the others.
LIST_DELETED_ATTACHMENTS = Statement(
    "list_deleted_attachments",
    f"""
SELECT user_id, attachment_id, storage_key,
       deleted_at < now() - make_interval(secs => :late_seconds) AS is_settled
  FROM chat_attachments
 WHERE state = 'deleted'
   AND (stored_bytes IS NOT NULL OR deleted_at < now() - make_interval(secs => :late_seconds))
 ORDER BY random()
 LIMIT {MAX_AT_ONCE}
""",  # noqa: S608 - a constant of ours
    late_seconds="double precision",
)

NOTE_BYTES_REMOVED = Statement(
    "note_bytes_removed",
    """
UPDATE chat_attachments SET stored_bytes = NULL
 WHERE user_id = :owner AND attachment_id = :attachment_id AND state = 'deleted'
""",
    attachment_id="text",
)

REMOVE_ATTACHMENT = Statement(
    "remove_attachment",
    """
DELETE FROM chat_attachments
 WHERE user_id = :owner AND attachment_id = :attachment_id AND state = 'deleted'
""",
    attachment_id="text",
)


async def run_maintenance(database: Database, *, stale_seconds: float) -> None:
    """Close the turns of processes that died and forget old idempotency keys, repeatedly, until cancelled."""
    while True:
        # Replicas that were started together should not work at the same moment.
        await asyncio.sleep(stale_seconds * random.uniform(0.25, 0.75))  # noqa: S311 - jitter is no secret
        try:
            (closed,) = await database.run_for_all_owners(CLOSE_STALE_TURNS, stale_seconds=stale_seconds)
            await database.run_for_all_owners(FORGET_KEYS)
        except DatabaseUnavailable:
            continue
        except Exception as error:  # noqa: BLE001 - tried again in a moment
            log_failure(logger, "maintenance_failed", error)
            continue
        if closed["count"]:
            logger.warning("interrupted_turns_closed", count=closed["count"])
