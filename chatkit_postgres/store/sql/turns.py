"""Statements about turns: taking the fence, opening, ending."""

from chatkit_postgres.db.statement import ParameterType, Statement
from chatkit_postgres.store.sql.index_entry import REINDEXED_PARAMETER, indexed
from chatkit_postgres.store.sql.leftovers import CLOSED_RUNS, closed_runs, discarded_leftovers
from chatkit_postgres.store.sql.limits import RELEASED
from chatkit_postgres.store.sql.partials import log_of_ended, merged
from chatkit_postgres.store.sql.routing import OWN_THREAD

CLAIM: dict[str, ParameterType] = {"operation": "text", "idempotency_key": "text", "request_hash": "text"}
"""The parameters that a statement which opens a turn writes into the ledger."""

# Before the retried message is read, so that the snapshot of that read is newer than the lock.
TAKE_FENCE = Statement(
    "take_fence",
    """
WITH session AS (
  UPDATE chat_sessions SET current_turn_id = :turn, updated_at = now()
   WHERE user_id = :owner AND session_id = :session AND status ->> 'type' = 'active'
  RETURNING next_position
)
SELECT s.current_turn_id AS fence_before, session.next_position
  FROM chat_sessions s LEFT JOIN session ON true
 WHERE s.user_id = :owner AND s.session_id = :session
""",
    turn="uuid",
    session="uuid",
)

# A retry makes questions void that still wait for their answer.
OPEN_TURN = Statement(
    "open_turn",
    f"""
WITH opened AS (
  INSERT INTO chat_turns
         (user_id, session_id, turn_id, operation, retry_from, open_position, idempotency_key, request_hash)
  VALUES (:owner, :session, :turn, :operation, :retry_from, :open_position, :idempotency_key, :request_hash)
  ON CONFLICT (user_id, session_id, turn_id) DO NOTHING
  RETURNING turn_id
), {closed_runs("opened", ":retry_from IS NOT NULL")}
SELECT {CLOSED_RUNS}
""",
    session="uuid",
    turn="uuid",
    retry_from="bigint",
    open_position="bigint",
    **CLAIM,
)

FIND_RETRIED_MESSAGE = Statement(
    "find_retried_message",
    """
SELECT position, item_id, item::text AS item
  FROM chat_messages
 WHERE user_id = :owner AND session_id = :session AND message_id = :message AND NOT is_draft
""",
    session="uuid",
    message="uuid",
)

# The answer to a waiting item: takes the fence only if the item still waits. An item also counts as waiting if the same
# answer was accepted by a turn that failed.
SETTLE_ITEM = Statement(
    "settle_item",
    f"""
WITH thread AS (
  SELECT current_turn_id FROM chat_sessions
   WHERE user_id = :owner AND session_id = :session AND status ->> 'type' = 'active'
     FOR UPDATE
), settled AS (
  UPDATE chat_messages m
     SET item = CAST(:item AS jsonb), content = :content, search_words = {REINDEXED_PARAMETER},
         turn_id = :turn, is_partial = false
    FROM thread
   WHERE m.user_id = :owner AND m.session_id = :session AND m.message_id = :message
     AND (m.item ->> 'status' = 'pending'
          OR m.turn_id = :turn
          OR m.item = CAST(:item AS jsonb)
             AND EXISTS (SELECT 1 FROM chat_turns t
                          WHERE t.user_id = :owner AND t.session_id = :session AND t.turn_id = m.turn_id
                            AND t.state IN ('failed', 'stopped', 'interrupted')))
  RETURNING m.position
), fence AS (
  UPDATE chat_sessions s SET current_turn_id = :turn, updated_at = now()
    FROM settled
   WHERE s.user_id = :owner AND s.session_id = :session
  RETURNING s.session_id
), opened AS (
  INSERT INTO chat_turns (user_id, session_id, turn_id, operation, idempotency_key, request_hash)
  SELECT o.user_id, o.session_id, :turn, :operation, :idempotency_key, :request_hash FROM fence JOIN {OWN_THREAD}
  ON CONFLICT (user_id, session_id, turn_id) DO NOTHING
)
SELECT s.current_turn_id AS fence_before,
       EXISTS (SELECT 1 FROM thread) AS is_active, EXISTS (SELECT 1 FROM settled) AS accepted
  FROM chat_sessions s
 WHERE s.user_id = :owner AND s.session_id = :session
""",
    session="uuid",
    item="text",
    content="text",
    words="text",
    owner_mark="text",
    turn="uuid",
    message="uuid",
    **CLAIM,
)

