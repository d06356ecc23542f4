"""Statements about attachments."""

from chatkit_postgres.db.statement import ParameterType, Statement

# For the SDK's own flow, which knows nothing of bytes.
SAVE_ATTACHMENT = Statement(
    "save_attachment",
    """
INSERT INTO chat_attachments AS a (user_id, attachment_id, session_id, attachment)
VALUES (:owner, :attachment_id, :session, CAST(:attachment AS jsonb))
ON CONFLICT (user_id, attachment_id) DO UPDATE
   SET attachment = excluded.attachment, session_id = excluded.session_id
 WHERE a.state <> 'deleted'
RETURNING attachment_id
""",
    attachment_id="text",
    session="uuid",
    attachment="text",
)

# Before the upload. No row: the owner has too many attachments that were not sent. Without a maximum, any number.
CREATE_ATTACHMENT = Statement(
    "create_attachment",
    """
INSERT INTO chat_attachments AS a
       (user_id, attachment_id, attachment, storage_key, declared_bytes, content_type, upload_expires_at)
SELECT :owner, :attachment_id, CAST(:attachment AS jsonb), :storage_key, :declared_bytes, :content_type,
       now() + make_interval(secs => :upload_seconds)
 WHERE :max_unsent IS NULL
    OR (SELECT count(*) FROM chat_attachments
         WHERE user_id = :owner AND session_id IS NULL AND state <> 'deleted'
           AND attachment_id <> :attachment_id) < :max_unsent
ON CONFLICT (user_id, attachment_id) DO UPDATE SET declared_bytes = excluded.declared_bytes
 WHERE a.storage_key = excluded.storage_key
RETURNING attachment_id
""",
    attachment_id="text",
    attachment="text",
    storage_key="text",
    declared_bytes="bigint",
    content_type="text",
    upload_seconds="double precision",
    max_unsent="bigint",
)

# After the upload. The storage key is the digest of the bytes, so concurrent uploads cannot mix.
FINISH_UPLOAD = Statement(
    "finish_upload",
    """
UPDATE chat_attachments
   SET state = 'ready', stored_bytes = :stored_bytes, sha256 = :sha256, content_type = :content_type,
       attachment = CASE WHEN session_id IS NULL THEN CAST(:attachment AS jsonb) ELSE attachment END,
       uploaded_at = now()
 WHERE user_id = :owner AND attachment_id = :attachment_id
   AND (state = 'pending' OR state = 'ready' AND sha256 = :sha256)
RETURNING attachment_id
""",
    stored_bytes="bigint",
    sha256="text",
    content_type="text",
    attachment="text",
    attachment_id="text",
)

LOAD_ATTACHMENTS = Statement(
    "load_attachments",
    """
SELECT attachment_id, attachment::text AS attachment, state, session_id, storage_key, declared_bytes, stored_bytes,
       content_type, sha256, COALESCE(upload_expires_at <= now(), false) AS is_late
  FROM chat_attachments
 WHERE user_id = :owner AND attachment_id = ANY(:attachments) AND state <> 'deleted'
""",
    attachments="text[]",
)

# Only in an active thread.
DELETE_ATTACHMENT = Statement(
    "delete_attachment",
    """
UPDATE chat_attachments a SET state = 'deleted', deleted_at = now()
 WHERE a.user_id = :owner AND a.attachment_id = :attachment_id AND a.state <> 'deleted'
   AND NOT EXISTS (SELECT 1 FROM chat_sessions s
                    WHERE s.user_id = :owner AND s.session_id = a.session_id AND s.status ->> 'type' <> 'active')
RETURNING a.attachment_id
""",
    attachment_id="text",
)

# Images of an answer that are in none of its items.
DELETE_UNSENT_ATTACHMENTS = Statement(
    "delete_unsent_attachments",
    """
UPDATE chat_attachments SET state = 'deleted', deleted_at = now()
 WHERE user_id = :owner AND attachment_id = ANY(:attachments) AND session_id IS NULL AND state <> 'deleted'
""",
    attachments="text[]",
)


def sent(message: str) -> str:
    """The attachments of a message, locked. Each must be ready, and not yet sent except by this turn with this
    message."""
    return f"""sent AS (
  SELECT a.attachment_id FROM chat_attachments a
   WHERE a.user_id = :owner AND a.attachment_id = ANY(:attachments) AND a.state = 'ready'
     AND (a.session_id IS NULL
          OR a.session_id = :session AND COALESCE(a.message_id = {message}, true)
             AND EXISTS (SELECT 1 FROM chat_sessions s
                          WHERE s.user_id = :owner AND s.session_id = :session AND s.current_turn_id = :turn))
   ORDER BY a.attachment_id
     FOR UPDATE
), """


SENT: dict[str, ParameterType] = {"attachments": "text[]", "thread_id": "text"}
"""The parameters of ``sent`` and ``bound`` that no other part of their statements has."""

ALL_SENT = "(SELECT count(*) FROM sent) = cardinality(:attachments)"


def bound(source: str, message: str) -> str:
    """Assigns the attachments to the thread if ``source`` has a row."""
    return f"""bound AS (
  UPDATE chat_attachments a
     SET session_id = :session, message_id = {message},
         attachment = jsonb_set(a.attachment, '{{thread_id}}', to_jsonb(CAST(:thread_id AS text)))
    FROM {source}
   WHERE a.user_id = :owner AND a.attachment_id = ANY(:attachments)
)"""


def dropped(source: str) -> str:
    """Deletes the attachments of deleted messages."""
    return f"""dropped AS (
  UPDATE chat_attachments a SET state = 'deleted', deleted_at = now()
    FROM {source}
   WHERE a.user_id = :owner AND a.session_id = :session AND a.message_id = {source}.message_id
     AND a.state <> 'deleted'
)"""
