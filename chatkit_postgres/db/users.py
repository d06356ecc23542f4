"""Statements of operators, who list and disable users of all owners."""

from chatkit_postgres.db.statement import Statement

# Uses the partial index over disabled users.
LIST_DISABLED_USERS = Statement(
    "list_disabled_users",
    """
SELECT user_id FROM chat_users WHERE disabled_at IS NOT NULL
""",
)

# No row: the user is not disabled.
IS_DISABLED = Statement(
    "is_disabled",
    """
SELECT 1 FROM chat_users WHERE user_id = :owner AND disabled_at IS NOT NULL
""",
)

# A user without a thread can be disabled, too.
DISABLE_USER = Statement(
    "disable_user",
    """
WITH known AS MATERIALIZED (
  SELECT 1 FROM chat_users WHERE user_id = :owner
), disabled AS (
  INSERT INTO chat_users AS u (user_id, disabled_at) VALUES (:owner, now())
  ON CONFLICT (user_id) DO UPDATE SET disabled_at = COALESCE(u.disabled_at, excluded.disabled_at)
)
SELECT NOT EXISTS (SELECT 1 FROM known) AS is_new
""",
)

ENABLE_USER = Statement(
    "enable_user",
    """
UPDATE chat_users SET disabled_at = NULL WHERE user_id = :owner
RETURNING user_id
""",
)

LIST_USERS = Statement(
    "list_users",
    """
SELECT u.user_id, u.created_at, u.disabled_at, u.metadata::text AS metadata,
       (SELECT count(*) FROM chat_sessions s WHERE s.user_id = u.user_id) AS threads
  FROM chat_users u
 WHERE u.user_id > :after_user AND (NOT :only_disabled OR u.disabled_at IS NOT NULL)
 ORDER BY u.user_id
 LIMIT :page
""",
    after_user="text",
    only_disabled="boolean",
    page="bigint",
)
