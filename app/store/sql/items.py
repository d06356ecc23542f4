"""Statements about thread items and feedback on them."""

from app.db import Statement
from app.store.sql.attachments import ALL_SENT, bound, dropped, sent

# What a turn may see: no other turn's drafts, and, while it retries, not the answer that it replaces.
_VISIBLE = """(NOT is_draft OR turn_id = :turn)
       AND (position <= COALESCE(:retry_from, 9223372036854775807) OR turn_id = :turn)"""


def _list_items(name: str, order: str, comparison: str, start: str) -> Statement:
    return Statement(
        name,
        f"""
SELECT c.position AS cursor, m.*
  FROM (SELECT 1) one
  LEFT JOIN chat_messages c ON c.user_id = :owner AND c.session_id = :session AND c.message_id = :after
  LEFT JOIN LATERAL (
    SELECT item_id, item::text AS item, position
      FROM chat_messages
     WHERE user_id = :owner AND session_id = :session AND position {comparison} COALESCE(c.position, {start})
       AND {_VISIBLE}
     ORDER BY position {order}
     LIMIT :page
  ) m ON true
 ORDER BY m.position {order}
""",
    )


LIST_ITEMS_NEWEST_FIRST = _list_items("list_items_newest_first", "DESC", "<", "9223372036854775807")
LIST_ITEMS_OLDEST_FIRST = _list_items("list_items_oldest_first", "ASC", ">", "0")

# What was said here was refused by a guardrail and must not reach a model again: the last turn that was to answer it
# was ended by one; or the turn that was came to nothing before a verdict, and the next verdict, which was on both, was
# no. A retry that passed, or the one that asks, comes after it. An action may have been answered without a verdict.
# The turns are read once, and only in a thread in which there was a refusal.
_VERDICTS = """turns AS MATERIALIZED (
  SELECT turn_id, retry_from, started_at, state, error_code = 'input_guardrail_tripped' AS is_refusal,
         state = 'completed' AND operation <> 'threads.custom_action' AS has_passed
    FROM chat_turns
   WHERE user_id = :owner AND session_id = :session
     AND EXISTS (SELECT 1 FROM chat_turns
                  WHERE user_id = :owner AND session_id = :session AND error_code = 'input_guardrail_tripped')
), judged AS (
  SELECT turn_id, state, is_refusal,
         min(started_at) FILTER (WHERE is_refusal) OVER later AS next_refusal,
         min(started_at) FILTER (WHERE has_passed) OVER later AS next_pass
    FROM turns
  WINDOW later AS (ORDER BY started_at DESC, turn_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
), refused AS (
  SELECT turn_id FROM judged
   WHERE is_refusal
      OR state NOT IN ('completed', 'running') AND next_refusal < COALESCE(next_pass, 'infinity')
), retried AS (
  SELECT retry_from AS position,
         max(started_at) FILTER (WHERE is_refusal) AS refused_at,
         max(started_at) FILTER (WHERE state = 'completed' OR turn_id = :turn) AS passed_at
    FROM turns WHERE retry_from IS NOT NULL GROUP BY retry_from
)"""
_REFUSED = """(position IN (SELECT position FROM retried WHERE refused_at > COALESCE(passed_at, '-infinity'))
                OR COALESCE(turn_id IN (SELECT turn_id FROM refused), false)
                   AND position NOT IN (SELECT position FROM retried WHERE passed_at IS NOT NULL))"""

# From the newest backwards, until the bytes are used up: however long the thread and its messages are, the same rows
# and bytes of them are read. The newest is always there. A widget that says what it shows, and a picture, are a line to
# the model, whatever they weigh.
LOAD_NEWEST_ITEMS = Statement(
    "load_newest_items",
    f"""
WITH {_VERDICTS}
SELECT item, is_partial, is_last
  FROM (
    SELECT item, is_partial, position,
           sum(weight) OVER (ORDER BY position DESC) AS bytes_so_far,
           row_number() OVER (ORDER BY position DESC) AS number,
           lead(position) OVER (ORDER BY position DESC) IS NULL AS is_last
      FROM (
        SELECT item::text AS item, is_partial, position,
               CASE WHEN item_type = 'generated_image' OR item_type = 'widget' AND content <> ''
                    THEN octet_length(content) + 200 ELSE octet_length(item::text) END AS weight
          FROM chat_messages
         WHERE user_id = :owner AND session_id = :session AND {_VISIBLE}
           AND NOT (item_type IN ('user_message', 'structured_input', 'client_tool_call') AND {_REFUSED})
         ORDER BY position DESC
         LIMIT :page
      ) newest
  ) measured
 WHERE number = 1 OR (number < :page AND bytes_so_far <= :most_bytes)
 ORDER BY position DESC
""",
)

