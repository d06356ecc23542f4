"""Selects the part of a thread that a model may see: the newest items that fit, without refused messages."""

from chatkit_postgres.db import Statement
from chatkit_postgres.store.sql.items import VIEW, VISIBLE
from chatkit_postgres.store.sql.partials import merged

# Hides messages that were refused, with or without their images: (1) messages whose last turn was refused by a
# guardrail or a provider; (2) messages whose turn ended without a verdict, if the next verdict, which also covered
# them, was a refusal by a guardrail. A provider's refusal covers the newest message only (see
# assistant/model_servers/refusals.py). A retry that passed, or the current one, makes a message visible again. An
# action has no verdict. The turns are read once, and only in a thread with a refusal. The codes are those of the index
# chat_turns_refused.
REFUSALS = "('input_guardrail_tripped', 'content_refused', 'context_too_long', 'picture_refused')"


def verdicts(session: str, turn: str) -> str:
    """CTEs about the turns of a session, as ``turn`` sees them."""
    return f"""turns AS MATERIALIZED (
  SELECT turn_id, retry_from, started_at, state, error_code = 'input_guardrail_tripped' AS is_tripped,
         error_code IN {REFUSALS} AND error_code <> 'picture_refused' AS is_refusal,
         error_code = 'picture_refused' AS is_picture_refusal,
         state IN ('completed', 'waiting') AND operation <> 'threads.custom_action' AS has_passed
    FROM chat_turns
   WHERE user_id = :owner AND session_id = {session}
     AND EXISTS (SELECT 1 FROM chat_turns
                  WHERE user_id = :owner AND session_id = {session} AND error_code IN {REFUSALS})
), judged AS (
  SELECT turn_id, state, is_refusal, is_picture_refusal,
         min(started_at) FILTER (WHERE is_tripped) OVER later AS next_trip,
         min(started_at) FILTER (WHERE has_passed) OVER later AS next_pass
    FROM turns
  WINDOW later AS (ORDER BY started_at DESC, turn_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
), refused AS (
  SELECT turn_id FROM judged
   WHERE is_refusal
      OR state NOT IN ('completed', 'waiting', 'running') AND next_trip < COALESCE(next_pass, 'infinity')
), retried AS (
  SELECT retry_from AS position,
         max(started_at) FILTER (WHERE is_refusal) AS refused_at,
         max(started_at) FILTER (WHERE is_picture_refusal) AS picture_refused_at,
         max(started_at) FILTER (WHERE state IN ('completed', 'waiting') OR turn_id = {turn}) AS passed_at
    FROM turns WHERE retry_from IS NOT NULL GROUP BY retry_from
)"""


def _is_refused(refused_at: str, refused_turns: str) -> str:
    return f"""(position IN (SELECT position FROM retried WHERE {refused_at} > COALESCE(passed_at, '-infinity'))
                OR COALESCE(turn_id IN ({refused_turns}), false)
                   AND position NOT IN (SELECT position FROM retried WHERE passed_at IS NOT NULL))"""


_REFUSED = _is_refused("refused_at", "SELECT turn_id FROM refused")

_SEEN = f"""{VISIBLE}
           AND NOT (item_type IN ('structured_input', 'client_tool_call') AND {_REFUSED})"""


def _cut(text: str, length: str) -> str:
    """A long text is cut in its middle."""
    return f"""left({text}, {length} / 2)
                   || replace(:cut_mark, '?', (length({text}) - {length} / 2 * 2)::text)
                   || right({text}, {length} / 2)"""


# A refused message is a row without an item, so that its answers can be left out, too.
_OF_A_MODEL = f"""item_id, position, turn_id, is_partial, item_type, sender_name, content,
         item_type = 'user_message' AND {_REFUSED} AS is_refused,
         item_type = 'user_message'
           AND {_is_refused("picture_refused_at", "SELECT turn_id FROM judged WHERE is_picture_refusal")}
         AS without_images,
         CASE WHEN item_type = 'user_message' AND {_REFUSED} THEN NULL
              WHEN item_type = 'client_tool_call' AND length(item ->> 'output') > :max_output
              THEN jsonb_set(item, '{{output}}', to_jsonb({_cut("item ->> 'output'", ":max_output")}))
              ELSE {merged("chat_messages")} END::text AS item"""

