"""Statements about feedback on items."""

from chatkit_postgres.db.statement import Statement
from chatkit_postgres.store.sql.items import HIDDEN
from chatkit_postgres.store.sql.routing import OWN_THREAD

# All of the ids, or none.
SAVE_FEEDBACK = Statement(
    "save_feedback",
    f"""
WITH found AS (
  SELECT message_id FROM chat_messages
   WHERE user_id = :owner AND session_id = :session AND message_id = ANY(:messages)
     AND EXISTS (SELECT 1 FROM chat_sessions
                  WHERE user_id = :owner AND session_id = :session AND status ->> 'type' = 'active')
     AND NOT is_draft AND item_type NOT IN {HIDDEN}
   -- None of them may be deleted before the insert refers to it.
     FOR KEY SHARE
), saved AS (
  INSERT INTO chat_feedback (user_id, session_id, message_id, kind)
  SELECT o.user_id, o.session_id, message_id, :kind FROM found JOIN {OWN_THREAD}
   WHERE (SELECT count(*) FROM found) = cardinality(:messages)
  ON CONFLICT (user_id, session_id, message_id) DO UPDATE
     SET kind = excluded.kind, created_at = excluded.created_at
)
SELECT count(*) = cardinality(:messages) AS complete FROM found
""",
    session="uuid",
    messages="uuid[]",
    kind="text",
)