LOAD_ITEM = Statement(
    "load_item",
    f"""
SELECT item::text AS item
  FROM chat_messages
 WHERE user_id = :owner AND session_id = :session AND message_id = :message
   AND {_VISIBLE}
""",
)

# A settled item has its answer, and nothing changes it any more.
_SETTLED = """(m.item_type IN ('client_tool_call', 'structured_input')
               AND m.item ->> 'status' IN ('completed', 'answered', 'skipped'))"""

_MAY_REPLACE = f"""CASE
      WHEN m.is_partial THEN true
      WHEN :partial THEN false
      WHEN {_SETTLED} THEN false
      WHEN m.item_type = 'workflow' THEN true
      ELSE :replace
    END"""


def _append(name: str, extra: str = "", *, sends: bool = False) -> Statement:
    """Take a position, write the item, and say what happened; with ``sends``, its attachments become the thread's, or
    nothing happens.

    Columns: ``fence_before``, the fence before the statement; ``accepted``, whether the fence or the status let the
    write through; ``complete``, whether all attachments could be sent; ``same``, whether the row now holds this very
    item; ``ours``, whether this turn wrote it; ``settled``. No row: no such thread.
    """
    before, after = (sent(":message"), f", {bound('session', ':message')}") if sends else ("", "")
    complete = ALL_SENT if sends else "true"
    return Statement(
        name,
        f"""
WITH {before}session AS (
  UPDATE chat_sessions
     SET next_position = next_position + 1, updated_at = now(),
         current_turn_id = CASE WHEN :opens THEN :turn ELSE current_turn_id END
   WHERE user_id = :owner AND session_id = :session
     AND CASE WHEN :opens THEN status ->> 'type' = 'active' OR current_turn_id = :turn
              ELSE :turn IS NULL OR current_turn_id = :turn END
     AND {complete}
  RETURNING next_position - 1 AS position
), opened AS (
  INSERT INTO chat_turns (user_id, session_id, turn_id, operation, idempotency_key, request_hash)
  SELECT :owner, :session, :turn, :operation, :idempotency_key, :request_hash FROM session WHERE :opens
  ON CONFLICT (user_id, session_id, turn_id) DO NOTHING
){extra}, written AS (
  INSERT INTO chat_messages AS m
         (user_id, session_id, message_id, item_id, position, sender_type, sender_name, item_type, content, item,
          turn_id, is_partial, is_draft)
  SELECT :owner, :session, :message, :item_id, session.position, :sender_type, :sender_name, :item_type, :content,
         CAST(:item AS jsonb), :turn, :partial, :draft
    FROM session
  ON CONFLICT (user_id, session_id, message_id) DO UPDATE
     SET item = CASE WHEN {_MAY_REPLACE} THEN excluded.item ELSE m.item END,
         content = CASE WHEN {_MAY_REPLACE} THEN excluded.content ELSE m.content END,
         item_type = CASE WHEN {_MAY_REPLACE} THEN excluded.item_type ELSE m.item_type END,
         turn_id = CASE WHEN {_MAY_REPLACE} AND m.is_partial THEN excluded.turn_id ELSE m.turn_id END,
         is_partial = CASE WHEN {_MAY_REPLACE} THEN excluded.is_partial ELSE m.is_partial END,
         is_draft = CASE WHEN {_MAY_REPLACE} THEN excluded.is_draft ELSE m.is_draft END
  RETURNING m.item = CAST(:item AS jsonb) AND m.is_partial = :partial AS same,
            m.turn_id IS NOT DISTINCT FROM :turn AS ours, {_SETTLED} AS settled
){after}
SELECT s.current_turn_id AS fence_before, EXISTS (SELECT 1 FROM session) AS accepted, {complete} AS complete,
       written.same, written.ours, written.settled
  FROM chat_sessions s LEFT JOIN written ON true
 WHERE s.user_id = :owner AND s.session_id = :session
""",
    )


