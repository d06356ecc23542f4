"""Defines the tables that count what a user does, so that limits hold over all processes."""

from sqlalchemy import BigInteger, Column, Date, Double, Index, Integer, MetaData, PrimaryKeyConstraint, Table, Text
from sqlalchemy import text as sql_text
from sqlalchemy.dialects.postgresql import JSONB


def define_tables(metadata: MetaData) -> None:
    # Written with every few requests, and worth nothing after a minute, so it is not in the write-ahead log.
    Table(
        "chat_rates",
        metadata,
        Column("user_id", Text, nullable=False),
        # In seconds since 1970: a cluster adds nothing to a time in an upsert.
        Column("window_began", Double, nullable=False),
        # In this window, and in the one before it.
        Column("requests", BigInteger, nullable=False),
        Column("earlier", BigInteger, nullable=False),
        Column("counted_at", Double, nullable=False),
        PrimaryKeyConstraint("user_id", name="chat_rates_pkey"),
        prefixes=["UNLOGGED"],
    )

    # The running turns of a user, and the tokens that they hold and that the user has spent. No foreign key: a user's
    # first turn takes its place before anything else of the user is stored.
    Table(
        "chat_allowances",
        metadata,
        Column("user_id", Text, nullable=False),
        # By turn id: {"tokens": how many it holds, "at": since when, in seconds since 1970}.
        Column("holds", JSONB, nullable=False, server_default=sql_text("'{}'::jsonb")),
        # The number of holds, and the sum of their tokens.
        Column("turns", Integer, nullable=False, server_default=sql_text("0")),
        Column("tokens_held", BigInteger, nullable=False, server_default=sql_text("0")),
        # The last day, in UTC, on which the user has begun or ended a turn, and what was spent on it.
        Column("day", Date, nullable=False),
        Column("tokens_spent", BigInteger, nullable=False, server_default=sql_text("0")),
        PrimaryKeyConstraint("user_id", name="chat_allowances_pkey"),
        # For maintenance, over all owners.
        Index("chat_allowances_held", "user_id", postgresql_where=sql_text("turns > 0")),
    )
