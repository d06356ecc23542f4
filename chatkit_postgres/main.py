"""The one place where the parts are joined."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from chatkit_postgres import __version__
from chatkit_postgres.api.attachments import FileEndpoint, attachments_router
from chatkit_postgres.api.authentication import CookieRules, authenticated_by
from chatkit_postgres.api.chatkit import ChatEndpoint, chatkit_router
from chatkit_postgres.api.errors import install_error_handlers
from chatkit_postgres.api.health import health_router
from chatkit_postgres.api.metrics import metrics_router
from chatkit_postgres.api.middleware import (
    CorsMiddleware,
    LastNetMiddleware,
    LoopbackHostMiddleware,
    RequestIdMiddleware,
    SecurityHeadersMiddleware,
)
from chatkit_postgres.api.public_url import public_url
from chatkit_postgres.api.rate_limit import RateLimit
from chatkit_postgres.api.shutdown import draining_on_signals
from chatkit_postgres.api.uploads import UploadLimits
from chatkit_postgres.api.usage import usage_router
from chatkit_postgres.assistant import Assistant, AssistantError, load_assistant
from chatkit_postgres.assistant.mcp_servers import McpError
from chatkit_postgres.assistant.models import send_traces
from chatkit_postgres.assistant.proxies import ProxyRefused
from chatkit_postgres.attachments import Attachments
from chatkit_postgres.attachments.cleanup import clean_up_for_ever
from chatkit_postgres.attachments.links import Links
from chatkit_postgres.auth.disabled_users import DisabledUsers
from chatkit_postgres.auth.tokens import TokenVerifier, mint
from chatkit_postgres.chat.history import limits_of
from chatkit_postgres.chat.runner import TurnRunner
from chatkit_postgres.chat.server import ChatServer
from chatkit_postgres.db import Database
from chatkit_postgres.db.fitness import misfits_of, read_server
from chatkit_postgres.db.maintenance import maintain
from chatkit_postgres.db.migrations import is_served_by_this_code, seen_revision, wanted_revision
from chatkit_postgres.observability.logs import configure_logging, failure, get_logger
from chatkit_postgres.observability.metrics import Metrics
from chatkit_postgres.parts.files import file_limits, file_storage
from chatkit_postgres.parts.identity import shared_secret, token_rules, verification_keys
from chatkit_postgres.parts.limits import edge_limits, turn_limits
from chatkit_postgres.parts.models import model_options
from chatkit_postgres.playground import playground_router
from chatkit_postgres.settings import ConfigurationError, Settings, load_settings
from chatkit_postgres.store import DatabaseStore

DEV_TOKEN_SECONDS = 24 * 60 * 60
UPLOAD_LINK_SECONDS = 15 * 60

logger = get_logger(__name__)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The ASGI application. Raises ConfigurationError with every problem at once."""
    settings = settings or load_settings()
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    database_url = settings.database_url or settings.embedded_url
    problems = settings.problems()
    if database_url is None:
        problems.append(
            "DATABASE_URL: not set. Set it, or start with `chatkit-postgres serve`, which brings its own database."
        )
    try:
        assistant = load_assistant(settings.assistant, model_options(settings))
    except ProxyRefused as error:
        problems.append(f"HTTPS_PROXY, HTTP_PROXY, ALL_PROXY: {error}.")
    except McpError as error:
        problems.append(f"CHAT_MCP_FILE: {error}.")
    except AssistantError as error:
        problems.append(f"CHAT_ASSISTANT: {error}.")
    if problems or database_url is None:
        raise ConfigurationError(problems)
    return _join(settings, Database(database_url.get_secret_value(), pool_size=settings.database_pool_size), assistant)


