"""Statements about attachments."""

from app.db import Statement

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
)

LOAD_ATTACHMENT = Statement(
    "load_attachment",
    """
SELECT attachment::text AS attachment
  FROM chat_attachments
 WHERE user_id = :owner AND attachment_id = :attachment_id AND state <> 'deleted'
""",
)

DELETE_ATTACHMENT = Statement(
    "delete_attachment",
    """
UPDATE chat_attachments SET state = 'deleted', deleted_at = now()
 WHERE user_id = :owner AND attachment_id = :attachment_id AND state <> 'deleted'
RETURNING attachment_id
""",
)
