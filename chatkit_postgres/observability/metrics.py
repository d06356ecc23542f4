"""The metrics of ``GET /metrics``. Each application has its own registry, so that tests share nothing."""

from collections.abc import Callable, Iterable
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.turns = Counter(
            "chatkit_turns",
            "Turns that ended, by operation and state.",
            ["operation", "state"],
            registry=self._registry,
        )
        self.turns_refused = Counter(
            "chatkit_turns_refused",
            "Turns refused before anything was stored, by the code of their error.",
            ["code"],
            registry=self._registry,
        )
        self.followers = Gauge(
            "chatkit_followers", "Connections that follow a turn through the database.", registry=self._registry
        )
        self.readers = Gauge("chatkit_open_readers", "Connections that read a turn.", registry=self._registry)
        self.first_event = Histogram(
            "chatkit_first_event_seconds",
            "From the start of a turn to its first event.",
            ["operation"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.checkpoint_lag = Histogram(
            "chatkit_checkpoint_lag_seconds",
            "Maximum age of an answer's oldest unsaved text when a checkpoint saved it.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.loop_lag = Histogram(
            "chatkit_event_loop_lag_seconds",
            "How late the event loop runs what is due, four times a second.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.database_retries = Counter(
            "chatkit_database_retries", "Statements tried again, by reason.", ["reason"], registry=self._registry
        )
        self.uploads = Counter(
            "chatkit_uploads", "Uploads, by `stored` or the code of their error.", ["outcome"], registry=self._registry
        )
        self.storage_failures = Counter(
            "chatkit_storage_failures", "Calls of the storage that failed.", ["operation"], registry=self._registry
        )
        self.attachments_removed = Counter(
            "chatkit_attachments_removed", "Attachments that lost their bytes or rows.", registry=self._registry
        )
        self.old_threads_deleted = Counter(
            "chatkit_old_threads_deleted", "Threads deleted by CHAT_RETENTION_DAYS.", registry=self._registry
        )
        self.clean_up = Gauge(
            "chatkit_clean_up_last_success_timestamp_seconds",
            "When the removal of deleted attachments last finished.",
            registry=self._registry,
        )
        self._available = Gauge(
            "chatkit_database_available",
            "1 if the database answers this process and takes its writes, otherwise 0.",
            registry=self._registry,
        )
        self._pool_size = Gauge(
            "chatkit_database_pool_size", "Maximum connections of this process.", registry=self._registry
        )
        self._server = Gauge(
            "chatkit_server_info",
            "Always 1; the labels are the version and a fingerprint of the settings that processes must share.",
            ["version", "settings"],
            registry=self._registry,
        )
        self._running = Gauge("chatkit_running_turns", "Turns that run in this process.", registry=self._registry)
        self._pool = Gauge(
            "chatkit_database_connections_in_use", "Connections in use in this process's pool.", registry=self._registry
        )

    def count_retry(self, reason: str) -> None:
        self.database_retries.labels(reason).inc()

    def count_storage_failure(self, operation: str) -> None:
        self.storage_failures.labels(operation).inc()

    def count_interrupted_turn(self, operation: str) -> None:
        """Count a turn of another process, which did not end it."""
        self.turns.labels(operation, "interrupted").inc()

    def begin_at_zero(
        self,
        *,
        operations: Iterable[str],
        states: Iterable[str],
        refusals: Iterable[str],
        uploads: Iterable[str],
        storage: Iterable[str],
    ) -> None:
        """Counters that did not exist before have not increased for Prometheus, and an alert would miss the first
        event of a process."""
        for operation, state in product(operations, states):
            self.turns.labels(operation, state)
        for code in refusals:
            self.turns_refused.labels(code)
        for outcome in uploads:
            self.uploads.labels(outcome)
        for operation in storage:
            self.storage_failures.labels(operation)

    def name_server(self, *, version: str, settings: str) -> None:
        """``settings``: their fingerprint."""
        self._server.labels(version, settings).set(1)

    def watch(
        self,
        *,
        running_turns: Callable[[], int],
        connections_in_use: Callable[[], int],
        is_database_available: Callable[[], bool],
        pool_size: int,
    ) -> None:
        self._running.set_function(running_turns)
        self._pool.set_function(connections_in_use)
        self._available.set_function(is_database_available)
        self._pool_size.set(pool_size)

    def exposition(self) -> bytes:
        return generate_latest(self._registry)
