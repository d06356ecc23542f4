"""Joins the metrics with what they show."""

from typing import get_args

from chatkit.types import StreamingReq

from chatkit_postgres import __version__
from chatkit_postgres.chat.turns.runner import TurnRunner
from chatkit_postgres.db import Database
from chatkit_postgres.errors import (
    BudgetUsedUp,
    DatabaseUnavailable,
    Draining,
    ServerFull,
    StorageUnavailable,
    TooManyTurns,
)
from chatkit_postgres.observability.metrics import Metrics
from chatkit_postgres.settings import Settings, fingerprint
from chatkit_postgres.store.outcome import EndState

OPERATIONS = tuple(str(request.model_fields["type"].default) for request in get_args(StreamingReq))
REFUSALS = (ServerFull, Draining, TooManyTurns, BudgetUsedUp, DatabaseUnavailable)
STORAGE = ("put", "get", "read", "delete", "list", "sign")


def watch(metrics: Metrics, runner: TurnRunner, database: Database, settings: Settings) -> None:
    metrics.name_server(version=__version__, settings=fingerprint(settings))
    metrics.watch(
        running_turns=lambda: runner.running_count,
        connections_in_use=database.connections_in_use,
        is_database_available=lambda: database.is_available,
        pool_size=database.pool_size,
    )
    metrics.begin_at_zero(
        operations=OPERATIONS,
        states=get_args(EndState),
        refusals=[refusal.code for refusal in REFUSALS],
        uploads=("stored", StorageUnavailable.code),
        storage=STORAGE,
    )