# Fenced like every write. No row: the thread is deleted. `holds` is false if another turn has the fence, or if this
# turn was closed, which its `state` shows.
HEARTBEAT = Statement(
    "heartbeat",
    """
WITH beat AS (
  UPDATE chat_turns t SET heartbeat_at = now()
    FROM chat_sessions s
   WHERE s.user_id = :owner AND s.session_id = :session AND s.current_turn_id = :turn
     AND t.user_id = :owner AND t.session_id = :session AND t.turn_id = :turn AND t.ended_at IS NULL
  RETURNING t.turn_id
)
SELECT EXISTS (SELECT 1 FROM beat) AS holds, t.state
  FROM chat_sessions s
  LEFT JOIN chat_turns t ON t.user_id = :owner AND t.session_id = :session AND t.turn_id = :turn
 WHERE s.user_id = :owner AND s.session_id = :session
""",
    session="uuid",
    turn="uuid",
)

# Once for each turn: every further step depends on having ended it. It is the only write that a superseded turn may
# still make: it updates unfinished messages that a checkpoint has saved. New rows need the fence, because a retry may
# have deleted the rows of this turn, and they must not reappear after the new answer. Drafts that were never published
# are deleted, and the run that this turn has gone on with; an interrupted one can go on once more. What the turn held
# of its user's tokens becomes what it has spent.
FINISH_TURN = Statement(
    "finish_turn",
    f"""
WITH ended AS (
  UPDATE chat_turns
     SET state = :state, ended_at = now(), heartbeat_at = now(),
         error_code = :error_code, usage = CAST(:usage AS jsonb)
   WHERE user_id = :owner AND session_id = :session AND turn_id = :turn AND ended_at IS NULL
  RETURNING turn_id, CAST(ended_at AT TIME ZONE 'UTC' AS date) AS day
), held AS (
  UPDATE chat_sessions s
     SET current_turn_id = NULL, next_position = s.next_position + :partials_count
    FROM ended
   WHERE s.user_id = :owner AND s.session_id = :session AND s.current_turn_id = ended.turn_id
  RETURNING s.next_position - :partials_count AS first_position
), partial AS (
  SELECT * FROM jsonb_to_recordset(CAST(:partials AS jsonb)) AS p(
    number bigint, message_id uuid, item_id text, sender_type text, item_type text, content text, item jsonb,
    words text, owner_mark text)
), saved AS (
  INSERT INTO chat_messages AS m
         (user_id, session_id, message_id, item_id, position, sender_type, sender_name, item_type, content, item,
          search_words, turn_id, is_partial)
  SELECT o.user_id, o.session_id, p.message_id, p.item_id, held.first_position + p.number, p.sender_type,
         :sender_name, p.item_type, p.content, p.item,
         {indexed("CAST(p.words AS tsvector)", "p.owner_mark", "now()")}, :turn, true
    FROM held JOIN {OWN_THREAD}, partial p
  ON CONFLICT (user_id, session_id, message_id) DO UPDATE
     SET item = excluded.item, content = excluded.content,
         search_words = excluded.search_words
   WHERE m.is_partial AND m.turn_id = :turn
), completed AS (
  UPDATE chat_messages m
     SET item = p.item, content = p.content,
         search_words = {indexed("CAST(p.words AS tsvector)", "p.owner_mark", "m.created_at")}
    FROM ended, partial p
   WHERE m.user_id = :owner AND m.session_id = :session AND m.message_id = p.message_id
     AND m.is_partial AND m.turn_id = ended.turn_id AND NOT EXISTS (SELECT 1 FROM held)
), discarded AS (
  DELETE FROM chat_messages m USING ended
   WHERE m.user_id = :owner AND m.session_id = :session AND m.turn_id = ended.turn_id AND m.is_draft
), log_deleted AS (
  DELETE FROM chat_partial_log l USING ended
   WHERE l.user_id = :owner AND l.session_id = :session AND l.turn_id = ended.turn_id
), calls_discarded AS (
  DELETE FROM chat_tool_calls c USING ended
   WHERE c.user_id = :owner AND c.session_id = :session AND c.turn_id = ended.turn_id AND c.is_draft
), run_discarded AS (
  DELETE FROM chat_approvals a USING ended
   WHERE a.user_id = :owner AND a.session_id = :session
     AND (a.turn_id = ended.turn_id AND a.resumed_by IS NULL AND :state <> 'waiting'
          OR a.resumed_by = ended.turn_id AND :state <> 'interrupted')
), settled AS (
  UPDATE chat_allowances a
     SET {RELEASED},
         tokens_spent = :tokens_spent + CASE WHEN a.day < ended.day THEN 0 ELSE a.tokens_spent END,
         day = GREATEST(a.day, ended.day)
    FROM ended
   WHERE a.user_id = :owner
  RETURNING a.tokens_spent
)
SELECT turn_id, (SELECT tokens_spent FROM settled) AS tokens_spent FROM ended
""",
    state="text",
    error_code="text",
    usage="text",
    session="uuid",
    turn="uuid",
    hold="text",
    tokens_spent="bigint",
    partials_count="bigint",
    partials="text",
    sender_name="text",
)

