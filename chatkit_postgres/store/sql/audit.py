"""Statements of the audit log."""

from chatkit_postgres.db.statement import Statement

PAGE = 1000

FIND_HEAD = Statement("find_audit_head", "SELECT sequence, hash FROM chat_audit ORDER BY sequence DESC LIMIT 1")

# A user who is not here, or was erased by now, is named by the hash alone. The lock makes an erasure wait until this
# entry is written, so that it finds the name. No row: another process has written an entry of this number.
APPEND_ENTRY = Statement(
    "append_audit_entry",
    """
WITH known AS (
  SELECT user_id FROM chat_users WHERE user_id = :owner FOR KEY SHARE
)
INSERT INTO chat_audit
       (sequence, at, via, actor, actor_hash, action, subject, subject_hash, thread_id, thread_hash, hash)
SELECT :sequence, :at, :via, :actor, :actor_hash, :action, k.user_id, :subject_hash,
       CASE WHEN k.user_id IS NOT NULL THEN :thread_id END, :thread_hash, :hash
  FROM (VALUES (1)) one LEFT JOIN known k ON true
ON CONFLICT (sequence) DO NOTHING
RETURNING sequence
""",
    sequence="bigint",
    at="timestamptz",
    via="text",
    actor="text",
    actor_hash="text",
    action="text",
    subject_hash="text",
    thread_id="text",
    thread_hash="text",
    hash="text",
)

_ENTRY = "sequence, at, via, actor, actor_hash, action, subject, subject_hash, thread_id, thread_hash, hash"

LIST_ENTRIES = Statement(
    "list_audit_entries",
    f"""
SELECT {_ENTRY} FROM chat_audit WHERE sequence > :after ORDER BY sequence LIMIT {PAGE}
""",
    after="bigint",
)

LIST_ENTRIES_OF_SUBJECT = Statement(
    "list_audit_entries_of_subject",
    f"""
SELECT {_ENTRY} FROM chat_audit
 WHERE subject_hash = :subject_hash AND sequence > :after ORDER BY sequence LIMIT {PAGE}
""",
    subject_hash="text",
    after="bigint",
)

# An operator's name is one of the machine, not of a user.
FORGET_NAMES = Statement(
    "forget_audited_names",
    """
UPDATE chat_audit
   SET subject = CASE WHEN subject_hash = :user_hash THEN NULL ELSE subject END,
       thread_id = CASE WHEN subject_hash = :user_hash THEN NULL ELSE thread_id END,
       actor = CASE WHEN via = 'http' AND actor_hash = :user_hash THEN NULL ELSE actor END
 WHERE subject_hash = :user_hash AND subject IS NOT NULL
    OR actor_hash = :user_hash AND via = 'http' AND actor IS NOT NULL
RETURNING sequence
""",
    user_hash="text",
)
