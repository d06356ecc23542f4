"""The one place where the parts are joined."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from obstore.exceptions import BaseError

from app import __version__
from app.api.attachments import FileEndpoint, attachments_router
from app.api.authentication import CookieRules, authenticated_by
from app.api.body import BodyLimits
from app.api.chatkit import ChatEndpoint, EdgeLimits, chatkit_router
from app.api.errors import install_error_handlers
from app.api.health import health_router
from app.api.metrics import metrics_router
from app.api.middleware import (
    CorsMiddleware,
    LastNetMiddleware,
    LoopbackHostMiddleware,
    RequestIdMiddleware,
    SecurityHeadersMiddleware,
)
from app.api.public_url import public_url
from app.api.rate_limit import RateLimit
from app.api.shutdown import draining_on_signals
from app.api.uploads import UploadLimits
from app.api.usage import usage_router
from app.assistant import Assistant, AssistantError, load_assistant
from app.assistant.mcp_servers import McpError
from app.assistant.models import ModelOptions, send_traces
from app.assistant.transport import ProxyRefused
from app.attachments import Attachments
from app.attachments.cleanup import clean_up_for_ever
from app.attachments.intake import FileLimits
from app.attachments.kinds import AcceptedTypes
from app.attachments.links import Links
from app.attachments.storage import Bucket, Storage
from app.auth import jwks_sources
from app.auth.dev_secret import dev_secret
from app.auth.disabled_users import DisabledUsers
from app.auth.keys import Keys, KeySet, SharedSecret
from app.auth.tokens import TokenRules, TokenVerifier, mint
from app.chat.history import HistoryLimits
from app.chat.requests import RequestLimits
from app.chat.runner import TurnRunner
from app.chat.running_turn import TurnLimits
from app.chat.server import ChatServer
from app.db import Database
from app.db.maintenance import READ_SETTINGS, maintain
from app.db.migrations import is_served_by_this_code, seen_revision, wanted_revision
from app.observability.logs import configure_logging, failure, get_logger
from app.observability.metrics import Metrics
from app.playground import playground_router
from app.settings import ConfigurationError, Settings, load_settings
from app.store import DatabaseStore

DEV_TOKEN_SECONDS = 24 * 60 * 60
UPLOAD_LINK_SECONDS = 15 * 60
CHARACTERS_PER_TOKEN = 4

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


def token_rules(settings: Settings) -> TokenRules:
    algorithms = settings.jwt_algorithms
    if settings.is_dev or (algorithms is None and not settings.uses_key_set):
        algorithms = ("HS256",)
    return TokenRules(
        algorithms=algorithms,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        user_claim=settings.jwt_user_claim,
        leeway_seconds=settings.jwt_leeway_seconds,
        kept_claims=settings.user_claims,
    )


def shared_secret(settings: Settings) -> str:
    """The secret that tokens are signed and verified with. Raises ConfigurationError if there is none."""
    try:
        secret = dev_secret(settings.dev_secret_file) if settings.is_dev else settings.jwt_key
    except OSError as error:
        problem = f"CHAT_DATA_DIR: cannot write {settings.dev_secret_file}: {error.strerror}."
        raise ConfigurationError([problem]) from error
    if secret is None or (settings.uses_key_set and not settings.is_dev):
        raise ConfigurationError(["CHAT_JWT_SECRET: needed to sign tokens, and not set."])
    return secret


def file_storage(settings: Settings) -> Storage:
    """Where the bytes of attachments are. Raises ConfigurationError if it cannot be written."""
    if settings.storage_url is not None:
        name, _, prefix = settings.storage_url.removeprefix("s3://").partition("/")
        secret, token = settings.aws_secret_access_key, settings.aws_session_token
        bucket = Bucket(
            name=name,
            prefix=prefix.strip("/") or None,
            endpoint=settings.aws_endpoint_url,
            region=settings.aws_region,
            access_key_id=settings.aws_access_key_id,
            secret_access_key=secret.get_secret_value() if secret is not None else None,
            session_token=token.get_secret_value() if token is not None else None,
        )
        try:
            return Storage.in_bucket(bucket)
        except BaseError as error:
            raise ConfigurationError([f"CHAT_STORAGE_URL: {type(error).__name__}."]) from None
    directory = settings.data_dir.resolve() / "attachments"
    try:
        return Storage.in_directory(directory)
    except OSError as error:
        problem = f"CHAT_DATA_DIR: cannot write {directory}: {error.strerror}. Or set CHAT_STORAGE_URL."
        raise ConfigurationError([problem]) from error


def file_limits(settings: Settings) -> FileLimits:
    return FileLimits(
        most_bytes=settings.max_attachment_bytes,
        most_pixels=settings.max_image_pixels,
        most_unsent=settings.max_unsent_attachments,
        accepted=AcceptedTypes(settings.attachment_types),
        text_characters=settings.file_tokens * CHARACTERS_PER_TOKEN,
        pictures=settings.model_images,
    )


def verification_keys(settings: Settings, rules: TokenRules) -> Keys:
    if settings.is_dev or not settings.uses_key_set:
        return SharedSecret(shared_secret(settings), rules.algorithms or ("HS256",))
    if settings.jwks_file is not None:
        load = jwks_sources.from_file(settings.jwks_file)
    else:
        load = jwks_sources.from_url(str(settings.jwks_url))
    return KeySet(load, rules.algorithms, outage_seconds=settings.jwks_outage_seconds)


def model_options(settings: Settings) -> ModelOptions:
    key = settings.openai_api_key
    return ModelOptions(
        model=settings.model,
        api=settings.model_api,
        api_key=key.get_secret_value() if key is not None else None,
        base_url=settings.openai_base_url,
        allowed_models=frozenset(settings.allowed_models),
        allowed_tools=frozenset(settings.allowed_tools),
        transcription_model=settings.transcription_model,
        mcp_file=settings.mcp_file,
        is_traced=settings.tracing,
        tracing_key=settings.tracing_key.get_secret_value() if settings.tracing_key is not None else None,
        timeout_seconds=settings.model_timeout_seconds,
        retries=settings.model_retries,
    )


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
        history=HistoryLimits(tokens=settings.history_tokens),
        most_audio_bytes=settings.max_audio_bytes,
    )
    runner = TurnRunner(
        store,
        server.encode,
        metrics,
        limits=TurnLimits(
            turn_seconds=settings.turn_seconds,
            stale_seconds=settings.turn_stale_seconds,
            turns_per_user=settings.turns_per_user,
        ),
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
        await database.close()

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
    app.include_router(chatkit_router(ChatEndpoint(server, runner, _edge_limits(settings)), authenticate))
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


def _edge_limits(settings: Settings) -> EdgeLimits:
    most_bytes = settings.max_body_bytes
    if settings.transcription_model is not None:
        # In base64, with what is around it.
        most_bytes = max(most_bytes, settings.max_audio_bytes * 4 // 3 + 4096)
    return EdgeLimits(
        body=BodyLimits(most_bytes=most_bytes, seconds=settings.body_seconds),
        request=RequestLimits(
            bytes=settings.max_body_bytes,
            attachments=settings.max_attachments_per_message,
            metadata_characters=settings.max_metadata_characters,
            depth=settings.max_json_depth,
            values=settings.max_json_values,
            message_characters=settings.max_message_characters,
            page=settings.max_page_size,
        ),
        heartbeat_seconds=settings.heartbeat_seconds,
    )


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
    """Say in the log what would otherwise show only later: no schema, or commits that a crash takes back."""
    try:
        # Past the retries: a start does not wait for a database that does not answer.
        async with database.connection() as connection:
            server = (await connection.exec_driver_sql(READ_SETTINGS.driver_sql)).mappings().one()
        seen = await seen_revision(database)
    except Exception as error:  # noqa: BLE001 - not reachable yet; readiness says so
        logger.warning("database_unreachable_at_start", **failure(error))
        return
    if not is_served_by_this_code(seen):
        logger.warning("database_not_migrated", seen=seen, wanted=wanted_revision(), cure="chatkit-postgres migrate")
    if not server["is_durable"]:
        logger.warning("synchronous_commit_is_off", cure="ALTER DATABASE ... SET synchronous_commit = on")
