"""Statements about unfinished items: a partial row, and for messages the log of the text that is newer than it.

A checkpoint writes for all running turns of a process at once. Each row names its owner, and is written only if its
turn holds the fence of that owner's thread.
"""

from chatkit_postgres.db.statement import Statement
from chatkit_postgres.store.sql.forms import OF_ALL, OF_OWNER, Form
from chatkit_postgres.store.sql.index_entry import indexed


def _log(m: str) -> str:
    """The log of the owner's row ``m`` of chat_messages."""
    return f"""chat_partial_log
            WHERE user_id = :owner AND session_id = {m}.session_id AND turn_id = {m}.turn_id
              AND message_id = {m}.message_id"""


def has_log(m: str) -> str:
    """Whether a row is an unfinished message with a log. A row that somebody else has written has none."""
    return f"""{m}.is_partial AND {m}.item_type = 'assistant_message'
         AND jsonb_typeof({m}.item -> 'content') = 'array' AND EXISTS (SELECT 1 FROM {_log(m)})"""


def merged(m: str) -> str:
    """The item of a row ``m`` of chat_messages, with the log of its turn. Of entries with one start the last counts: a
    checkpoint whose commit is uncertain is sent again, with more text."""
    return f"""CASE WHEN {has_log(m)} THEN COALESCE((
      SELECT jsonb_set({m}.item, '{{content}}', jsonb_agg(
               CASE WHEN jsonb_typeof(p.part -> 'text') = 'string'
                    THEN p.part || jsonb_build_object(
                           'text', (p.part ->> 'text') || COALESCE(log.text, ''),
                           'annotations', p.annotations || COALESCE(log.annotations, '[]'))
                    ELSE p.part END
               ORDER BY p.number))
        FROM (SELECT part, number,
                     CASE WHEN jsonb_typeof(part -> 'annotations') = 'array' THEN part -> 'annotations' ELSE '[]' END
                       AS annotations
                FROM jsonb_array_elements({m}.item -> 'content') WITH ORDINALITY AS x(part, number)) p
       CROSS JOIN LATERAL (
         SELECT string_agg(l.text, '' ORDER BY l.start)
                  FILTER (WHERE l.annotation IS NULL AND l.start >= length(p.part ->> 'text')) AS text,
                jsonb_agg(l.annotation ORDER BY l.start)
                  FILTER (WHERE l.annotation IS NOT NULL
                            AND l.start >= jsonb_array_length(p.annotations)) AS annotations
           FROM (SELECT DISTINCT ON (annotation IS NULL, start) start, text, annotation
                   FROM {_log(m)}
                    AND content_index = p.number - 1
                  ORDER BY annotation IS NULL, start, sequence DESC) l
       ) log), {m}.item)
    ELSE {m}.item END"""


def text_of(message: str) -> str:
    """The plain text of a message, as JSON."""
    return f"""(SELECT COALESCE(string_agg(part ->> 'text', E'\\n' ORDER BY number), '')
              FROM jsonb_array_elements({message} -> 'content') WITH ORDINALITY AS p(part, number))"""


def log_of_ended(ended: str) -> str:
    """CTEs that make the partial messages of the owner's turns in the CTE ``ended`` whole, and delete their log. Drafts
    are deleted instead."""
    return f"""log_kept AS (
  UPDATE chat_messages m
     -- Only the application can cut a text into words.
     SET search_words = NULL, item = whole.item,
         content = {text_of("whole.item")}
    FROM (SELECT d.session_id, d.message_id, {merged("d")} AS item
            FROM chat_messages d JOIN {ended} e ON d.session_id = e.session_id AND d.turn_id = e.turn_id
           WHERE d.user_id = :owner AND NOT d.is_draft AND {has_log("d")}) whole
   WHERE m.user_id = :owner AND m.session_id = whole.session_id AND m.message_id = whole.message_id
     AND m.is_partial
), drafts_deleted AS (
  DELETE FROM chat_messages m USING {ended} e
   WHERE m.user_id = :owner AND m.session_id = e.session_id AND m.turn_id = e.turn_id AND m.is_draft
), log_deleted AS (
  DELETE FROM chat_partial_log l USING {ended} e
   WHERE l.user_id = :owner AND l.session_id = e.session_id AND l.turn_id = e.turn_id
)"""


