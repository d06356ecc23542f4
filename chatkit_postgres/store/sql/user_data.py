"""Statements that export and import all data of a user, made from the list of exported tables."""

from chatkit_postgres.db.statement import ParameterType, Statement
from chatkit_postgres.store.sql.exported_tables import TABLES, ExportedTable
from chatkit_postgres.store.sql.index_entry import indexed

PAGE = 200
PAGE_BYTES = 4_000_000


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
    parameters: dict[str, ParameterType] = {"after": "text"}
    if ":with_hidden" in fields + table.rows:
        # Whether an operator exports, and not the user.
        parameters["with_hidden"] = "boolean"
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
        **parameters,
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
    "item": """advanced AS (
  UPDATE chat_sessions s SET next_position = g.next
    FROM (SELECT session_id, max(position) + 1 AS next FROM given GROUP BY 1) g
   WHERE s.user_id = :owner AND s.session_id = g.session_id AND s.next_position < g.next
), """
}


def _insert(table: ExportedTable) -> Statement:
    """Rows that are not there yet. Each has the columns of its record and, for the search index, ``words``. Returns how
    many were new, and how many were there before; the others have no thread, or their position is taken."""
    columns, values = list(table.columns), [f"r.{name}" for name in table.columns]
    types = [f"{name} {kind}" for name, kind in table.columns.items()]
    parameters: dict[str, ParameterType] = {"rows": "text"}
    if "search_words" in table.left_out:
        columns.append("search_words")
        values.append(indexed("CAST(r.words AS tsvector)", ":owner_mark", "r.created_at"))
        types.append("words text")
        parameters["owner_mark"] = "text"
    key = "".join(f" AND t.{name} = r.{name}" for name in table.identity)
    return Statement(
        f"import_{table.record}s",
        f"""
WITH given AS (
  SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r({", ".join(types)})
), known AS MATERIALIZED (
  SELECT count(*) AS count FROM given r JOIN {table.table} t ON t.user_id = :owner{key}
), {_BEFORE.get(table.record, "")}new AS (
  INSERT INTO {table.table} AS t (user_id, {", ".join(columns)})
  SELECT :owner, {", ".join(values)} FROM given r WHERE {table.parent}
  ON CONFLICT {_CONFLICT.get(table.record, "DO NOTHING")}
  RETURNING xmax = 0 AS is_new
)
SELECT known.count AS known, (SELECT count(*) FROM new WHERE is_new) AS new FROM known
""",
        **parameters,
    )


INSERTS = {table.record: _insert(table) for table in TABLES}

NEXT_POSITION = Statement(
    "next_position",
    """
SELECT next_position FROM chat_sessions WHERE user_id = :owner AND session_id = :session
""",
    session="uuid",
)

COUNT_EXPORTED = Statement(
    "count_exported",
    """
SELECT (SELECT count(*) FROM chat_messages WHERE user_id = :owner) AS items,
       EXISTS (SELECT 1 FROM chat_users WHERE user_id = :owner)
         OR EXISTS (SELECT 1 FROM chat_attachments WHERE user_id = :owner) AS is_known,
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
  FROM jsonb_to_recordset(jsonb_build_array(CAST(:row AS jsonb))) AS r(
         session_id uuid, state text, attachment jsonb, declared_bytes bigint, stored_bytes bigint, content_type text,
         sha256 text, created_at timestamptz, uploaded_at timestamptz, message_id uuid)
 WHERE a.user_id = :owner AND a.attachment_id = :attachment_id AND a.state = 'pending'
RETURNING a.attachment_id
""",
    attachment_id="text",
    row="text",
)
