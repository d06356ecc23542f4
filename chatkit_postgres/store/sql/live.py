"""Statements about the running turn of a thread, for whoever follows or stops it from any process."""

from chatkit_postgres.db.statement import Statement
from chatkit_postgres.store.sql.forms import OF_ALL, OF_OWNER, Form
from chatkit_postgres.store.sql.partials import merged

# No row: no such thread. The turn is null if none is running; it is stale if its process shows no sign of life. Its
# first item is looked for among the newest, not in the whole thread.
FIND_RUNNING_TURN = Statement(
    "find_running_turn",
    """
SELECT t.turn_id, t.retry_from, t.open_position, s.thread_id,
       t.heartbeat_at < now() - make_interval(secs => :stale_seconds) AS is_stale,
       COALESCE((SELECT min(position) FILTER (WHERE newest.turn_id = t.turn_id)
                   FROM (SELECT position, turn_id FROM chat_messages
                          WHERE user_id = :owner AND session_id = :session
                          ORDER BY position DESC LIMIT 1000) newest
                  WHERE t.turn_id IS NOT NULL), s.next_position) AS first_position
  FROM chat_sessions s
  LEFT JOIN chat_turns t ON t.user_id = :owner AND t.session_id = :session AND t.turn_id = s.current_turn_id
                        AND t.ended_at IS NULL
 WHERE s.user_id = :owner AND s.session_id = :session
""",
    session="uuid",
    stale_seconds="double precision",
)

LIST_RUNNING_THREADS = Statement(
    "list_running_threads",
    """
SELECT s.thread_id, t.started_at AS since
  FROM chat_turns t
  JOIN chat_sessions s ON s.user_id = :owner AND s.session_id = t.session_id
 WHERE t.user_id = :owner AND t.state = 'running'
   AND t.heartbeat_at >= now() - make_interval(secs => :stale_seconds)
 ORDER BY since DESC
 LIMIT :page
""",
    stale_seconds="double precision",
    page="bigint",
)

# The process that runs the turn sees it within half a second. No row: no such thread.
REQUEST_STOP = Statement(
    "request_stop",
    """
WITH stopped AS (
  UPDATE chat_turns t SET stop_requested_at = now()
    FROM chat_sessions s
   WHERE s.user_id = :owner AND s.session_id = :session
     AND t.user_id = :owner AND t.session_id = :session AND t.turn_id = s.current_turn_id AND t.ended_at IS NULL
  RETURNING t.turn_id
)
SELECT stopped.turn_id FROM chat_sessions s LEFT JOIN stopped ON true
 WHERE s.user_id = :owner AND s.session_id = :session
""",
    session="uuid",
)

# The visible items of a turn, from its first one on, and those that a retry will replace.
LIST_ITEMS_OF_RUNNING_TURN = Statement(
    "list_items_of_running_turn",
    f"""
SELECT item_id, message_id, is_partial, ({merged("chat_messages")})::text AS item
  FROM chat_messages
 WHERE user_id = :owner AND session_id = :session AND position >= :first_position AND turn_id = :turn AND NOT is_draft
 ORDER BY position
""",
    session="uuid",
    turn="uuid",
    first_position="bigint",
)

LIST_REPLACED_ITEMS = Statement(
    "list_replaced_items",
    """
SELECT item_id FROM chat_messages
 WHERE user_id = :owner AND session_id = :session AND position > :retry_from AND position < :open_position
   AND NOT is_draft AND item_type NOT IN ('hidden_context_item', 'sdk_hidden_context')
""",
    session="uuid",
    retry_from="bigint",
    open_position="bigint",
)


# News of turns of several owners: each row names its own. Only turns with news are returned: new entries of the log,
# another write to the thread, or the end. Each entry is [sequence, message, content index, start, text, annotation].
def _poll_turns(form: Form) -> Statement:
    return Statement(
        form.name("poll_turns"),
        f"""
SELECT f.number, CASE WHEN s.session_id IS NOT NULL THEN t.state END AS state, t.error_code, s.updated_at, log.entries
  FROM jsonb_to_recordset(CAST(:followed AS jsonb)) AS f(
         number bigint, user_id text, session_id uuid, turn_id uuid, after bigint, seen_at timestamptz)
  LEFT JOIN chat_sessions s ON s.user_id = f.user_id AND s.session_id = f.session_id {form.own("s")}
  LEFT JOIN chat_turns t ON t.user_id = f.user_id AND t.session_id = f.session_id AND t.turn_id = f.turn_id
                        {form.own("t")}
  LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_array(l.sequence, l.message_id, l.content_index, l.start, l.text, l.annotation)
                     ORDER BY l.sequence)::text AS entries
      FROM chat_partial_log l
     WHERE l.user_id = f.user_id AND l.session_id = f.session_id AND l.turn_id = f.turn_id
       AND l.sequence > f.after {form.own("l")}
  ) log ON true
 WHERE log.entries IS NOT NULL OR t.state IS DISTINCT FROM 'running' OR s.updated_at IS DISTINCT FROM f.seen_at
""",
        followed="text",
    )


POLL_TURNS = _poll_turns(OF_ALL)
POLL_TURNS_OF_OWNER = _poll_turns(OF_OWNER)
