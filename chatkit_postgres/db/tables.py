"""Defines the schema for migrations and their drift check. Statements are in ``store/sql``.

The owner comes first in every key, so every look-up is one index range of one owner, and a cluster that
distributes by ``user_id`` needs no other schema.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR

from chatkit_postgres.db import limit_tables, operators_tables

VERSION_TABLE = "chat_alembic_version"

metadata = MetaData()
operators_tables.define_tables(metadata)
limit_tables.define_tables(metadata)


def _now(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("now()"))


def _json(name: str) -> Column[object]:
    return Column(name, JSONB, nullable=False, server_default=text("'{}'::jsonb"))


def _search_indexes(table: str) -> tuple[Index, Index]:
    return (
        # A query reads the pending list each time, so it is kept short: 128 kB.
        Index(
            f"{table}_search", "search_words", postgresql_using="gin", postgresql_with={"gin_pending_list_limit": 128}
        ),
        Index(f"{table}_unindexed", "user_id", postgresql_where=text("search_words IS NULL")),
    )


chat_users = Table(
    "chat_users",
    metadata,
    Column("user_id", Text, nullable=False),
    _now("created_at"),
    Column("disabled_at", DateTime(timezone=True)),
    _json("metadata"),
    PrimaryKeyConstraint("user_id", name="chat_users_pkey"),
    Index("chat_users_disabled", "user_id", postgresql_where=text("disabled_at IS NOT NULL")),
)

chat_sessions = Table(
    "chat_sessions",
    metadata,
    Column("user_id", Text, nullable=False),
    Column("session_id", Uuid, nullable=False),
    Column("thread_id", Text, nullable=False),
    Column("title", Text),
    Column("status", JSONB, nullable=False, server_default=text("""'{"type": "active"}'::jsonb""")),
    Column("allowed_image_domains", JSONB),
    _json("metadata"),
    _now("created_at"),
    _now("updated_at"),
    Column("next_position", BigInteger, nullable=False, server_default=text("1")),
    Column("current_turn_id", Uuid),
    # Of the title; null until it is indexed.
    Column("search_words", TSVECTOR),
    PrimaryKeyConstraint("user_id", "session_id", name="chat_sessions_pkey"),
    ForeignKeyConstraint(["user_id"], ["chat_users.user_id"], name="chat_sessions_user_fkey"),
    Index("chat_sessions_by_creation", "user_id", "created_at", "session_id"),
    *_search_indexes("chat_sessions"),
)

chat_messages = Table(
    "chat_messages",
    metadata,
    Column("user_id", Text, nullable=False),
    Column("session_id", Uuid, nullable=False),
    Column("message_id", Uuid, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("sender_type", Text, nullable=False),
    Column("sender_name", Text),
    Column("item_type", Text, nullable=False),
    Column("content", Text, nullable=False, server_default=text("''")),
    Column("item", JSONB, nullable=False),
    Column("turn_id", Uuid),
    Column("is_partial", Boolean, nullable=False, server_default=text("false")),
    Column("is_draft", Boolean, nullable=False, server_default=text("false")),
    _now("created_at"),
    # Null until it is indexed.
    Column("search_words", TSVECTOR),
    PrimaryKeyConstraint("user_id", "session_id", "message_id", name="chat_messages_pkey"),
    UniqueConstraint("user_id", "session_id", "position", name="chat_messages_position_key"),
    ForeignKeyConstraint(
        ["user_id", "session_id"],
        ["chat_sessions.user_id", "chat_sessions.session_id"],
        name="chat_messages_session_fkey",
        ondelete="CASCADE",
    ),
    CheckConstraint("sender_type IN ('user', 'assistant', 'tool', 'system')", name="chat_messages_sender_type_check"),
    *_search_indexes("chat_messages"),
)

# The text of unfinished messages that is newer than their partial rows in chat_messages. No foreign key: a thread that
# is deleted in the middle of a checkpoint would fail the checkpoint of all others.
chat_partial_log = Table(
    "chat_partial_log",
    metadata,
    Column("user_id", Text, nullable=False),
    Column("session_id", Uuid, nullable=False),
    Column("turn_id", Uuid, nullable=False),
    # Grows within the turn.
    Column("sequence", BigInteger, nullable=False),
    Column("message_id", Uuid, nullable=False),
    Column("content_index", Integer, nullable=False),
    # Characters of the text, or annotations, before this entry: what the partial row has already is not added again.
    Column("start", Integer, nullable=False),
    Column("text", Text, nullable=False, server_default=text("''")),
    # In place of text.
    Column("annotation", JSONB),
    PrimaryKeyConstraint("user_id", "session_id", "turn_id", "sequence", name="chat_partial_log_pkey"),
)

# No foreign key to the thread: the ledger keeps the usage of deleted threads.
chat_turns = Table(
    "chat_turns",
    metadata,
    Column("user_id", Text, nullable=False),
    Column("session_id", Uuid, nullable=False),
    Column("turn_id", Uuid, nullable=False),
    Column("operation", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'running'")),
    _now("started_at"),
    _now("heartbeat_at"),
    Column("ended_at", DateTime(timezone=True)),
    Column("error_code", Text),
    Column("usage", JSONB),
    Column("retry_from", BigInteger),
    Column("open_position", BigInteger),
    Column("idempotency_key", Text),
    Column("request_hash", Text),
    # When somebody asked to stop the turn, for the process that runs it.
    Column("stop_requested_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("user_id", "session_id", "turn_id", name="chat_turns_pkey"),
    CheckConstraint(
        "state IN ('running', 'completed', 'failed', 'stopped', 'superseded', 'interrupted', 'waiting')",
        name="chat_turns_state_check",
    ),
    CheckConstraint("(state = 'running') = (ended_at IS NULL)", name="chat_turns_ended_check"),
    Index(
        "chat_turns_idempotency_key",
        "user_id",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    Index("chat_turns_running", "user_id", "heartbeat_at", postgresql_where=text("state = 'running'")),
    Index("chat_turns_by_start", "user_id", "started_at"),
    Index(
        "chat_turns_refused",
        "user_id",
        "session_id",
        postgresql_where=text(
            "error_code IN ('input_guardrail_tripped', 'content_refused', 'context_too_long', 'picture_refused')"
        ),
    ),
)

# A run that waits until its user has approved or refused calls of tools; deleted when it has gone on and ended.
chat_approvals = Table(
    "chat_approvals",
    metadata,
    Column("user_id", Text, nullable=False),
    Column("session_id", Uuid, nullable=False),
    # The turn that asked.
    Column("turn_id", Uuid, nullable=False),
    # Text, because jsonb refuses characters that a model may send.
    Column("run_state", Text, nullable=False),
    # By the id of the item that asks: the call, its answer, when it began, and its output.
    Column("calls", JSONB, nullable=False),
    # The turn that goes on with the run.
    Column("resumed_by", Uuid),
    # Of the user, in the request of the last answer.
    _json("claims"),
    # How often a process has gone on with the run of another one.
    Column("takeovers", Integer, nullable=False, server_default=text("0")),
    _now("created_at"),
    PrimaryKeyConstraint("user_id", "session_id", "turn_id", name="chat_approvals_pkey"),
    ForeignKeyConstraint(
        ["user_id", "session_id"],
        ["chat_sessions.user_id", "chat_sessions.session_id"],
        name="chat_approvals_session_fkey",
        ondelete="CASCADE",
    ),
    Index("chat_approvals_resumed", "user_id", "session_id", postgresql_where=text("resumed_by IS NOT NULL")),
)

# Calls of tools with their outputs, which a model is given again with the history. A position is one of the thread's,
# between those of its messages.
chat_tool_calls = Table(
    "chat_tool_calls",
    metadata,
    Column("user_id", Text, nullable=False),
    Column("session_id", Uuid, nullable=False),
    Column("position", BigInteger, nullable=False),
    # Among the calls that were saved at once.
    Column("sequence", Integer, nullable=False),
    Column("turn_id", Uuid, nullable=False),
    Column("is_draft", Boolean, nullable=False, server_default=text("false")),
    # Whether the tool is a function, whose call every model API knows.
    Column("is_function", Boolean, nullable=False, server_default=text("true")),
    Column("name", Text, nullable=False),
    Column("arguments", Text, nullable=False),
    Column("output", Text, nullable=False),
    _now("created_at"),
    PrimaryKeyConstraint("user_id", "session_id", "position", "sequence", name="chat_tool_calls_pkey"),
    ForeignKeyConstraint(
        ["user_id", "session_id"],
        ["chat_sessions.user_id", "chat_sessions.session_id"],
        name="chat_tool_calls_session_fkey",
        ondelete="CASCADE",
    ),
    Index("chat_tool_calls_drafts", "user_id", "session_id", "turn_id", postgresql_where=text("is_draft")),
)

# No cascade from the thread: its deletion marks these rows; a background task removes the bytes, then the rows.
chat_attachments = Table(
    "chat_attachments",
    metadata,
    Column("user_id", Text, nullable=False),
    Column("attachment_id", Text, nullable=False),
    Column("session_id", Uuid),
    Column("state", Text, nullable=False, server_default=text("'pending'")),
    Column("attachment", JSONB, nullable=False),
    Column("storage_key", Text),
    Column("declared_bytes", BigInteger),
    Column("stored_bytes", BigInteger),
    Column("content_type", Text),
    Column("sha256", Text),
    _now("created_at"),
    Column("upload_expires_at", DateTime(timezone=True)),
    Column("uploaded_at", DateTime(timezone=True)),
    Column("deleted_at", DateTime(timezone=True)),
    # The message that it was sent with; null before that.
    Column("message_id", Uuid),
    PrimaryKeyConstraint("user_id", "attachment_id", name="chat_attachments_pkey"),
    CheckConstraint("state IN ('pending', 'ready', 'deleted')", name="chat_attachments_state_check"),
    Index("chat_attachments_by_session", "user_id", "session_id"),
    # For background tasks over all owners; small, however many rows there are.
    Index("chat_attachments_deleted", "deleted_at", postgresql_where=text("state = 'deleted'")),
    Index(
        "chat_attachments_unsent",
        "created_at",
        postgresql_where=text("session_id IS NULL AND state <> 'deleted'"),
    ),
)

chat_feedback = Table(
    "chat_feedback",
    metadata,
    Column("user_id", Text, nullable=False),
    Column("session_id", Uuid, nullable=False),
    Column("message_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    _now("created_at"),
    PrimaryKeyConstraint("user_id", "session_id", "message_id", name="chat_feedback_pkey"),
    ForeignKeyConstraint(
        ["user_id", "session_id", "message_id"],
        ["chat_messages.user_id", "chat_messages.session_id", "chat_messages.message_id"],
        name="chat_feedback_message_fkey",
        ondelete="CASCADE",
    ),
    CheckConstraint("kind IN ('positive', 'negative')", name="chat_feedback_kind_check"),
)
