"""Common table expressions that delete what ended turns leave beside their messages."""


def discarded_leftovers(ended: str) -> str:
    """CTEs for the owner's turns in the CTE ``ended``: they delete the calls that were never published, and the
    questions about calls that nobody can answer, because their turn did not come to its end."""
    return f"""calls_discarded AS (
  DELETE FROM chat_tool_calls c USING {ended} e
   WHERE c.user_id = :owner AND c.session_id = e.session_id AND c.turn_id = e.turn_id AND c.is_draft
), questions_discarded AS (
  DELETE FROM chat_approvals a USING {ended} e
   WHERE a.user_id = :owner AND a.session_id = e.session_id AND a.turn_id = e.turn_id AND a.resumed_by IS NULL
)"""


def closed_runs(opening: str, condition: str) -> str:
    """A CTE for a turn that opens with a row in the CTE ``opening``: it ends the runs of earlier turns, whether their
    questions were answered or not."""
    return f"""closed AS (
  DELETE FROM chat_approvals a USING {opening}
   WHERE a.user_id = :owner AND a.session_id = :session AND a.turn_id <> :turn AND {condition}
  RETURNING a.calls
)"""


CLOSED_RUNS = "(SELECT jsonb_agg(closed.calls)::text FROM closed) AS closed_calls"
"""A column: the calls of each run."""
