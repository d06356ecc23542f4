"""Statements about runs that wait until their user has approved or refused calls of tools.

All answers of a run are in one row, so that the last one, and only it, goes on with the run.
"""

from chatkit_postgres.db.statement import Statement
from chatkit_postgres.store.sql.index_entry import REINDEXED_PARAMETER
from chatkit_postgres.store.sql.routing import OWN_THREAD
from chatkit_postgres.store.sql.turns import CLAIM

MAX_TAKEOVERS = 3

# The run that this turn has gone on with is a part of the new one. A turn waits for one run: of another one, nothing is
# saved.
PAUSE_RUN = Statement(
    "pause_run",
    """
WITH continued AS (
  DELETE FROM chat_approvals
   WHERE user_id = :owner AND session_id = :session AND resumed_by = :turn
), paused AS (
  INSERT INTO chat_approvals (user_id, session_id, turn_id, run_state, calls)
  SELECT user_id, session_id, :turn, :run_state, CAST(:calls AS jsonb)
    FROM chat_sessions
   WHERE user_id = :owner AND session_id = :session AND current_turn_id = :turn
     FOR NO KEY UPDATE
  ON CONFLICT (user_id, session_id, turn_id) DO UPDATE SET run_state = excluded.run_state
   WHERE chat_approvals.calls = excluded.calls
  RETURNING turn_id
)
SELECT EXISTS (SELECT 1 FROM paused) AS accepted, s.current_turn_id = :turn AS holds
  FROM chat_sessions s
 WHERE s.user_id = :owner AND s.session_id = :session
""",
    session="uuid",
    turn="uuid",
    run_state="text",
    calls="text",
)

FIND_PAUSED_RUN = Statement(
    "find_paused_run",
    """
SELECT turn_id, calls::text AS calls, resumed_by, run_state
  FROM chat_approvals
 WHERE user_id = :owner AND session_id = :session AND jsonb_exists(calls, :item_id)
""",
    session="uuid",
    item_id="text",
)

_OPENS = f""", fence AS (
  UPDATE chat_sessions s SET current_turn_id = :turn, updated_at = now()
    FROM answered
   WHERE s.user_id = :owner AND s.session_id = :session AND answered.resumed_by = :turn
), opened AS (
  INSERT INTO chat_turns (user_id, session_id, turn_id, operation, idempotency_key, request_hash)
  SELECT o.user_id, o.session_id, :turn, :operation, :idempotency_key, :request_hash
    FROM answered JOIN {OWN_THREAD}
  ON CONFLICT (user_id, session_id, turn_id) DO NOTHING
)
SELECT s.current_turn_id AS fence_before, EXISTS (SELECT 1 FROM thread) AS is_active,
       answered.turn_id, answered.calls::text AS calls, answered.resumed_by, answered.run_state
  FROM chat_sessions s LEFT JOIN answered ON true
 WHERE s.user_id = :owner AND s.session_id = :session
"""

_THREAD = """WITH thread AS (
  SELECT session_id, current_turn_id FROM chat_sessions
   WHERE user_id = :owner AND session_id = :session AND status ->> 'type' = 'active'
     FOR UPDATE
)"""

# Accepted once for each call: the answer, the item that shows it, and the turn, which goes on with the run, and takes
# the fence, if no other call of the run waits for its answer. Of answers that are sent at once, each waits for the one
# before it, and then sees its answer in the row.
ANSWER_CALL = Statement(
    "answer_call",
    f"""
{_THREAD}, answered AS (
  UPDATE chat_approvals a
     SET calls = jsonb_set(a.calls, ARRAY[:item_id], (a.calls -> :item_id) || CAST(:answer AS jsonb)),
         claims = CAST(:claims AS jsonb),
         resumed_by = CASE WHEN EXISTS (SELECT 1 FROM jsonb_each(a.calls) AS other(item_id, call)
                                         WHERE other.item_id <> :item_id AND other.call ->> 'answer' IS NULL)
                           THEN a.resumed_by ELSE :turn END
    FROM thread
   WHERE a.user_id = :owner AND a.session_id = :session AND jsonb_exists(a.calls, :item_id)
     AND (a.resumed_by IS NULL OR a.resumed_by = :turn)
     AND (a.calls -> :item_id ->> 'answer' IS NULL OR a.calls -> :item_id ->> 'answered_by' = CAST(:turn AS text))
  RETURNING a.turn_id, a.calls, a.resumed_by, a.run_state
), shown AS (
  UPDATE chat_messages m
     SET item = CAST(:item AS jsonb), content = :content,
         search_words = {REINDEXED_PARAMETER},
         -- So that those who follow the turn that goes on see the card.
         turn_id = CASE WHEN answered.resumed_by = :turn THEN :turn ELSE m.turn_id END
    FROM answered
   WHERE m.user_id = :owner AND m.session_id = :session AND m.message_id = :message
){_OPENS}""",
    session="uuid",
    turn="uuid",
    item_id="text",
    answer="text",
    claims="text",
    message="uuid",
    item="text",
    content="text",
    words="text",
    owner_mark="text",
    **CLAIM,
)