APPEND_ITEM = _append("append_item")
APPEND_ITEM_WITH_ATTACHMENTS = _append("append_item_with_attachments", sends=True)
# The same, under a name of its own: how often it runs depends on how long answers take.
CHECKPOINT_ITEM = _append("checkpoint_item")

# The first final item of a retry: in the same transaction the old answer goes and the drafts come out.
APPEND_ITEM_OF_RETRY = _append(
    "append_item_of_retry",
    f""", replaced AS (
  DELETE FROM chat_messages m USING session
   WHERE m.user_id = :owner AND m.session_id = :session
     AND m.position > :retry_from AND m.position < :open_position
  RETURNING m.message_id
), {dropped("replaced")}, published AS (
  UPDATE chat_messages m SET is_draft = false FROM session
   WHERE m.user_id = :owner AND m.session_id = :session
     AND m.turn_id = :turn AND m.is_draft AND m.message_id <> :message
)""",
    sends=True,
)

# Outside of a turn: an item that is there, and finished, in a thread that takes changes.
CHANGE_ITEM = Statement(
    "change_item",
    """
UPDATE chat_messages m SET item = CAST(:item AS jsonb), content = :content
  FROM chat_sessions s
 WHERE s.user_id = :owner AND s.session_id = :session AND s.status ->> 'type' = 'active'
   AND m.user_id = :owner AND m.session_id = :session AND m.message_id = :message
   AND m.item_type = :item_type AND NOT m.is_partial AND NOT m.is_draft
RETURNING m.message_id
""",
)

# The call that a turn ended with, whatever else stands behind it; a newer message of the user makes it void.
FIND_LAST_CALL = Statement(
    "find_last_call",
    """
SELECT item::text AS item
  FROM chat_messages
 WHERE user_id = :owner AND session_id = :session AND NOT is_draft AND item_type = 'client_tool_call'
   AND position > COALESCE((SELECT max(position) FROM chat_messages
                             WHERE user_id = :owner AND session_id = :session AND NOT is_draft
                               AND item_type = 'user_message'), 0)
 ORDER BY position DESC
 LIMIT 1
""",
)

DELETE_ITEM = Statement(
    "delete_item",
    f"""
WITH session AS (
  UPDATE chat_sessions SET updated_at = now()
   WHERE user_id = :owner AND session_id = :session AND (:turn IS NULL OR current_turn_id = :turn)
  RETURNING session_id
), removed AS (
  DELETE FROM chat_messages m USING session
   WHERE m.user_id = :owner AND m.session_id = :session AND m.message_id = :message
  RETURNING m.message_id
), {dropped("removed")}
SELECT EXISTS (SELECT 1 FROM session) AS accepted
  FROM chat_sessions s
 WHERE s.user_id = :owner AND s.session_id = :session
""",
)


# All of the ids, or none.
SAVE_FEEDBACK = Statement(
    "save_feedback",
    """
WITH found AS (
  SELECT message_id FROM chat_messages
   WHERE user_id = :owner AND session_id = :session AND message_id = ANY(:messages)
     AND NOT is_draft AND item_type NOT IN ('hidden_context_item', 'sdk_hidden_context')
   -- So that none of them is deleted before the insert refers to it.
     FOR KEY SHARE
), saved AS (
  INSERT INTO chat_feedback (user_id, session_id, message_id, kind)
  SELECT :owner, :session, message_id, :kind FROM found
   WHERE (SELECT count(*) FROM found) = cardinality(:messages)
  ON CONFLICT (user_id, session_id, message_id) DO UPDATE
     SET kind = excluded.kind, created_at = now()
)
SELECT count(*) = cardinality(:messages) AS complete FROM found
""",
)
