"""Statements that erase a user, and that remember, by a keyed hash, who was erased."""

from collections.abc import Mapping, Sequence

from chatkit_postgres.db.statement import Statement

BATCH = 1000

KEYS: Mapping[str, Sequence[str]] = {
    "chat_feedback": ("session_id", "message_id"),
    "chat_tool_calls": ("session_id", "position", "sequence"),
    "chat_approvals": ("session_id", "turn_id"),
    "chat_partial_log": ("session_id", "turn_id", "sequence"),
    "chat_messages": ("session_id", "message_id"),
    "chat_sessions": ("session_id",),
    "chat_turns": ("session_id", "turn_id"),
    "chat_allowances": ("user_id",),
    "chat_rates": ("user_id",),
}
"""Table to its key after the owner, or to the owner alone: in the order of the erasure, in which rows that refer to
others come first. Files and the user come after them."""


def _erase(table: str) -> Statement:
    key = ", ".join(KEYS[table])
    return Statement(
        f"erase_{table.removeprefix('chat_')}",
        f"""
DELETE FROM {table}
 WHERE user_id = :owner
   AND ({key}) IN (SELECT {key} FROM {table} WHERE user_id = :owner LIMIT {BATCH})
RETURNING 1
""",
    )


ERASE_ROWS = {table: _erase(table) for table in KEYS}

LIST_FILES = Statement(
    "list_files_to_erase",
    """
SELECT attachment_id, storage_key, stored_bytes FROM chat_attachments WHERE user_id = :owner LIMIT 100
""",
)

ERASE_FILE = Statement(
    "erase_file",
    """
DELETE FROM chat_attachments WHERE user_id = :owner AND attachment_id = :attachment_id
RETURNING 1
""",
    attachment_id="text",
)

ERASE_USER = Statement("erase_user", "DELETE FROM chat_users WHERE user_id = :owner RETURNING 1")

IS_KNOWN = Statement(
    "is_known",
    f"""
SELECT EXISTS (SELECT 1 FROM chat_users WHERE user_id = :owner)
       OR EXISTS (SELECT 1 FROM chat_attachments WHERE user_id = :owner)
       {" ".join(f"OR EXISTS (SELECT 1 FROM {table} WHERE user_id = :owner)" for table in KEYS)}
       OR EXISTS (SELECT 1 FROM chat_audit WHERE subject_hash = :user_hash AND subject IS NOT NULL)
       OR EXISTS (SELECT 1 FROM chat_audit WHERE actor_hash = :user_hash AND via = 'http' AND actor IS NOT NULL)
       AS is_known,
       (SELECT count(*) FROM chat_turns WHERE user_id = :owner AND state = 'running') AS running
""",
    user_hash="text",
)

NOTE_ERASED = Statement(
    "note_erased",
    """
INSERT INTO chat_erased (user_hash, erased_at) VALUES (:user_hash, CAST(:erased_at AS timestamptz))
ON CONFLICT (user_hash) DO UPDATE SET erased_at = GREATEST(chat_erased.erased_at, excluded.erased_at)
""",
    user_hash="text",
    erased_at="text",
)

LIST_ERASED = Statement(
    "list_erased",
    """
SELECT user_hash, erased_at FROM chat_erased WHERE user_hash > :after ORDER BY user_hash LIMIT 1000
""",
    after="text",
)

# In pages, because only the application can make the hash of a name.
LIST_NAMES = Statement(
    "list_names",
    """
SELECT user_id, created_at FROM chat_users WHERE user_id > :after ORDER BY user_id LIMIT 1000
""",
    after="text",
)