# A run whose calls are answered, and whose turn was interrupted: its process died, or was shut down. Not while another
# turn runs in the thread.
TAKE_OVER_RUN = Statement(
    "take_over_run",
    f"""
{_THREAD}, answered AS (
  UPDATE chat_approvals a
     SET resumed_by = :turn, takeovers = a.takeovers + CASE WHEN a.resumed_by = :turn THEN 0 ELSE 1 END
    FROM thread
   WHERE a.user_id = :owner AND a.session_id = :session AND a.turn_id = :asked_by
     AND (thread.current_turn_id IS NULL OR thread.current_turn_id IN (:turn, a.resumed_by))
     AND (a.resumed_by = :turn
          OR EXISTS (SELECT 1 FROM chat_turns t
                      WHERE t.user_id = :owner AND t.session_id = :session AND t.turn_id = a.resumed_by
                        AND t.state = 'interrupted'))
  RETURNING a.turn_id, a.calls, a.resumed_by, a.run_state
){_OPENS}""",
    session="uuid",
    turn="uuid",
    asked_by="uuid",
    **CLAIM,
)

# Once for each call: by the turn that goes on with the run, while it holds the fence. No row: the call must not run.
BEGIN_CALL = Statement(
    "begin_call",
    """
UPDATE chat_approvals a
   SET calls = jsonb_set(a.calls, ARRAY[:item_id, 'begun_by'], to_jsonb(CAST(:turn AS text)))
  FROM chat_sessions s
 WHERE s.user_id = :owner AND s.session_id = :session AND s.current_turn_id = :turn
   AND a.user_id = :owner AND a.session_id = :session AND a.resumed_by = :turn
   AND a.calls -> :item_id ->> 'answer' = 'approved'
   AND COALESCE(a.calls -> :item_id ->> 'begun_by', CAST(:turn AS text)) = CAST(:turn AS text)
RETURNING a.turn_id
""",
    session="uuid",
    turn="uuid",
    item_id="text",
)

END_CALL = Statement(
    "end_call",
    """
UPDATE chat_approvals a
   SET calls = jsonb_set(a.calls, ARRAY[:item_id, 'output'], CAST(:output AS jsonb))
 WHERE a.user_id = :owner AND a.session_id = :session AND a.resumed_by = :turn
   AND a.calls -> :item_id ->> 'begun_by' = CAST(:turn AS text)
""",
    session="uuid",
    turn="uuid",
    item_id="text",
    output="text",
)

GIVE_UP_RUN = Statement(
    "give_up_run",
    """
DELETE FROM chat_approvals a
 WHERE a.user_id = :owner AND a.session_id = :session AND a.turn_id = :asked_by
   AND EXISTS (SELECT 1 FROM chat_turns t
                WHERE t.user_id = :owner AND t.session_id = :session AND t.turn_id = a.resumed_by
                  AND t.state = 'interrupted')
RETURNING a.calls::text AS calls
""",
    session="uuid",
    asked_by="uuid",
)

LIST_WAITING_THREADS = Statement(
    "list_waiting_threads",
    """
SELECT s.thread_id, min(a.created_at) AS since
  FROM chat_approvals a
  JOIN chat_sessions s ON s.user_id = :owner AND s.session_id = a.session_id
 WHERE a.user_id = :owner AND a.resumed_by IS NULL
 GROUP BY s.thread_id
 ORDER BY since DESC
 LIMIT :page
""",
    page="bigint",
)

# Of all owners: answered runs whose turn was interrupted, for a process that goes on with them. A run that has ended
# several processes must not end them all: it is given up. In random order, so that runs that cannot begin do not block
# the others.
LIST_ABANDONED_RUNS = Statement(
    "list_abandoned_runs",
    f"""
SELECT a.user_id, s.thread_id, a.turn_id, a.claims::text AS claims, a.takeovers >= {MAX_TAKEOVERS} AS is_hopeless
  FROM chat_approvals a
  JOIN chat_turns t ON t.user_id = a.user_id AND t.session_id = a.session_id AND t.turn_id = a.resumed_by
  JOIN chat_sessions s ON s.user_id = a.user_id AND s.session_id = a.session_id
  JOIN chat_users u ON u.user_id = a.user_id
 WHERE a.resumed_by IS NOT NULL AND t.state = 'interrupted' AND u.disabled_at IS NULL
   AND s.status ->> 'type' = 'active' AND (s.current_turn_id IS NULL OR s.current_turn_id = a.resumed_by)
 ORDER BY random()
 LIMIT 20
""",
)
