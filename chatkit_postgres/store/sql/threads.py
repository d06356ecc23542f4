"""Statements about threads."""

from chatkit_postgres.db.statement import ParameterType, Statement
from chatkit_postgres.store.sql.attachments import ALL_SENT, bound, sent
from chatkit_postgres.store.sql.index_entry import INDEXED_PARAMETER, indexed
from chatkit_postgres.store.sql.routing import given
from chatkit_postgres.store.sql.turns import CLAIM

_THREAD = """thread_id, title, status::text AS status, allowed_image_domains::text AS domains,
       metadata::text AS metadata, created_at"""

LOAD_THREAD = Statement(
    "load_thread",
    f"""
SELECT {_THREAD}
  FROM chat_sessions
 WHERE user_id = :owner AND session_id = :session
""",
    session="uuid",
)


_REINDEXED = indexed("CAST(:words AS tsvector)", ":owner_mark", "s.created_at")
_INDEXED_MESSAGE = indexed("CAST(:message_words AS tsvector)", ":owner_mark", "now()")


_OWNER = """owner AS (
  INSERT INTO chat_users AS u (user_id, metadata)
  SELECT :owner, COALESCE(CAST(:claims AS jsonb), '{{}}') WHERE {condition}
  ON CONFLICT (user_id) DO UPDATE SET metadata = excluded.metadata
   WHERE CAST(:claims AS jsonb) IS NOT NULL AND u.metadata <> excluded.metadata
)"""

_COLUMNS: dict[str, ParameterType] = {
    "session": "uuid",
    "thread_id": "text",
    "claims": "text",
    "title": "text",
    "words": "text",
    "owner_mark": "text",
    "status": "text",
    "domains": "text",
    "metadata": "text",
}

# Inserts a thread and, with the first one, its user; claims of an existing user are updated. On conflict: the same
# request repeated after a lost connection, or a caller that keeps no base to compare with.
INSERT_THREAD = Statement(
    "insert_thread",
    f"""
WITH {_OWNER.format(condition="true")}, written AS (
  INSERT INTO chat_sessions AS s
         (user_id, session_id, thread_id, title, search_words, status, allowed_image_domains, metadata)
  SELECT :owner, :session, :thread_id, :title, {INDEXED_PARAMETER}, CAST(:status AS jsonb), CAST(:domains AS jsonb),
         CAST(:metadata AS jsonb)
  ON CONFLICT (user_id, session_id) DO UPDATE
     SET title = excluded.title, search_words = {_REINDEXED}, status = excluded.status, metadata = excluded.metadata,
         allowed_image_domains = excluded.allowed_image_domains, updated_at = excluded.updated_at
  RETURNING {_THREAD}
)
SELECT * FROM written
""",
    **_COLUMNS,
)


def _begin_thread(name: str, *, sends: bool = False) -> Statement:
    """Insert a thread with the message that begins it, and open the turn that answers it, if there is one: the thread
    is never seen without its message. With ``sends``, the message's attachments are assigned to the thread.

    On conflict: the same request repeated after a lost connection, which changes nothing but ``updated_at``. No row: an
    attachment cannot be sent. The thread is written before its message, since a cluster checks foreign keys after each
    of the parts.
    """
    before, after = (sent(":message"), f", {bound('begun', ':message')}") if sends else ("", "")
    condition = ALL_SENT if sends else "true"
    attachments: dict[str, ParameterType] = {"attachments": "text[]"} if sends else {}
    return Statement(
        name,
        f"""
WITH {before}{_OWNER.format(condition=condition)}, written AS (
  INSERT INTO chat_sessions AS s
         (user_id, session_id, thread_id, title, search_words, status, allowed_image_domains, metadata, current_turn_id,
          next_position)
  SELECT :owner, :session, :thread_id, :title, {INDEXED_PARAMETER}, CAST(:status AS jsonb),
         CAST(:domains AS jsonb), CAST(:metadata AS jsonb), :turn, 2
   WHERE {condition}
  ON CONFLICT (user_id, session_id) DO UPDATE SET updated_at = excluded.updated_at
  RETURNING {_THREAD}
), opened AS (
  INSERT INTO chat_turns (user_id, session_id, turn_id, operation, idempotency_key, request_hash)
  SELECT :owner, :session, :turn, :operation, :idempotency_key, :request_hash
   WHERE :turn IS NOT NULL AND {condition}
  ON CONFLICT (user_id, session_id, turn_id) DO NOTHING
), begun AS (
  INSERT INTO chat_messages
         (user_id, session_id, message_id, item_id, position, sender_type, item_type, content, item, search_words,
          turn_id)
  SELECT :owner, :session, :message, :item_id, 1, :sender_type, :item_type, :content, CAST(:item AS jsonb),
         {_INDEXED_MESSAGE}, :turn
   WHERE {condition}
  ON CONFLICT (user_id, session_id, message_id) DO NOTHING
  RETURNING message_id
){after}
SELECT * FROM written
""",
        turn="uuid",
        message="uuid",
        item_id="text",
        item_type="text",
        sender_type="text",
        content="text",
        item="text",
        message_words="text",
        **_COLUMNS,
        **CLAIM,
        **attachments,
    )


