"""Statements about thread items."""

from chatkit_postgres.db.statement import ParameterType, Statement
from chatkit_postgres.store.sql.attachments import ALL_SENT, SENT, bound, dropped, sent
from chatkit_postgres.store.sql.index_entry import INDEXED_PARAMETER, REINDEXED_PARAMETER
from chatkit_postgres.store.sql.leftovers import CLOSED_RUNS, closed_runs
from chatkit_postgres.store.sql.partials import merged
from chatkit_postgres.store.sql.routing import OWN_THREAD, given
from chatkit_postgres.store.sql.tool_calls import replaced_calls
from chatkit_postgres.store.sql.turns import CLAIM

# Hides from a turn the drafts of other turns and, during a retry, the answer that it replaces.
VISIBLE = """(NOT is_draft OR turn_id = :turn)
       AND (position <= COALESCE(:retry_from, 9223372036854775807) OR turn_id = :turn)"""

VIEW: dict[str, ParameterType] = {"turn": "uuid", "retry_from": "bigint"}
"""The parameters of VISIBLE."""

HIDDEN = "('hidden_context_item', 'sdk_hidden_context')"


def _list_items(name: str, order: str, comparison: str, start: str) -> Statement:
    """Starts after ``after_position``, or after the item ``after``. ``found`` is that position."""
    return Statement(
        name,
        f"""
SELECT COALESCE(:after_position, c.position) AS found, m.*
  FROM (SELECT 1) one
  LEFT JOIN chat_messages c ON c.user_id = :owner AND c.session_id = :session AND c.message_id = {given(":after")}
  LEFT JOIN LATERAL (
    SELECT item_id, ({merged("chat_messages")})::text AS item, position
      FROM chat_messages
     WHERE user_id = :owner AND session_id = :session
       AND position {comparison} COALESCE(:after_position, c.position, {start})
       AND {VISIBLE}
       AND (:with_hidden OR item_type NOT IN {HIDDEN})
     ORDER BY position {order}
     LIMIT :page
  ) m ON true
 ORDER BY m.position {order}
""",
        session="uuid",
        after="uuid",
        after_position="bigint",
        with_hidden="boolean",
        page="bigint",
        **VIEW,
    )


LIST_ITEMS_NEWEST_FIRST = _list_items("list_items_newest_first", "DESC", "<", "9223372036854775807")
LIST_ITEMS_OLDEST_FIRST = _list_items("list_items_oldest_first", "ASC", ">", "0")

LOAD_ITEM = Statement(
    "load_item",
    f"""
SELECT item_id, ({merged("chat_messages")})::text AS item
  FROM chat_messages
 WHERE user_id = :owner AND session_id = :session AND message_id = :message
   AND {VISIBLE}
""",
    session="uuid",
    message="uuid",
    **VIEW,
)

# A settled item has its answer and is never changed again.
_SETTLED = """(m.item_type IN ('client_tool_call', 'structured_input')
               AND m.item ->> 'status' IN ('completed', 'answered', 'skipped'))"""

_MAY_REPLACE = f"""CASE
      WHEN m.is_partial THEN true
      WHEN {_SETTLED} THEN false
      WHEN m.item_type = 'workflow' THEN true
      ELSE :replace
    END"""


