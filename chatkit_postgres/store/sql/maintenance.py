"""Periodic statements for all owners: the only ones that name no owner.

They find rows, or change rows of one table; what is more is done for each owner, so that a cluster runs it on one node.
"""

from chatkit_postgres.db.statement import Statement
from chatkit_postgres.store.sql.partials import log_of_ended

KEYS_LIVE_HOURS = 24
MAX_AT_ONCE = 100

# The turns of processes that died, which are then closed for each owner: a process may have run thousands.
LIST_STALE_TURNS = Statement(
    "list_stale_turns",
    f"""
SELECT DISTINCT user_id, session_id FROM chat_turns
 WHERE state = 'running' AND heartbeat_at < now() - make_interval(secs => :stale_seconds)
 LIMIT {MAX_AT_ONCE}
""",
    stale_seconds="double precision",
)

# Of turns that code without a log has closed, and of checkpoints that were committed after the end of their turn.
LIST_LOGS_OF_ENDED_TURNS = Statement(
    "list_logs_of_ended_turns",
    f"""
SELECT DISTINCT l.user_id, l.session_id, l.turn_id
  FROM chat_partial_log l
  LEFT JOIN chat_turns t ON t.user_id = l.user_id AND t.session_id = l.session_id AND t.turn_id = l.turn_id
 WHERE t.turn_id IS NULL OR t.ended_at IS NOT NULL
 LIMIT {MAX_AT_ONCE}
""",
)

DELETE_LOG_OF_ENDED_TURN = Statement(
    "delete_log_of_ended_turn",
    f"""
WITH ended AS (
  SELECT l.session_id, l.turn_id
    FROM chat_partial_log l
    LEFT JOIN chat_turns t ON t.user_id = :owner AND t.session_id = l.session_id AND t.turn_id = l.turn_id
   WHERE l.user_id = :owner AND l.session_id = :session AND l.turn_id = :turn
     AND (t.turn_id IS NULL OR t.ended_at IS NOT NULL)
   LIMIT 1
), {log_of_ended("ended")}
SELECT count(*) AS count FROM ended
""",
    session="uuid",
    turn="uuid",
)

FORGET_KEYS = Statement(
    "forget_idempotency_keys",
    f"""
UPDATE chat_turns SET idempotency_key = NULL, request_hash = NULL
 WHERE idempotency_key IS NOT NULL AND started_at < now() - interval '{KEYS_LIVE_HOURS} hours'
""",
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
""",
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