BEGIN_THREAD = _begin_thread("begin_thread")
BEGIN_THREAD_WITH_ATTACHMENTS = _begin_thread("begin_thread_with_attachments", sends=True)

# Writes only the columns that this request changed. Guarded (inside a turn): only if the row still has the value that
# the request started from, so that a concurrent rename or lock wins over the stream.
UPDATE_THREAD = Statement(
    "update_thread",
    f"""
WITH written AS (
  UPDATE chat_sessions s
     SET title = CASE WHEN :set_title
                       AND (NOT :guarded OR title IS NOT DISTINCT FROM :old_title)
                      THEN :title ELSE title END,
         search_words = CASE WHEN :set_title
                              AND (NOT :guarded OR title IS NOT DISTINCT FROM :old_title)
                             THEN {_REINDEXED}
                             ELSE search_words END,
         status = CASE WHEN :set_status
                        AND (NOT :guarded OR status = CAST(:old_status AS jsonb))
                       THEN CAST(:status AS jsonb) ELSE status END,
         allowed_image_domains =
                  CASE WHEN :set_domains
                        AND (NOT :guarded OR allowed_image_domains IS NOT DISTINCT FROM CAST(:old_domains AS jsonb))
                       THEN CAST(:domains AS jsonb) ELSE allowed_image_domains END,
         metadata = CASE WHEN :set_metadata
                          AND (NOT :guarded OR metadata = CAST(:old_metadata AS jsonb))
                         THEN CAST(:metadata AS jsonb) ELSE metadata END,
         updated_at = now()
   WHERE user_id = :owner AND session_id = :session
     AND (:turn IS NULL OR current_turn_id = :turn)
  RETURNING {_THREAD}
)
SELECT written.*, written.thread_id IS NOT NULL AS accepted
  FROM chat_sessions s LEFT JOIN written ON true
 WHERE s.user_id = :owner AND s.session_id = :session
""",
    set_title="boolean",
    guarded="boolean",
    old_title="text",
    title="text",
    words="text",
    owner_mark="text",
    set_status="boolean",
    old_status="text",
    status="text",
    set_domains="boolean",
    old_domains="text",
    domains="text",
    set_metadata="boolean",
    old_metadata="text",
    metadata="text",
    session="uuid",
    turn="uuid",
)

# Waits for concurrent writes to the thread, so that the deletion includes them.
LOCK_THREAD = Statement(
    "lock_thread",
    """
SELECT thread_id FROM chat_sessions WHERE user_id = :owner AND session_id = :session FOR UPDATE
""",
    session="uuid",
)

DELETE_THREAD = Statement(
    "delete_thread",
    """
WITH attachments AS (
  UPDATE chat_attachments SET state = 'deleted', deleted_at = now()
   WHERE user_id = :owner AND session_id = :session AND state <> 'deleted'
), log_deleted AS (
  DELETE FROM chat_partial_log WHERE user_id = :owner AND session_id = :session
)
DELETE FROM chat_sessions WHERE user_id = :owner AND session_id = :session
RETURNING thread_id
""",
    session="uuid",
)


def _list_threads(name: str, order: str, comparison: str, start: str) -> Statement:
    """Starts after ``after_time`` and the session id ``after``, or after the thread ``after``. ``found`` is that
    time."""
    return Statement(
        name,
        f"""
SELECT COALESCE(:after_time, c.created_at) AS found, t.*
  FROM (SELECT 1) one
  LEFT JOIN chat_sessions c ON c.user_id = :owner AND c.session_id = {given(":after")}
  LEFT JOIN LATERAL (
    SELECT {_THREAD}, session_id
      FROM chat_sessions
     WHERE user_id = :owner AND (created_at, session_id) {comparison} ({start})
     ORDER BY created_at {order}, session_id {order}
     LIMIT :page
  ) t ON true
 ORDER BY t.created_at {order}, t.session_id {order}
""",
        after="uuid",
        after_time="timestamptz",
        page="bigint",
    )


LIST_THREADS_NEWEST_FIRST = _list_threads(
    "list_threads_newest_first",
    "DESC",
    "<",
    "COALESCE(:after_time, c.created_at, 'infinity'), COALESCE(:after, 'ffffffff-ffff-ffff-ffff-ffffffffffff')",
)
LIST_THREADS_OLDEST_FIRST = _list_threads(
    "list_threads_oldest_first",
    "ASC",
    ">",
    "COALESCE(:after_time, c.created_at, '-infinity'), COALESCE(:after, '00000000-0000-0000-0000-000000000000')",
)
