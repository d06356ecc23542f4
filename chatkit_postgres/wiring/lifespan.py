"""Starts and stops the background tasks and the assistant; at the end, also running turns and connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from chatkit_postgres.assistant import Assistant
from chatkit_postgres.assistant.model_servers.sse import PACE
from chatkit_postgres.assistant.models import send_traces
from chatkit_postgres.attachments.cleanup import run_attachment_cleanup
from chatkit_postgres.chat.abandoned_runs import AbandonedRuns
from chatkit_postgres.db import Database
from chatkit_postgres.db.failures import PRIMARY
from chatkit_postgres.db.fitness import misfits_of, read_server
from chatkit_postgres.db.migrations import current_revision, head_revision, is_served_by_this_code
from chatkit_postgres.errors import DatabaseUnavailable
from chatkit_postgres.observability.logs import get_logger, log_failure
from chatkit_postgres.observability.loop_lag import watch_loop_lag
from chatkit_postgres.observability.tracing import stop_tracing
from chatkit_postgres.settings import ConfigurationError
from chatkit_postgres.store.maintenance import run_maintenance
from chatkit_postgres.store.retention import run_retention
from chatkit_postgres.wiring.parts import Parts

logger = get_logger(__name__)


@asynccontextmanager
async def running(parts: Parts) -> AsyncIterator[None]:
    """At the end, running turns get ``CHAT_DRAIN_SECONDS`` to end by themselves. Raises ConfigurationError for a
    database that does not fit, RuntimeError at a second entry."""
    settings = parts.deployment.settings
    if parts.started.is_set() or parts.runner.is_draining:
        raise RuntimeError(
            "the lifespan of a chat runs once, by the mount alone, not by include_router: for another start, such as "
            "another TestClient, make another application with create_app"
        )
    # Closed in the reverse order, each also if the one before it fails.
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, stop_tracing)
        stack.push_async_callback(parts.store.close)
        await _check_database(parts.database)
        _warn_about_settings(parts)
        stack.push_async_callback(_close_assistant, parts.assistant, is_traced=settings.tracing)
        if parts.keys is not None:
            stack.push_async_callback(parts.keys.close)
            await parts.keys.refresh()
        stack.callback(parts.started.clear)
        stack.push_async_callback(parts.runner.drain, settings.drain_seconds)
        await stack.enter_async_context(_background_tasks(parts))
        await parts.assistant.start()
        parts.started.set()
        yield


def _warn_about_settings(parts: Parts) -> None:
    for sentence in parts.unknown_settings:
        logger.warning("unknown_setting", cure=sentence)
    if parts.deployment.settings.public_url is None and not parts.deployment.is_dev:
        logger.warning("public_url_is_not_set", cure="CHAT_PUBLIC_URL, or file URLs contain the host of each request")


@asynccontextmanager
async def _background_tasks(parts: Parts) -> AsyncIterator[None]:
    stale_seconds = parts.deployment.settings.turn_stale_seconds
    cleanup = run_attachment_cleanup(parts.database, parts.storage, parts.metrics, every_seconds=stale_seconds / 2)
    maintenance = run_maintenance(
        parts.database, stale_seconds=stale_seconds, on_closed=parts.metrics.count_interrupted_turn
    )
    loop_lag = watch_loop_lag(parts.metrics.loop_lag.observe, PACE.slow_down)
    abandoned = AbandonedRuns(parts.store, parts.server, parts.runner).watch(every_seconds=stale_seconds / 2)
    search_index = parts.store.search_index.run()
    work = (maintenance, abandoned, parts.disabled.watch(), cleanup, search_index, loop_lag)
    tasks = [asyncio.create_task(task) for task in work]
    if (retention := parts.deployment.settings.retention()) is not None:
        on_deleted = parts.metrics.old_threads_deleted.inc
        tasks.append(asyncio.create_task(run_retention(parts.database, retention, on_deleted)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _sentence_of(error: Exception) -> str:
    """The message of the database or the operating system, which quotes names of users and databases only."""
    cause = error.__cause__ if isinstance(error, DatabaseUnavailable) and error.__cause__ is not None else error
    lines = str(getattr(cause, "cause", cause)).splitlines()
    return lines[0] if lines else type(cause).__name__


async def _close_assistant(assistant: Assistant, *, is_traced: bool) -> None:
    await assistant.close()
    if is_traced:
        await send_traces()
    if assistant.services.transcriber is not None:
        await assistant.services.transcriber.close()


async def _check_database(database: Database) -> None:
    """Logs database problems that requests would meet later. Raises ConfigurationError for an unsupported server."""
    try:
        server = await read_server(database)
        misfits = misfits_of(server)
        seen = None if misfits else await current_revision(database)
    except Exception as error:  # noqa: BLE001 - not reachable yet; readiness says so
        reason = _sentence_of(error)
        log_failure(logger, "database_unreachable_at_start", error, reason=reason, cure="chatkit-postgres check")
        return
    if misfits:
        for sentence in misfits:
            logger.error("database_does_not_fit", cure=sentence)
        raise ConfigurationError([f"DATABASE_URL: {sentence}" for sentence in misfits])
    if server["is_read_only"]:
        logger.warning("database_is_read_only", cure=PRIMARY)
    if not is_served_by_this_code(seen):
        logger.warning("database_not_migrated", seen=seen, wanted=head_revision(), cure="chatkit-postgres migrate")
    if not server["is_durable"]:
        logger.warning("synchronous_commit_is_off", cure="ALTER DATABASE ... SET synchronous_commit = on")