# The partial rows of running turns: the first text of a message, and every other item as a whole. A thread that another
# statement is writing to is left for the next checkpoint, so that none waits for it. Returns what was saved.
def _save_partial_items(form: Form) -> Statement:
    return Statement(
        form.name("save_partial_items"),
        f"""
WITH given AS (
  SELECT * FROM jsonb_to_recordset(CAST(:items AS jsonb)) AS i(
    user_id text, session_id uuid, turn_id uuid, number bigint, message_id uuid, item_id text, item_type text,
    sender_type text, sender_name text, content text, item jsonb, words text, owner_mark text, is_draft boolean)
), placed AS (
  UPDATE chat_sessions s SET next_position = s.next_position + h.count, updated_at = now()
    FROM (SELECT s.user_id, s.session_id, g.turn_id, g.count
            FROM chat_sessions s
            JOIN (SELECT user_id, session_id, turn_id, count(*) FROM given GROUP BY 1, 2, 3) g
              ON s.user_id = g.user_id AND s.session_id = g.session_id AND s.current_turn_id = g.turn_id
                 {form.own("s")}
           ORDER BY s.user_id, s.session_id
             FOR NO KEY UPDATE OF s SKIP LOCKED) h
   WHERE s.user_id = h.user_id AND s.session_id = h.session_id {form.own("s")}
  RETURNING s.user_id, s.session_id, h.turn_id, s.next_position - h.count AS first_position
), saved AS (
  INSERT INTO chat_messages AS m
         (user_id, session_id, message_id, item_id, position, sender_type, sender_name, item_type, content, item,
          search_words, turn_id, is_partial, is_draft)
  SELECT o.user_id, o.session_id, g.message_id, g.item_id, p.first_position + g.number, g.sender_type,
         g.sender_name, g.item_type, g.content, g.item,
         {indexed("CAST(g.words AS tsvector)", "g.owner_mark", "now()")}, g.turn_id, true, g.is_draft
    FROM given g JOIN placed p USING (user_id, session_id, turn_id)
    JOIN chat_sessions o ON o.user_id = g.user_id AND o.session_id = g.session_id {form.own("o")}
  ON CONFLICT (user_id, session_id, message_id) DO UPDATE
     SET item = excluded.item, content = excluded.content, search_words = excluded.search_words,
         is_draft = excluded.is_draft
   WHERE m.is_partial AND m.turn_id = excluded.turn_id
), log_deleted AS (
  DELETE FROM chat_partial_log l USING given g JOIN placed p USING (user_id, session_id, turn_id)
   WHERE l.user_id = g.user_id AND l.session_id = g.session_id AND l.turn_id = g.turn_id
     AND l.message_id = g.message_id {form.own("l")}
)
SELECT g.turn_id, g.message_id FROM given g JOIN placed p USING (user_id, session_id, turn_id)
""",
        items="text",
    )


SAVE_PARTIAL_ITEMS = _save_partial_items(OF_ALL)
SAVE_PARTIAL_ITEMS_OF_OWNER = _save_partial_items(OF_OWNER)


# What is new of the messages of running turns and, with :with_heartbeat, their heartbeat. Returns the turns that must
# end: their thread is deleted, another turn has the fence, they were closed, or somebody asked to stop them.
def _checkpoint_turns(form: Form) -> Statement:
    return Statement(
        form.name("checkpoint_turns"),
        f"""
WITH turn AS (
  SELECT t.*, s.session_id IS NOT NULL AS has_thread, COALESCE(s.current_turn_id = t.turn_id, false) AS holds,
         l.state, l.stop_requested_at IS NOT NULL AS is_stop_requested
    FROM jsonb_to_recordset(CAST(:turns AS jsonb)) AS t(number bigint, user_id text, session_id uuid, turn_id uuid)
    LEFT JOIN chat_sessions s ON s.user_id = t.user_id AND s.session_id = t.session_id {form.own("s")}
    LEFT JOIN chat_turns l ON l.user_id = t.user_id AND l.session_id = t.session_id AND l.turn_id = t.turn_id
              {form.own("l")}
), appended AS (
  INSERT INTO chat_partial_log
         (user_id, session_id, turn_id, sequence, message_id, content_index, start, text, annotation)
  SELECT o.user_id, o.session_id, t.turn_id, e.sequence, e.message_id, e.content_index, e.start, e.text,
         NULLIF(e.annotation, 'null')
    FROM jsonb_to_recordset(CAST(:entries AS jsonb))
      AS e(number bigint, sequence bigint, message_id uuid, content_index integer, start integer, text text,
           annotation jsonb)
    JOIN turn t USING (number)
    JOIN chat_sessions o ON o.user_id = t.user_id AND o.session_id = t.session_id {form.own("o")}
   WHERE t.holds
  ON CONFLICT (user_id, session_id, turn_id, sequence) DO NOTHING
), beaten AS (
  UPDATE chat_turns l SET heartbeat_at = now()
    FROM (SELECT l.user_id, l.session_id, l.turn_id
            FROM chat_turns l JOIN turn t USING (user_id, session_id, turn_id)
           WHERE :with_heartbeat AND t.holds AND l.ended_at IS NULL {form.own("l")}
           ORDER BY l.user_id, l.session_id, l.turn_id
             FOR NO KEY UPDATE OF l SKIP LOCKED) b
   WHERE l.user_id = b.user_id AND l.session_id = b.session_id AND l.turn_id = b.turn_id {form.own("l")}
)
SELECT turn_id, has_thread, holds, state, is_stop_requested FROM turn WHERE NOT holds OR is_stop_requested
""",
        turns="text",
        entries="text",
        with_heartbeat="boolean",
    )


CHECKPOINT_TURNS = _checkpoint_turns(OF_ALL)
CHECKPOINT_TURNS_OF_OWNER = _checkpoint_turns(OF_OWNER)