def _join(settings: Settings, database: Database, assistant: Assistant) -> FastAPI:
    metrics = Metrics()
    assistant.database = database
    store = DatabaseStore(database)
    storage = file_storage(settings)
    storage.on_failure = lambda operation: metrics.storage_failures.labels(operation).inc()
    links = Links(
        settings.link_key or shared_secret(settings), seconds=settings.link_seconds, upload_seconds=UPLOAD_LINK_SECONDS
    )
    attachments = Attachments(store, storage, links, file_limits(settings))
    server = ChatServer(
        store,
        assistant,
        attachments,
        longest_answer=settings.max_answer_characters,
        history=limits_of(settings.history_tokens),
        most_audio_bytes=settings.max_audio_bytes,
    )
    runner = TurnRunner(
        store,
        server.encode,
        metrics,
        limits=turn_limits(settings),
        on_disconnect=settings.on_disconnect,
    )
    metrics.watch(running_turns=lambda: runner.running_count, connections_in_use=database.connections_in_use)
    database.on_retry = lambda reason: metrics.database_retries.labels(reason).inc()
    rules = token_rules(settings)
    keys = verification_keys(settings, rules)
    disabled = DisabledUsers(database, on_disabled=runner.stop_users)
    reached_at = public_url(settings.public_url)
    rate_limit = RateLimit(settings.requests_per_minute)
    authenticate = authenticated_by(
        TokenVerifier(rules, keys),
        disabled,
        rate_limit,
        CookieRules(settings.auth_cookie, frozenset(settings.cors_origins)) if settings.auth_cookie else None,
        reached_at,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await _look_at_database(database)
        if settings.public_url is None and not settings.is_dev:
            logger.warning("public_url_is_not_set", cure="CHAT_PUBLIC_URL, or addresses of files name this host")
        await keys.look()
        chores = [
            asyncio.create_task(maintain(database, stale_seconds=settings.turn_stale_seconds)),
            asyncio.create_task(disabled.watch()),
            asyncio.create_task(
                clean_up_for_ever(database, storage, metrics, every_seconds=settings.turn_stale_seconds / 2)
            ),
        ]
        await assistant.start()
        _settle_memory()
        with draining_on_signals(runner.drain, seconds=settings.drain_seconds):
            yield
        for chore in chores:
            chore.cancel()
        await runner.drain(0)
        await keys.close()
        await _close_assistant(assistant, is_traced=settings.tracing)
        await store.close()

    app = FastAPI(
        title="chatkit-postgres",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # A redirect would name whatever the Host header says.
        redirect_slashes=False,
    )
    install_error_handlers(app)
    app.include_router(
        health_router(
            database,
            keys,
            wanted_revision=wanted_revision(),
            is_served=is_served_by_this_code,
            is_draining=lambda: runner.is_draining,
        )
    )
    app.include_router(chatkit_router(ChatEndpoint(server, runner, edge_limits(settings)), authenticate))
    files = FileEndpoint(
        attachments,
        authenticate=authenticate,
        is_disabled=disabled.includes,
        rate_limit=rate_limit,
        metrics=metrics,
        limits=UploadLimits(most_bytes=settings.max_attachment_bytes, seconds=settings.upload_seconds),
        public_url=reached_at,
        from_bucket=settings.direct_downloads,
    )
    app.include_router(attachments_router(files, authenticate))
    app.include_router(usage_router(store, authenticate))
    app.include_router(metrics_router(metrics))
    if settings.is_dev:
        secret = shared_secret(settings)
        app.include_router(
            playground_router(
                lambda user: mint(secret, user, seconds=DEV_TOKEN_SECONDS, rules=rules), prompts=assistant.start_prompts
            )
        )
        app.add_middleware(LoopbackHostMiddleware)
    app.add_middleware(LastNetMiddleware)
    # Outside of everything that answers, so that a browser can read errors too.
    app.add_middleware(CorsMiddleware, origins=settings.cors_origins, with_cookies=settings.auth_cookie is not None)
    app.add_middleware(SecurityHeadersMiddleware, most_header_bytes=settings.max_header_bytes)
    app.add_middleware(RequestIdMiddleware)
    return app


def _settle_memory() -> None:
    """What was imported and built stays: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


async def _close_assistant(assistant: Assistant, *, is_traced: bool) -> None:
    await assistant.close()
    if is_traced:
        await send_traces()
    if assistant.transcriber is not None:
        await assistant.transcriber.close()


async def _look_at_database(database: Database) -> None:
    """Say in the log what would otherwise show only later. Raises ConfigurationError for a database that does not
    fit."""
    try:
        server = await read_server(database)
        misfits = misfits_of(server)
        seen = None if misfits else await seen_revision(database)
    except Exception as error:  # noqa: BLE001 - not reachable yet; readiness says so
        logger.warning("database_unreachable_at_start", **failure(error))
        return
    if misfits:
        for sentence in misfits:
            logger.error("database_does_not_fit", cure=sentence)
        raise ConfigurationError([f"DATABASE_URL: {sentence}" for sentence in misfits])
    if server["is_read_only"]:
        logger.warning("database_is_read_only", cure="the address of the primary, or target_session_attrs=read-write")
    if not is_served_by_this_code(seen):
        logger.warning("database_not_migrated", seen=seen, wanted=wanted_revision(), cure="chatkit-postgres migrate")
    if not server["is_durable"]:
        logger.warning("synchronous_commit_is_off", cure="ALTER DATABASE ... SET synchronous_commit = on")