def _append(
    name: str, extra: str = "", *, sends: bool = False, replaced: str = "false", **more: ParameterType
) -> Statement:
    """Take a position, write the item, and return the outcome. With ``sends``, its attachments are assigned to the
    thread; if one cannot be, nothing is written. The log of an unfinished message under this id ends with it.

    Columns: ``fence_before``, the fence before the statement; ``accepted``, whether the fence or the status let the
    write through; ``complete``, whether all attachments could be sent; ``same``, whether the row now holds this very
    item; ``ours``, whether this turn wrote it; ``settled``; ``replaced``, whether the answer of a retry was deleted;
    ``closed_calls``, the calls of runs that this message of the user has ended. No row: no such thread.
    """
    before, after = (sent(":message"), f", {bound('session', ':message')}") if sends else ("", "")
    complete = ALL_SENT if sends else "true"
    types = more | SENT if sends else more
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
  SELECT o.user_id, o.session_id, :turn, :operation, :idempotency_key, :request_hash
    FROM session JOIN {OWN_THREAD} WHERE :opens
  ON CONFLICT (user_id, session_id, turn_id) DO NOTHING
), {closed_runs("session", ":opens AND :item_type = 'user_message'")}{extra}, written AS (
  INSERT INTO chat_messages AS m
         (user_id, session_id, message_id, item_id, position, sender_type, sender_name, item_type, content, item,
          search_words, turn_id, is_partial, is_draft)
  SELECT o.user_id, o.session_id, :message, :item_id, session.position, :sender_type, :sender_name, :item_type,
         :content, CAST(:item AS jsonb), {INDEXED_PARAMETER}, :turn, false, :draft
    FROM session JOIN {OWN_THREAD}
  ON CONFLICT (user_id, session_id, message_id) DO UPDATE
     SET item = CASE WHEN {_MAY_REPLACE} THEN excluded.item ELSE m.item END,
         content = CASE WHEN {_MAY_REPLACE} THEN excluded.content ELSE m.content END,
         search_words = CASE WHEN {_MAY_REPLACE} THEN {REINDEXED_PARAMETER} ELSE m.search_words END,
         item_type = CASE WHEN {_MAY_REPLACE} THEN excluded.item_type ELSE m.item_type END,
         turn_id = CASE WHEN {_MAY_REPLACE} AND m.is_partial THEN excluded.turn_id ELSE m.turn_id END,
         is_partial = CASE WHEN {_MAY_REPLACE} THEN excluded.is_partial ELSE m.is_partial END,
         is_draft = CASE WHEN {_MAY_REPLACE} THEN excluded.is_draft ELSE m.is_draft END
  RETURNING m.item = CAST(:item AS jsonb) AS same,
            m.turn_id IS NOT DISTINCT FROM :turn AS ours, {_SETTLED} AS settled
), log_deleted AS (
  DELETE FROM chat_partial_log l USING session
   WHERE l.user_id = :owner AND l.session_id = :session AND l.turn_id = :turn AND l.message_id = :message
){after}
SELECT s.current_turn_id AS fence_before, EXISTS (SELECT 1 FROM session) AS accepted, {complete} AS complete,
       written.same, written.ours, written.settled, {replaced} AS replaced, {CLOSED_RUNS}
  FROM chat_sessions s LEFT JOIN written ON true
 WHERE s.user_id = :owner AND s.session_id = :session
""",
        session="uuid",
        message="uuid",
        item_id="text",
        item_type="text",
        sender_type="text",
        sender_name="text",
        content="text",
        item="text",
        words="text",
        owner_mark="text",
        draft="boolean",
        replace="boolean",
        turn="uuid",
        opens="boolean",
        **CLAIM,
        **types,
    )


APPEND_ITEM = _append("append_item")
APPEND_ITEM_WITH_ATTACHMENTS = _append("append_item_with_attachments", sends=True)

# The first final item of a retry: in one transaction the old answer is deleted and the drafts become visible. Not so if
# it is an item from before the retried message, which the new answer only updates.
APPEND_ITEM_OF_RETRY = _append(
    "append_item_of_retry",
    f""", earlier AS (
  SELECT 1 FROM chat_messages
   WHERE user_id = :owner AND session_id = :session AND message_id = :message AND position <= :retry_from
), replaced AS (
  DELETE FROM chat_messages m USING session
   WHERE m.user_id = :owner AND m.session_id = :session
     AND m.position > :retry_from AND m.position < :open_position AND NOT EXISTS (SELECT 1 FROM earlier)
  RETURNING m.message_id
), {dropped("replaced")}, published AS (
  UPDATE chat_messages m SET is_draft = false FROM session
   WHERE m.user_id = :owner AND m.session_id = :session
     AND m.turn_id = :turn AND m.is_draft AND m.message_id <> :message AND NOT EXISTS (SELECT 1 FROM earlier)
), {replaced_calls("NOT EXISTS (SELECT 1 FROM earlier)")}""",
    sends=True,
    replaced="NOT EXISTS (SELECT 1 FROM earlier)",
    retry_from="bigint",
    open_position="bigint",
)

# Makes the drafts that an output guardrail accepted visible; in a retry, in place of the old answer.
PUBLISH_ANSWER = Statement(
    "publish_answer",
    f"""
