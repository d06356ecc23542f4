"""Statements of reports: for operators."""

from chatkit_postgres.db.statement import Statement
from chatkit_postgres.store.sql.turns import sum_of

_TOKENS = ",\n       ".join(
    sum_of(name) for name in ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
)

FIND_USER = Statement("find_user", "SELECT user_id FROM chat_users WHERE user_id = :owner")

# Reads the keys of all threads: for a person who has only the id.
FIND_OWNERS = Statement(
    "find_owners_of_thread",
    """
SELECT user_id FROM chat_sessions WHERE session_id = :session ORDER BY user_id LIMIT 10
""",
    session="uuid",
)

SHOW_USER = Statement(
    "show_user",
    f"""
SELECT u.created_at, u.disabled_at, u.metadata::text AS claims,
       (SELECT count(*) FROM chat_sessions WHERE user_id = :owner) AS threads,
       (SELECT count(*) FROM chat_messages WHERE user_id = :owner AND NOT is_draft) AS items,
       (SELECT max(created_at) FROM chat_messages WHERE user_id = :owner) AS newest_item_at,
       (SELECT count(*) FROM chat_attachments WHERE user_id = :owner AND state = 'ready') AS files,
       (SELECT COALESCE(sum(stored_bytes), 0)::bigint FROM chat_attachments WHERE user_id = :owner) AS bytes_of_files,
       (SELECT count(*) FROM chat_turns WHERE user_id = :owner AND state = 'running') AS running_turns,
       (SELECT count(*) FROM chat_approvals WHERE user_id = :owner AND resumed_by IS NULL) AS questions,
       (SELECT count(*) FROM chat_feedback WHERE user_id = :owner AND kind = 'positive') AS liked,
       (SELECT count(*) FROM chat_feedback WHERE user_id = :owner AND kind = 'negative') AS disliked,
       t.*
  FROM chat_users u, LATERAL (
    SELECT count(*) AS turns,
       {_TOKENS}
      FROM chat_turns WHERE user_id = :owner) t
 WHERE u.user_id = :owner
""",
)

LIST_CHANGED_THREADS = Statement(
    "list_changed_threads",
    """
SELECT thread_id AS id, title, created_at, updated_at
  FROM chat_sessions
 WHERE user_id = :owner
 ORDER BY updated_at DESC
 LIMIT :page
""",
    page="bigint",
)

LIST_ENDS_OF_TURNS = Statement(
    "list_ends_of_turns",
    """
SELECT turn_id, operation, state, error_code, started_at, ended_at
  FROM chat_turns
 WHERE user_id = :owner AND session_id = :session AND state NOT IN ('completed', 'superseded')
 ORDER BY started_at
 LIMIT 1000
""",
    session="uuid",
)

USAGE_OF_USERS = Statement(
    "usage_of_users",
    f"""
SELECT *
  FROM (SELECT user_id, count(*) AS turns,
       {_TOKENS}
          FROM chat_turns
         WHERE started_at >= (date_trunc('day', now() AT TIME ZONE 'UTC')
                              - make_interval(days => :days - 1)) AT TIME ZONE 'UTC'
         GROUP BY user_id) counted
 ORDER BY input_tokens + output_tokens DESC, user_id
 LIMIT :page
""",
    days="integer",
    page="bigint",
)

# The newest first; the key breaks ties.
LIST_FEEDBACK = Statement(
    "list_feedback",
    """
SELECT f.created_at, f.user_id, f.session_id, f.message_id, f.kind, s.thread_id, m.item_id, m.sender_name,
       question.content AS question, m.content AS answer
  FROM chat_feedback f
  JOIN chat_messages m USING (user_id, session_id, message_id)
  JOIN chat_sessions s USING (user_id, session_id)
  LEFT JOIN LATERAL (
    SELECT q.content FROM chat_messages q
     WHERE q.user_id = m.user_id AND q.session_id = m.session_id AND q.position < m.position
       AND q.item_type = 'user_message' AND NOT q.is_draft
     ORDER BY q.position DESC LIMIT 1) question ON true
 WHERE f.created_at >= now() - make_interval(days => :days) AND (CAST(:kind AS text) IS NULL OR f.kind = :kind)
   AND (CAST(:after_time AS timestamptz) IS NULL
        OR (f.created_at, f.user_id, f.message_id) < (:after_time, :after_user, :after_message))
 ORDER BY f.created_at DESC, f.user_id DESC, f.message_id DESC
 LIMIT :page
""",
    days="integer",
    kind="text",
    after_time="timestamptz",
    after_user="text",
    after_message="uuid",
    page="bigint",
)

# What is being written is in the log of unfinished text, too, which is not read here.
LIST_RECORDS_OF_THREAD = Statement(
    "list_records_of_thread",
    """
SELECT *
  FROM (SELECT position, 0 AS sequence, item_type AS kind, sender_name AS name, content AS text, NULL AS output,
               item::text AS item, is_partial, created_at
          FROM chat_messages
         WHERE user_id = :owner AND session_id = :session AND NOT is_draft
         UNION ALL
        SELECT position, sequence, 'tool_call', name, arguments, output, NULL, false, created_at
          FROM chat_tool_calls
         WHERE user_id = :owner AND session_id = :session AND NOT is_draft) r
 WHERE (position, sequence) > (:after_position, :after_sequence)
 ORDER BY position, sequence
 LIMIT :page
""",
    session="uuid",
    after_position="bigint",
    after_sequence="integer",
    page="bigint",
)
