"""The tables and columns of an export of a user, and the reasons for those that are left out.

A column that is missing here fails ``tests/user_data/test_tables.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chatkit_postgres.store.sql.items import HIDDEN
from chatkit_postgres.store.sql.partials import has_log, merged, text_of


@dataclass(frozen=True)
class ExportedTable:
    """A table whose rows are records of an export."""

    record: str
    """The type of its records."""
    table: str
    columns: Mapping[str, str]
    """Name to PostgreSQL type, in the order of the record."""
    key: Sequence[str]
    """The columns that order its rows, after the owner."""
    left_out: Mapping[str, str]
    """Name of each other column to the reason."""
    rows: str = "true"
    """Which rows are exported."""
    values: Mapping[str, str] = field(default_factory=dict)
    """SQL of the columns that are not exported as they are stored, for the row ``r``."""
    parent: str = "true"
    """On import, what must be there before, for the row ``r``."""
    identity: Sequence[str] = ()
    """The columns of its primary key, after the owner."""
    size: str = "0"
    """SQL of the bytes of a large row ``r``, so that a page does not become too large."""


OWNER = "the records are their owner's, and may be imported for another one"
INDEX = "made again on import"

_WHOLE = f"({merged('r')})"
_RUNNING = "r.state = 'running'"
_HAS_THREAD = "EXISTS (SELECT 1 FROM chat_sessions p WHERE p.user_id = :owner AND p.session_id = r.session_id)"
_HAS_MESSAGE = """EXISTS (SELECT 1 FROM chat_messages p WHERE p.user_id = :owner AND p.session_id = r.session_id
                       AND p.message_id = r.message_id)"""

TABLES = (
    ExportedTable(
        "user",
        "chat_users",
        {"created_at": "timestamptz", "disabled_at": "timestamptz", "metadata": "jsonb"},
        key=(),
        left_out={"user_id": OWNER},
    ),
    ExportedTable(
        "thread",
        "chat_sessions",
        {
            "session_id": "uuid",
            "thread_id": "text",
            "title": "text",
            "status": "jsonb",
            "allowed_image_domains": "jsonb",
            "metadata": "jsonb",
            "created_at": "timestamptz",
            "updated_at": "timestamptz",
            "next_position": "bigint",
        },
        key=("session_id",),
        identity=("session_id",),
        left_out={"user_id": OWNER, "current_turn_id": "no turn runs in an imported thread", "search_words": INDEX},
        # A client receives no metadata either.
        values={"metadata": "CASE WHEN :with_hidden THEN r.metadata ELSE '{}'::jsonb END"},
    ),
    ExportedTable(
        "item",
        "chat_messages",
        {
            "session_id": "uuid",
            "message_id": "uuid",
            "item_id": "text",
            "position": "bigint",
            "sender_type": "text",
            "sender_name": "text",
            "item_type": "text",
            "content": "text",
            "item": "jsonb",
            "turn_id": "uuid",
            "is_partial": "boolean",
            "created_at": "timestamptz",
        },
        key=("session_id", "position"),
        identity=("session_id", "message_id"),
        left_out={
            "user_id": OWNER,
            "is_draft": "a draft is of a turn that is running, and is shown to nobody",
            "search_words": INDEX,
        },
        rows=f"NOT r.is_draft AND (:with_hidden OR r.item_type NOT IN {HIDDEN})",
        # An unfinished message with its newest text.
        values={"item": _WHOLE, "content": f"CASE WHEN {has_log('r')} THEN {text_of(_WHOLE)} ELSE r.content END"},
        parent=_HAS_THREAD,
        size="octet_length(r.item::text)",
    ),
    ExportedTable(
        "feedback",
        "chat_feedback",
        {"session_id": "uuid", "message_id": "uuid", "kind": "text", "created_at": "timestamptz"},
        key=("session_id", "message_id"),
        identity=("session_id", "message_id"),
        left_out={"user_id": OWNER},
        rows=f"""EXISTS (SELECT 1 FROM chat_messages p WHERE p.user_id = :owner AND p.session_id = r.session_id
                           AND p.message_id = r.message_id AND NOT p.is_draft
                           AND (:with_hidden OR p.item_type NOT IN {HIDDEN}))""",
        parent=_HAS_MESSAGE,
    ),
    ExportedTable(
        "turn",
        "chat_turns",
        {
            "session_id": "uuid",
            "turn_id": "uuid",
            "operation": "text",
            "state": "text",
            "started_at": "timestamptz",
            "heartbeat_at": "timestamptz",
            "ended_at": "timestamptz",
            "error_code": "text",
            "usage": "jsonb",
            "retry_from": "bigint",
            "open_position": "bigint",
        },
        key=("session_id", "turn_id"),
        identity=("session_id", "turn_id"),
        left_out={
            "user_id": OWNER,
            "idempotency_key": "forgotten after a day",
            "request_hash": "forgotten after a day",
            "stop_requested_at": "of a turn that is running",
        },
        # What runs elsewhere does not run here.
        values={
            "state": f"CASE WHEN {_RUNNING} THEN 'interrupted' ELSE r.state END",
            "ended_at": f"CASE WHEN {_RUNNING} THEN r.heartbeat_at ELSE r.ended_at END",
            "error_code": f"CASE WHEN {_RUNNING} THEN 'interrupted' ELSE r.error_code END",
        },
    ),
    ExportedTable(
        "tool_call",
        "chat_tool_calls",
        {
            "session_id": "uuid",
            "position": "bigint",
            "sequence": "integer",
            "turn_id": "uuid",
            "is_function": "boolean",
            "name": "text",
            "arguments": "text",
            "output": "text",
            "created_at": "timestamptz",
        },
        key=("session_id", "position", "sequence"),
        identity=("session_id", "position", "sequence"),
        left_out={"user_id": OWNER, "is_draft": "a draft is of a turn that is running"},
        rows="NOT r.is_draft",
        parent=_HAS_THREAD,
        size="octet_length(r.arguments) + octet_length(r.output)",
    ),
    ExportedTable(
        "approval",
        "chat_approvals",
        {
            "session_id": "uuid",
            "turn_id": "uuid",
            "run_state": "text",
            "calls": "jsonb",
            "claims": "jsonb",
            "created_at": "timestamptz",
        },
        key=("session_id", "turn_id"),
        identity=("session_id", "turn_id"),
        left_out={
            "user_id": OWNER,
            "resumed_by": "a run that goes on here must not go on twice; its row is left out",
            "takeovers": "of a run that goes on",
        },
        # The state of a run has what the model was told.
        rows="r.resumed_by IS NULL AND :with_hidden",
        parent=_HAS_THREAD,
        size="octet_length(r.run_state) + octet_length(r.calls::text)",
    ),
    ExportedTable(
        "attachment",
        "chat_attachments",
        {
            "attachment_id": "text",
            "session_id": "uuid",
            "state": "text",
            "attachment": "jsonb",
            "declared_bytes": "bigint",
            "stored_bytes": "bigint",
            "content_type": "text",
            "sha256": "text",
            "created_at": "timestamptz",
            "uploaded_at": "timestamptz",
            "message_id": "uuid",
        },
        key=("attachment_id",),
        identity=("attachment_id",),
        left_out={
            "user_id": OWNER,
            "storage_key": "the place of the bytes in this installation",
            "upload_expires_at": "of an upload that has not ended",
            "deleted_at": "a deleted file is not exported",
        },
        # One without a key was saved by the SDK's own flow, whose bytes are elsewhere.
        rows="(r.state = 'ready' OR r.state = 'pending' AND r.storage_key IS NULL)",
    ),
)
"""In the order of an export, in which each record comes after those that it refers to."""

NOT_EXPORTED = {
    "chat_partial_log": "text of unfinished messages, which their items in an export have",
    "chat_rates": "requests of the last minutes",
    "chat_allowances": "what running turns hold; what was spent is in the turns",
    "chat_erased": "who was erased, and is nobody's data any more",
    "chat_audit": "what operators did here, in a chain of this installation",
}
"""Table to the reason."""