# From the newest backwards until the byte limit, so that the rows and bytes read do not grow with the thread. The
# user's newest message and its answer are always included. An image, and a widget with a text of its own, count as one
# line. The calls of tools between these items have a budget of their own, the newest first.
LOAD_NEWEST_ITEMS = Statement(
    "load_newest_items",
    f"""
WITH {verdicts(":session", ":turn")}, question AS (
  SELECT position FROM chat_messages
   WHERE user_id = :owner AND session_id = :session AND item_type = 'user_message' AND {VISIBLE}
     AND NOT {_REFUSED}
   ORDER BY position DESC LIMIT 1
), current AS (
  SELECT {_OF_A_MODEL}, true AS is_current
    FROM chat_messages
   WHERE user_id = :owner AND session_id = :session AND position = (SELECT position FROM question)
   UNION ALL
  SELECT * FROM (
    SELECT {_OF_A_MODEL}, true AS is_current
      FROM chat_messages
     WHERE user_id = :owner AND session_id = :session AND position > (SELECT position FROM question) AND {_SEEN}
     ORDER BY position DESC LIMIT :max_current) answers
), older AS (
  SELECT {_OF_A_MODEL}, false AS is_current
    FROM chat_messages
   WHERE user_id = :owner AND session_id = :session
     AND position < COALESCE((SELECT position FROM question), 9223372036854775807) AND {_SEEN}
   ORDER BY position DESC LIMIT :page
), measured AS (
  SELECT *, sum(weight) OVER newest_first AS bytes_so_far, row_number() OVER newest_first AS number,
         lead(position) OVER newest_first IS NULL AS is_last
    FROM (
      SELECT *, CASE WHEN item_type = 'generated_image' OR item_type = 'widget' AND content <> ''
                     THEN octet_length(content) + 200 ELSE COALESCE(octet_length(item), 0) END AS weight
        FROM (SELECT * FROM current UNION ALL SELECT * FROM older) newest
    ) weighed
  WINDOW newest_first AS (ORDER BY position DESC)
), chosen AS (
  SELECT * FROM measured
   WHERE is_current OR number = 1 OR (number < :page AND bytes_so_far <= :max_bytes)
), calls AS (
  SELECT position, sequence, is_function, name, arguments, output,
         sum(octet_length(arguments) + octet_length(output)) OVER newest_first AS bytes_so_far,
         row_number() OVER newest_first AS number
    FROM (
      SELECT position, sequence, is_function, name, arguments,
             CASE WHEN length(output) > :max_call_output THEN {_cut("output", ":max_call_output")}
                  ELSE output END AS output
        FROM chat_tool_calls
       WHERE user_id = :owner AND session_id = :session AND {VISIBLE}
         AND position > (SELECT min(position) FROM chosen)
         AND :max_call_bytes > 0
         AND NOT COALESCE(turn_id IN (SELECT turn_id FROM refused), false)
       ORDER BY position DESC, sequence DESC
       LIMIT :max_calls) newest_calls
  WINDOW newest_first AS (ORDER BY position DESC, sequence DESC)
)
SELECT position, 0 AS sequence, item_id, sender_name, item, is_refused, without_images, is_last,
       CASE WHEN is_partial
            THEN (SELECT state FROM chat_turns t
                   WHERE t.user_id = :owner AND t.session_id = :session AND t.turn_id = chosen.turn_id)
       END AS ended_as,
       NULL::text AS name, NULL::text AS arguments, NULL::text AS output, NULL::boolean AS is_function
  FROM chosen
 UNION ALL
SELECT position, sequence, NULL, NULL, NULL, false, false, false, NULL, name, arguments, output, is_function
  FROM calls
 WHERE number = 1 OR bytes_so_far <= :max_call_bytes
 ORDER BY position DESC, sequence DESC
""",
    session="uuid",
    max_output="integer",
    cut_mark="text",
    max_current="bigint",
    page="bigint",
    max_bytes="bigint",
    max_call_output="integer",
    max_call_bytes="bigint",
    max_calls="bigint",
    **VIEW,
)
