"""Statements that count what a user does over all processes: requests, running turns, tokens."""

from chatkit_postgres.db.statement import Statement

WINDOW_SECONDS = 60
MAX_AT_ONCE = 100

_NOW = "CAST(EXTRACT(epoch FROM now()) AS double precision)"
_SECONDS = "(excluded.counted_at - r.window_began)"
# A window that begins later than that in the future is of another server, whose clock was ahead.
_IS_SAME = f"{_SECONDS} > -{WINDOW_SECONDS} AND {_SECONDS} < {WINDOW_SECONDS}"
_IS_NEXT = f"{_SECONDS} >= {WINDOW_SECONDS} AND {_SECONDS} < {2 * WINDOW_SECONDS}"

# A window begins with a user's first request. What counts of the window before it is the part that is less than a
# minute old, as if its requests had come evenly. At the limit nothing is counted.
COUNT_REQUESTS = Statement(
    "count_requests",
    f"""
WITH counted AS (
  INSERT INTO chat_rates AS r (user_id, window_began, requests, earlier, counted_at)
  VALUES (:owner, {_NOW}, :requests, 0, {_NOW})
  ON CONFLICT (user_id) DO UPDATE SET
    window_began = CASE WHEN {_IS_SAME} THEN r.window_began
                        WHEN {_IS_NEXT} THEN r.window_began + {WINDOW_SECONDS}
                        ELSE excluded.window_began END,
    earlier = CASE WHEN {_IS_SAME} THEN r.earlier WHEN {_IS_NEXT} THEN r.requests ELSE 0 END,
    requests = CASE WHEN {_IS_SAME} THEN r.requests + excluded.requests ELSE excluded.requests END,
    counted_at = excluded.counted_at
  WHERE CASE WHEN {_IS_SAME} THEN r.requests + r.earlier * (1 - {_SECONDS} / {WINDOW_SECONDS})
             WHEN {_IS_NEXT} THEN r.requests * (2 - {_SECONDS} / {WINDOW_SECONDS})
             ELSE 0 END <= :per_minute - 1
  RETURNING requests, earlier, counted_at - window_began AS seconds
)
SELECT true AS are_counted, requests, earlier, seconds FROM counted
UNION ALL
SELECT false, requests, earlier, {_NOW} - window_began
  FROM chat_rates
 WHERE user_id = :owner AND NOT EXISTS (SELECT 1 FROM counted)
""",
    requests="bigint",
    per_minute="bigint",
)

_SPENT = "CASE WHEN a.day < excluded.day THEN 0 ELSE a.tokens_spent END"

# No row: there are too many turns, or too few tokens. The rest of a day is enough for one turn alone. What was spent on
# an earlier day does not count. Repeated after a lost connection, it holds once.
HOLD_TURN = Statement(
    "hold_turn",
    f"""
INSERT INTO chat_allowances AS a (user_id, holds, turns, tokens_held, day, tokens_spent)
VALUES (:owner, jsonb_build_object(:hold, jsonb_build_object('tokens', :tokens, 'at', EXTRACT(epoch FROM now()))),
        1, :tokens, CAST(now() AT TIME ZONE 'UTC' AS date), 0)
ON CONFLICT (user_id) DO UPDATE SET
  holds = a.holds || excluded.holds,
  turns = a.turns + CASE WHEN a.holds -> :hold IS NULL THEN 1 ELSE 0 END,
  tokens_held = a.tokens_held + CASE WHEN a.holds -> :hold IS NULL THEN excluded.tokens_held ELSE 0 END,
  day = GREATEST(a.day, excluded.day),
  tokens_spent = {_SPENT}
WHERE a.holds -> :hold IS NOT NULL
   OR a.turns < :max_turns
      AND ({_SPENT} + a.tokens_held + excluded.tokens_held <= :tokens_per_day
           OR a.tokens_held = 0 AND {_SPENT} < :tokens_per_day)
RETURNING a.turns
""",
    hold="text",
    tokens="bigint",
    max_turns="bigint",
    tokens_per_day="bigint",
)

READ_ALLOWANCE = Statement(
    "read_allowance",
    """
SELECT turns, tokens_held,
       CASE WHEN day < CAST(now() AT TIME ZONE 'UTC' AS date) THEN 0 ELSE tokens_spent END AS tokens_spent
  FROM chat_allowances
 WHERE user_id = :owner
""",
)

_HELD = "a.holds -> :hold"
RELEASED = f"""holds = a.holds - :hold,
         turns = a.turns - CASE WHEN {_HELD} IS NULL THEN 0 ELSE 1 END,
         tokens_held = a.tokens_held - COALESCE(CAST({_HELD} ->> 'tokens' AS bigint), 0)"""
"""Of the row ``a``: the turn ``:hold`` holds nothing any more, if it did."""

# Of a turn that was never opened, or that another process has closed. One that ends settles in its last statement.
RELEASE_TURN = Statement(
    "release_turn",
    f"""
UPDATE chat_allowances a SET {RELEASED} WHERE a.user_id = :owner AND {_HELD} IS NOT NULL
""",
    hold="text",
)

# Of processes that died before their turns were opened, or between closing a turn and releasing it.
LIST_DEAD_HOLDS = Statement(
    "list_dead_holds",
    f"""
SELECT a.user_id, h.hold
  FROM chat_allowances a
 CROSS JOIN LATERAL jsonb_each(a.holds) AS h(hold, held)
  LEFT JOIN chat_turns t ON t.user_id = a.user_id AND t.turn_id = CAST(h.hold AS uuid) AND t.state = 'running'
 WHERE a.turns > 0 AND t.turn_id IS NULL
   AND CAST(h.held ->> 'at' AS double precision) < EXTRACT(epoch FROM now()) - :stale_seconds
 LIMIT {MAX_AT_ONCE}
""",
    stale_seconds="double precision",
)
