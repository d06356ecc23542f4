"""What becomes of every table and column when a user's data is exported, and the statements that read and write it.

A column that is missing here fails ``tests/user_data/test_tables.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chatkit_postgres.db.statement import ParameterType, Statement
from chatkit_postgres.store.sql.index_entry import indexed
from chatkit_postgres.store.sql.partials import merged

PAGE = 200
PAGE_BYTES = 4_000_000


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
    size: str = "0"
    """SQL of the bytes of a large row ``r``, so that a page does not become too large."""


OWNER = "the records are their owner's, and may be imported for another one"
INDEX = "made again on import"

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
        left_out={"user_id": OWNER, "current_turn_id": "no turn runs in an imported thread", "search_words": INDEX},
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
        left_out={
            "user_id": OWNER,
            "is_draft": "a draft is of a turn that is running, and is shown to nobody",
            "search_words": INDEX,
        },
        rows="NOT r.is_draft",
        values={"item": merged("r")},
        parent=_HAS_THREAD,
        size="octet_length(r.content)",
    ),
    ExportedTable(
        "feedback",
        "chat_feedback",
        {"session_id": "uuid", "message_id": "uuid", "kind": "text", "created_at": "timestamptz"},
        key=("session_id", "message_id"),
        left_out={"user_id": OWNER},
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
        left_out={
            "user_id": OWNER,
            "resumed_by": "a run that goes on here must not go on twice; its row is left out",
            "takeovers": "of a run that goes on",
        },
        rows="r.resumed_by IS NULL",
        parent=_HAS_THREAD,
        size="octet_length(r.run_state)",
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
    "chat_erased": "who was erased, and is nobody's data any more",
}
"""Table to the reason."""


def _after(table: ExportedTable) -> str:
    if not table.key:
        return "CAST(:after AS jsonb) IS NULL"
    types = {name: table.columns[name] for name in table.key}
    values = ", ".join(f"CAST(CAST(:after AS jsonb) ->> '{name}' AS {kind})" for name, kind in types.items())
    return f"(CAST(:after AS jsonb) IS NULL OR ({', '.join(f'r.{name}' for name in types)}) > ({values}))"


def _exported(name: str, kind: str, value: str) -> str:
    if kind == "timestamptz":
        return f"to_char({value} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS {name}"
    return f"{value} AS {name}"


def _list(table: ExportedTable) -> Statement:
    """A page of records after the one whose key is :after, each with its storage key, if it has one."""
    fields = ", ".join(
        _exported(name, kind, table.values.get(name, f"r.{name}")) for name, kind in table.columns.items()
    )
    order = ", ".join(f"r.{name}" for name in table.key) or "r.created_at"
    return Statement(
        f"export_{table.record}s",
        f"""
SELECT (SELECT row_to_json(x)::text FROM (SELECT {fields}) x) AS record,
       {"r.storage_key" if table.record == "attachment" else "NULL::text"} AS storage_key
  FROM (SELECT r.*, sum({table.size}) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) - ({table.size}) AS bytes_before
          FROM (SELECT * FROM {table.table} r
                 WHERE r.user_id = :owner AND {table.rows} AND {_after(table)}
                 ORDER BY {order} LIMIT {PAGE}) r) r
 WHERE bytes_before <= {PAGE_BYTES}
 ORDER BY {order}
""",
        after="text",
    )


LISTS = {table.record: _list(table) for table in TABLES}
"""By the type of the records."""

_CONFLICT = {
    # A thread that has grown since it was imported first.
    "thread": """(user_id, session_id) DO UPDATE SET next_position = excluded.next_position
 WHERE t.next_position < excluded.next_position"""
}

_BEFORE = {
    # Items that others have written have no positions, and their thread does not know how many there are.
    "item": """WITH advanced AS (
  UPDATE chat_sessions s SET next_position = given.next
    FROM (SELECT session_id, max(position) + 1 AS next
            FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(session_id uuid, position bigint) GROUP BY 1) given
   WHERE s.user_id = :owner AND s.session_id = given.session_id AND s.next_position < given.next)"""
}


def _insert(table: ExportedTable) -> Statement:
    """Rows that are not there yet. Each has the columns of its record and, for the search index, ``words``."""
    columns, values = list(table.columns), [f"r.{name}" for name in table.columns]
    types = [f"{name} {kind}" for name, kind in table.columns.items()]
    parameters: dict[str, ParameterType] = {"rows": "text"}
    if "search_words" in table.left_out:
        columns.append("search_words")
        values.append(indexed("CAST(r.words AS tsvector)", ":owner_mark", "r.created_at"))
        types.append("words text")
        parameters["owner_mark"] = "text"
    return Statement(
        f"import_{table.record}s",
        f"""
{_BEFORE.get(table.record, "")}
INSERT INTO {table.table} AS t (user_id, {", ".join(columns)})
SELECT :owner, {", ".join(values)}
  FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r({", ".join(types)})
 WHERE {table.parent}
ON CONFLICT {_CONFLICT.get(table.record, "DO NOTHING")}
RETURNING xmax = 0 AS is_new
""",
        **parameters,
    )


INSERTS = {table.record: _insert(table) for table in TABLES}

COUNT_EXPORTED = Statement(
    "count_exported",
    """
SELECT (SELECT count(*) FROM chat_messages WHERE user_id = :owner) AS items,
       (SELECT COALESCE(sum(stored_bytes), 0)::bigint FROM chat_attachments
         WHERE user_id = :owner AND state = 'ready') AS bytes
""",
)

# A file whose bytes are being imported has a row with its storage key, as one that is being uploaded. Returns the key
# of the row, and whether the bytes are there.
ANNOUNCE_FILE = Statement(
    "announce_imported_file",
    """
INSERT INTO chat_attachments AS a (user_id, attachment_id, attachment, storage_key, upload_expires_at)
VALUES (:owner, :attachment_id, CAST(:attachment AS jsonb), :storage_key, now() + interval '1 hour')
ON CONFLICT (user_id, attachment_id) DO UPDATE SET upload_expires_at = excluded.upload_expires_at
 WHERE a.state = 'pending' AND a.storage_key IS NOT NULL
RETURNING storage_key
""",
    attachment_id="text",
    attachment="text",
    storage_key="text",
)

FINISH_FILE = Statement(
    "finish_imported_file",
    """
UPDATE chat_attachments a
   SET session_id = r.session_id, state = r.state, attachment = r.attachment, declared_bytes = r.declared_bytes,
       stored_bytes = r.stored_bytes, content_type = r.content_type, sha256 = r.sha256, created_at = r.created_at,
       uploaded_at = r.uploaded_at, message_id = r.message_id, upload_expires_at = NULL
  FROM jsonb_to_record(CAST(:row AS jsonb)) AS r(
         session_id uuid, state text, attachment jsonb, declared_bytes bigint, stored_bytes bigint, content_type text,
         sha256 text, created_at timestamptz, uploaded_at timestamptz, message_id uuid)
 WHERE a.user_id = :owner AND a.attachment_id = :attachment_id AND a.state = 'pending'
RETURNING a.attachment_id
""",
    attachment_id="text",
    row="text",
)
