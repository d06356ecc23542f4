"""Statements that find items, and that fill the search index."""

from chatkit_postgres.db.statement import Statement
from chatkit_postgres.store.sql.forms import OF_ALL, OF_OWNER, Form
from chatkit_postgres.store.sql.history import REFUSALS, verdicts
from chatkit_postgres.store.sql.index_entry import indexed
from chatkit_postgres.store.sql.items import HIDDEN

MAX_AT_ONCE = 200
MAX_BYTES_AT_ONCE = 4_000_000

# An explicit collation keeps the planner from reading all rows of the owner by their key, beside those of the words:
# equality is the same in every collation, but the indexes by user_id are in the default one.
_OF_OWNER = """user_id = :owner COLLATE "C\""""

# Nobody finds what only the model has seen, nor an answer that is still being written.
_SHOWN = f"""NOT m.is_draft AND m.item_type NOT IN {HIDDEN}
              AND NOT (m.is_partial AND EXISTS (
                    SELECT 1 FROM chat_turns t
                     WHERE t.user_id = :owner AND t.session_id = m.session_id AND t.turn_id = m.turn_id
                       AND t.ended_at IS NULL))"""

# Of each thread with a refusal among the candidates, once.
_VERDICT = f"""SELECT s.session_id, v.*
         FROM (SELECT DISTINCT session_id FROM candidate) s
        CROSS JOIN LATERAL (
          WITH {verdicts("s.session_id", "NULL::uuid")}
          SELECT ARRAY(SELECT turn_id FROM refused) AS turns,
                 ARRAY(SELECT position FROM retried WHERE refused_at > COALESCE(passed_at, '-infinity')) AS positions,
                 ARRAY(SELECT position FROM retried WHERE passed_at IS NOT NULL) AS passed) v
        WHERE EXISTS (SELECT 1 FROM chat_turns r
                       WHERE r.user_id = :owner AND r.session_id = s.session_id AND r.error_code IN {REFUSALS})"""


def _in_window(row: str) -> str:
    """A window is a tsquery, and the time from which its rows are. Its lexemes are those of one week more at both ends:
    a row may have been indexed anew in the week after it was made, and a clock may differ."""
    return f"""{row}.{_OF_OWNER}
              AND {row}.search_words @@ CAST((:windows)[step.number + 1] AS tsquery)
              AND {row}.search_words @@ CAST(:query AS tsquery)
              AND {row}.created_at >= CAST((:starts)[step.number + 1] AS timestamptz)
              AND (step.number = 0 OR {row}.created_at < CAST((:starts)[step.number] AS timestamptz))"""


# Compiling the statement takes up to two seconds, which the planner expects to save where a word is common.
WITHOUT_COMPILING = Statement("without_compiling", "SELECT set_config('jit', 'off', true)")

# One window of weeks after the other, the newest first, until the page is full. Rows: the newest first; a title's has
# no item.
SEARCH = Statement(
    "search",
    f"""
WITH RECURSIVE step AS (
  SELECT 0 AS number, CAST(0 AS bigint) AS found, CAST('{{}}' AS uuid[]) AS session_ids,
         CAST('{{}}' AS uuid[]) AS message_ids
   UNION ALL
  SELECT step.number + 1, step.found + cardinality(hits.session_ids), hits.session_ids, hits.message_ids
    FROM step
   CROSS JOIN LATERAL (
     SELECT COALESCE(array_agg(session_id), '{{}}') AS session_ids,
            COALESCE(array_agg(message_id), '{{}}') AS message_ids
       FROM (
         SELECT * FROM (
           WITH candidate AS MATERIALIZED (
             SELECT m.session_id, m.message_id, m.created_at, m.position, m.turn_id
               FROM chat_messages m
              WHERE {_in_window("m")}
                AND (m.created_at, m.message_id) < (:before_time, :before)
                AND (:except_session IS NULL OR m.session_id <> :except_session)
                AND {_SHOWN}
           ), verdict AS MATERIALIZED ({_VERDICT})
           SELECT c.session_id, c.message_id
             FROM candidate c LEFT JOIN verdict v USING (session_id)
            WHERE v.session_id IS NULL
               OR NOT (c.position = ANY(v.positions)
                       OR COALESCE(c.turn_id = ANY(v.turns), false) AND NOT c.position = ANY(v.passed))
            ORDER BY c.created_at DESC, c.message_id DESC LIMIT :page) messages
          UNION ALL
         SELECT * FROM (
           SELECT s.session_id, CAST(NULL AS uuid)
             FROM chat_sessions s
            WHERE {_in_window("s")}
              AND (s.created_at, s.session_id) < (:before_time, :before)
              AND (:except_session IS NULL OR s.session_id <> :except_session)
            ORDER BY s.created_at DESC, s.session_id DESC LIMIT :page) titles
       ) found
   ) hits
   WHERE step.number < cardinality(:windows) AND step.found < :page
)
SELECT s.thread_id, s.title, m.item_id, m.item::text AS item, COALESCE(m.created_at, s.created_at) AS created_at,
       COALESCE(m.message_id, s.session_id) AS place
  FROM step
 CROSS JOIN LATERAL unnest(step.session_ids, step.message_ids) AS hit(session_id, message_id)
  JOIN chat_sessions s ON s.user_id = :owner AND s.session_id = hit.session_id
  LEFT JOIN chat_messages m ON m.user_id = :owner AND m.session_id = hit.session_id AND m.message_id = hit.message_id
 ORDER BY COALESCE(m.created_at, s.created_at) DESC, place DESC
 LIMIT :page
""",
    windows="text[]",
    starts="text[]",
    query="text",
    before_time="timestamptz",
    before="uuid",
    except_session="uuid",
    page="bigint",
)


