"""Defines the tables that belong to no user: what operators did."""

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Index, MetaData, PrimaryKeyConstraint, Table, Text


def define_tables(metadata: MetaData) -> None:
    # Who was erased: a hash under a key that only the operator has, and no name.
    Table(
        "chat_erased",
        metadata,
        Column("user_hash", Text, nullable=False),
        Column("erased_at", DateTime(timezone=True), nullable=False),
        PrimaryKeyConstraint("user_hash", name="chat_erased_pkey"),
    )

    # Who looked at whose conversations, as a chain: user_data/audit.py. The names of erased users are set to null.
    Table(
        "chat_audit",
        metadata,
        Column("sequence", BigInteger, autoincrement=False, nullable=False),
        Column("at", DateTime(timezone=True), nullable=False),
        Column("via", Text, nullable=False),
        Column("actor", Text),
        Column("actor_hash", Text, nullable=False),
        Column("action", Text, nullable=False),
        Column("subject", Text),
        Column("subject_hash", Text),
        Column("thread_id", Text),
        Column("thread_hash", Text),
        # Of this entry and the one before it.
        Column("hash", Text, nullable=False),
        PrimaryKeyConstraint("sequence", name="chat_audit_pkey"),
        CheckConstraint("via IN ('command', 'http')", name="chat_audit_via_check"),
        Index("chat_audit_by_subject", "subject_hash", "sequence"),
        Index("chat_audit_by_actor", "actor_hash", "sequence"),
    )
