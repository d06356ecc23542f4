"""Statements that find and delete old threads."""

from chatkit_postgres.db.statement import Statement

PAGE = 500
BATCH = 500

# By the clock that wrote the times of the items.
FIND_CUTOFF = Statement("find_cutoff", "SELECT now() - make_interval(days => :days) AS cutoff", days="integer")

# A page of all threads in the order of an index, so that each statement is short; :locked says whether locked and
# closed ones count. The newest item is one look-up.
LIST_THREADS = Statement(
    "list_threads_for_retention",
    f"""
SELECT s.user_id, s.created_at, s.session_id,
       s.created_at < :before AND s.current_turn_id IS NULL AND (:locked OR s.status ->> 'type' = 'active')
       AND COALESCE((SELECT m.created_at FROM chat_messages m
                      WHERE m.user_id = s.user_id AND m.session_id = s.session_id
                      ORDER BY m.position DESC LIMIT 1), s.created_at) < :before AS is_old
  FROM chat_sessions s
 WHERE (s.user_id, s.created_at, s.session_id) > (:after_user, :after_time, :after_session)
 ORDER BY s.user_id, s.created_at, s.session_id
 LIMIT {PAGE}
""",
    before="timestamptz",
    locked="boolean",
    after_user="text",
    after_time="timestamptz",
    after_session="uuid",
)

# After the lock: its snapshot has what was written to the thread while the lock was waited for.
FIND_OLD_THREAD = Statement(
    "find_old_thread",
    """
SELECT 1 FROM chat_sessions s
 WHERE s.user_id = :owner AND s.session_id = :session AND s.current_turn_id IS NULL
   AND (:locked OR s.status ->> 'type' = 'active')
   AND COALESCE((SELECT m.created_at FROM chat_messages m
                  WHERE m.user_id = :owner AND m.session_id = :session
                  ORDER BY m.position DESC LIMIT 1), s.created_at) < :before
""",
    session="uuid",
    before="timestamptz",
    locked="boolean",
)

DELETE_OLD_MESSAGES = Statement(
    "delete_old_messages",
    f"""
DELETE FROM chat_messages
 WHERE user_id = :owner AND session_id = :session
   AND message_id IN (SELECT message_id FROM chat_messages
                       WHERE user_id = :owner AND session_id = :session LIMIT {BATCH})
RETURNING 1
""",
    session="uuid",
)
