"""Statements of the audit log."""

from chatkit_postgres.db.statement import Statement

PAGE = 1000

FIND_HEAD = Statement("find_audit_head", "SELECT sequence, hash FROM chat_audit ORDER BY sequence DESC LIMIT 1")

# Whether the user is here, and the thread one of theirs: what is not may be a name of somebody who was erased. The lock
# makes an erasure wait until the entry is written, so that it finds the name.
FIND_AUDITED = Statement(
    "find_audited",
    """
SELECT EXISTS (SELECT 1 FROM chat_sessions WHERE user_id = :owner AND thread_id = :thread_id) AS has_thread
  FROM chat_users WHERE user_id = :owner
   FOR KEY SHARE
""",
    thread_id="text",
)

# No row: another process has written an entry of this number.
APPEND_ENTRY = Statement(
    "append_audit_entry",
    """
INSERT INTO chat_audit
       (sequence, at, via, actor, actor_hash, action, subject, subject_hash, thread_id, thread_hash, hash)
VALUES (:sequence, :at, :via, :actor, :actor_hash, :action, :subject, :subject_hash, :thread_id, :thread_hash, :hash)
ON CONFLICT (sequence) DO NOTHING
RETURNING sequence
""",
    sequence="bigint",
    at="timestamptz",
    via="text",
    actor="text",
    actor_hash="text",
    action="text",
    subject="text",
    subject_hash="text",
    thread_id="text",
    thread_hash="text",
    hash="text",
)

_COLUMNS = "sequence, at, via, actor, actor_hash, action, subject, subject_hash, thread_id, thread_hash, hash"

LIST_ENTRIES = Statement(
    "list_audit_entries",
    f"""
SELECT {_COLUMNS} FROM chat_audit WHERE sequence > :after ORDER BY sequence LIMIT {PAGE}
""",
    after="bigint",
)

LIST_ENTRIES_OF_SUBJECT = Statement(
    "list_audit_entries_of_subject",
    f"""
SELECT {_COLUMNS} FROM chat_audit
 WHERE subject_hash = :subject_hash AND sequence > :after ORDER BY sequence LIMIT {PAGE}
""",
    subject_hash="text",
    after="bigint",
)

FIND_NAMED = Statement(
    "find_named_in_audit",
    """
SELECT sequence FROM chat_audit
 WHERE at < :before AND (subject_hash = :user_hash AND subject IS NOT NULL
                         OR actor_hash = :user_hash AND via = 'http' AND actor IS NOT NULL)
 LIMIT 1
""",
    user_hash="text",
    before="timestamptz",
)

# An operator's name is one of the machine, not of a user. Who begins anew after an erasure is named in later entries.
FORGET_NAMES = Statement(
    "forget_audited_names",
    """
UPDATE chat_audit
   SET subject = CASE WHEN subject_hash = :user_hash THEN NULL ELSE subject END,
       thread_id = CASE WHEN subject_hash = :user_hash THEN NULL ELSE thread_id END,
       actor = CASE WHEN via = 'http' AND actor_hash = :user_hash THEN NULL ELSE actor END
 WHERE at < :before AND (subject_hash = :user_hash AND subject IS NOT NULL
                         OR actor_hash = :user_hash AND via = 'http' AND actor IS NOT NULL)
RETURNING sequence
""",
    user_hash="text",
    before="timestamptz",
)
