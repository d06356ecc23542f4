"""Statements about the calls of tools that a thread remembers."""

from chatkit_postgres.db.statement import Statement
from chatkit_postgres.store.sql.routing import OWN_THREAD

# The calls take one position of the thread. No row: no such thread.
ADD_TOOL_CALLS = Statement(
    "add_tool_calls",
    f"""
WITH session AS (
  UPDATE chat_sessions SET next_position = next_position + 1
   WHERE user_id = :owner AND session_id = :session AND current_turn_id = :turn
  RETURNING next_position - 1 AS position
), added AS (
  INSERT INTO chat_tool_calls
         (user_id, session_id, position, sequence, turn_id, is_draft, is_function, name, arguments, output)
  SELECT o.user_id, o.session_id, session.position, c.sequence, :turn, :draft, c.is_function, c.name, c.arguments,
         c.output
    FROM session JOIN {OWN_THREAD}, jsonb_to_recordset(CAST(:calls AS jsonb)) AS c(
           sequence integer, is_function boolean, name text, arguments text, output text)
)
SELECT EXISTS (SELECT 1 FROM session) AS accepted
  FROM chat_sessions s
 WHERE s.user_id = :owner AND s.session_id = :session
""",
    session="uuid",
    turn="uuid",
    draft="boolean",
    calls="text",
)


def replaced_calls(condition: str = "true") -> str:
    """A CTE that deletes the calls of the answer that a retry replaces, and one that publishes those of the retry."""
    return f"""calls_replaced AS (
  DELETE FROM chat_tool_calls c USING session
   WHERE c.user_id = :owner AND c.session_id = :session
     AND c.position > :retry_from AND c.position < :open_position AND {condition}
), calls_published AS (
  UPDATE chat_tool_calls c SET is_draft = false FROM session
   WHERE c.user_id = :owner AND c.session_id = :session AND c.turn_id = :turn AND c.is_draft AND {condition}
)"""