# A turn whose process died or stalled: any process may close it and release its fence.
CLOSE_STALE_TURNS = Statement(
    "close_stale_turns",
    f"""
WITH closed AS (
  UPDATE chat_turns
     SET state = 'interrupted', ended_at = now(), error_code = 'interrupted'
   WHERE user_id = :owner AND session_id = :session AND state = 'running'
     AND heartbeat_at < now() - make_interval(secs => :stale_seconds)
  RETURNING session_id, turn_id, operation
), released AS (
  UPDATE chat_sessions s SET current_turn_id = NULL FROM closed
   WHERE s.user_id = :owner AND s.session_id = :session AND s.current_turn_id = closed.turn_id
), {log_of_ended("closed")}, {discarded_leftovers("closed")}
SELECT turn_id, operation FROM closed
""",
    session="uuid",
    stale_seconds="double precision",
)

FIND_TURN_BY_KEY = Statement(
    "find_turn_by_key",
    """
SELECT t.session_id, t.turn_id, t.operation, t.state, t.error_code, t.request_hash, s.thread_id
  FROM chat_turns t
  LEFT JOIN chat_sessions s ON s.user_id = :owner AND s.session_id = t.session_id
 WHERE t.user_id = :owner AND t.idempotency_key = :idempotency_key
""",
    idempotency_key="text",
)

LIST_ITEMS_OF_TURN = Statement(
    "list_items_of_turn",
    f"""
SELECT item_id, ({merged("chat_messages")})::text AS item
  FROM chat_messages
 WHERE user_id = :owner AND session_id = :session AND turn_id = :turn AND NOT is_draft
 ORDER BY position
""",
    session="uuid",
    turn="uuid",
)


def sum_of(name: str) -> str:
    """The sum of a token count; a value that is not a number counts as zero."""
    count = f"usage ->> '{name}'"
    return f"COALESCE(sum(CASE WHEN {count} ~ '^[0-9]{{1,15}}$' THEN ({count})::bigint END), 0)::bigint AS {name}"


SUM_USAGE = Statement(
    "sum_usage",
    f"""
SELECT to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS date, count(*) AS turns,
       {sum_of("input_tokens")},
       {sum_of("cached_tokens")},
       {sum_of("output_tokens")},
       {sum_of("reasoning_tokens")}
  FROM chat_turns
 WHERE user_id = :owner AND started_at >= (date_trunc('day', now() AT TIME ZONE 'UTC')
                                           - make_interval(days => :days - 1)) AT TIME ZONE 'UTC'
 GROUP BY 1
 ORDER BY 1
""",
    days="integer",
)