WITH session AS (
  UPDATE chat_sessions SET updated_at = now()
   WHERE user_id = :owner AND session_id = :session AND current_turn_id = :turn
  RETURNING session_id
), replaced AS (
  DELETE FROM chat_messages m USING session
   WHERE m.user_id = :owner AND m.session_id = :session
     AND m.position > :retry_from AND m.position < :open_position
  RETURNING m.message_id
), {dropped("replaced")}, published AS (
  UPDATE chat_messages m SET is_draft = false FROM session
   WHERE m.user_id = :owner AND m.session_id = :session AND m.turn_id = :turn AND m.is_draft
), {replaced_calls()}
SELECT EXISTS (SELECT 1 FROM session) AS accepted
  FROM chat_sessions s
 WHERE s.user_id = :owner AND s.session_id = :session
""",
    session="uuid",
    turn="uuid",
    retry_from="bigint",
    open_position="bigint",
)

# Outside of a turn: only a finished item of an active thread.
CHANGE_ITEM = Statement(
    "change_item",
    f"""
UPDATE chat_messages m SET item = CAST(:item AS jsonb), content = :content, search_words = {REINDEXED_PARAMETER}
  FROM chat_sessions s
 WHERE s.user_id = :owner AND s.session_id = :session AND s.status ->> 'type' = 'active'
   AND m.user_id = :owner AND m.session_id = :session AND m.message_id = :message
   AND m.item_type = :item_type AND NOT m.is_partial AND NOT m.is_draft
RETURNING m.message_id
""",
    item="text",
    content="text",
    words="text",
    owner_mark="text",
    session="uuid",
    message="uuid",
    item_type="text",
)

# The newest call after the user's last message, which makes earlier calls void.
FIND_LAST_CALL = Statement(
    "find_last_call",
    """
SELECT item_id, item::text AS item
  FROM chat_messages
 WHERE user_id = :owner AND session_id = :session AND NOT is_draft AND item_type = 'client_tool_call'
   AND position > COALESCE((SELECT max(position) FROM chat_messages
                             WHERE user_id = :owner AND session_id = :session AND NOT is_draft
                               AND item_type = 'user_message'), 0)
 ORDER BY position DESC
 LIMIT 1
""",
    session="uuid",
)

# With a message, what the tools of its turn said is forgotten.
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
  RETURNING m.message_id, m.turn_id, m.item_type
), calls_deleted AS (
  DELETE FROM chat_tool_calls c USING removed r
   WHERE c.user_id = :owner AND c.session_id = :session AND c.turn_id = r.turn_id
     AND r.item_type IN ('user_message', 'assistant_message')
), log_deleted AS (
  DELETE FROM chat_partial_log l USING session
   WHERE l.user_id = :owner AND l.session_id = :session AND l.message_id = :message
     AND (:turn IS NULL OR l.turn_id = :turn)
), {dropped("removed")}
SELECT EXISTS (SELECT 1 FROM session) AS accepted
  FROM chat_sessions s
 WHERE s.user_id = :owner AND s.session_id = :session
""",
    session="uuid",
    turn="uuid",
    message="uuid",
)