# Rows without an index entry: of code before there was one, or unfinished text that a statement has joined. The
# application cuts them into words, in batches. An answer that is still being written is left out: nobody finds it, and
# older code may be writing it, which knows of no entries.
def _unindexed(whose_message: str, whose_title: str, order: str) -> str:
    return f"""
SELECT user_id, session_id, message_id, item_id, item, seen FROM (
  SELECT *, sum(octet_length(item)) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) - octet_length(item)
              AS bytes_before
    FROM (SELECT user_id, session_id, message_id, item_id, item::text AS item, content AS seen, created_at
            FROM chat_messages m
           WHERE search_words IS NULL AND {whose_message}
             AND NOT (is_partial AND EXISTS (
                   SELECT 1 FROM chat_turns t
                    WHERE t.user_id = m.user_id AND t.session_id = m.session_id AND t.turn_id = m.turn_id
                      AND t.ended_at IS NULL))
           ORDER BY {order} LIMIT {MAX_AT_ONCE}) m) messages
 WHERE bytes_before < {MAX_BYTES_AT_ONCE}
 UNION ALL
SELECT * FROM (
  SELECT user_id, session_id, NULL::uuid, NULL::text, NULL::text, title
    FROM chat_sessions WHERE search_words IS NULL AND {whose_title} ORDER BY {order} LIMIT {MAX_AT_ONCE}) titles
"""


LIST_UNINDEXED = Statement(
    "list_unindexed", _unindexed("user_id = :owner", "user_id = :owner", order="created_at DESC")
)
LIST_ALL_UNINDEXED = Statement(
    "list_all_unindexed",
    _unindexed("user_id >= :from_message", "user_id >= :from_title", order="user_id"),
    from_message="text",
    from_title="text",
)


# A row that was written meanwhile has its entry.
def _index(name: str, form: Form, waiting: str) -> Statement:
    return Statement(
        name,
        f"""
WITH given AS (
  SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb))
    AS g(user_id text, session_id uuid, message_id uuid, words text, owner_mark text, seen text)
), message AS (
  SELECT m.user_id, m.session_id, m.message_id, g.words, g.owner_mark
    FROM chat_messages m JOIN given g USING (user_id, session_id, message_id)
   WHERE m.search_words IS NULL AND m.content = g.seen {form.own("m")}
   ORDER BY m.user_id, m.session_id, m.message_id
     FOR NO KEY UPDATE OF m {waiting}
), messages_indexed AS (
  UPDATE chat_messages m SET search_words = {indexed("CAST(g.words AS tsvector)", "g.owner_mark", "m.created_at")}
    FROM message g
   WHERE m.user_id = g.user_id AND m.session_id = g.session_id AND m.message_id = g.message_id {form.own("m")}
  RETURNING 1
), thread AS (
  SELECT s.user_id, s.session_id, g.words, g.owner_mark
    FROM chat_sessions s JOIN given g USING (user_id, session_id)
   WHERE g.message_id IS NULL AND s.search_words IS NULL AND s.title IS NOT DISTINCT FROM g.seen
         {form.own("s")}
     FOR NO KEY UPDATE OF s SKIP LOCKED
), titles_indexed AS (
  UPDATE chat_sessions s SET search_words = {indexed("CAST(g.words AS tsvector)", "g.owner_mark", "s.created_at")}
    FROM thread g
   WHERE s.user_id = g.user_id AND s.session_id = g.session_id {form.own("s")}
  RETURNING 1
)
SELECT (SELECT count(*) FROM messages_indexed) + (SELECT count(*) FROM titles_indexed) AS count
""",
        rows="text",
    )


# In the background, one that another process is indexing, or writing, is left to it. Who searches waits for it.
INDEX_ROWS = _index("index_rows", OF_ALL, "SKIP LOCKED")
INDEX_ROWS_OF_OWNER = _index("index_rows_of_owner", OF_OWNER, "SKIP LOCKED")
INDEX_OWN_ROWS = _index("index_own_rows", OF_OWNER, "")
