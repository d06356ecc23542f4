"""Builds the ASGI application, to run alone or mounted in another one."""

import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI

from chatkit_postgres import __version__
from chatkit_postgres.api.authentication import IdentifyUser, problem_of
from chatkit_postgres.api.shutdown import draining_on_signals
from chatkit_postgres.assistant import Assistant, AssistantError, load_assistant
from chatkit_postgres.assistant.model_servers.proxies import ProxyRefused
from chatkit_postgres.assistant.models import ModelOptions
from chatkit_postgres.assistant.tools.mcp_file import McpError
from chatkit_postgres.db import Database
from chatkit_postgres.observability.logs import configure_logging
from chatkit_postgres.observability.metrics import Metrics
from chatkit_postgres.observability.tracing import start_tracing
from chatkit_postgres.settings import ConfigurationError, Deployment, Settings, load_settings, unknown_settings
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.wiring.application import Lifespan, build_application
from chatkit_postgres.wiring.lifespan import running
from chatkit_postgres.wiring.parts import Parts, build_parts


def create_app(
    settings: Settings | None = None, *, assistant: object = None, authenticate: IdentifyUser | None = None
) -> FastAPI:
    """The ASGI application. To mount it in another one, run its ``lifespan`` there.

    Without ``settings``, they are read from the environment. ``assistant`` is what answers, in place of
    ``CHAT_ASSISTANT``: an import string, or an agent, an assistant, a ChatKitServer. ``authenticate`` is called with
    each request, in place of tokens, and returns a ``chatkit_postgres.auth.User``, or None for nobody's request.
    Raises ConfigurationError with all problems of the settings and the assistant together.
    """
    # Settings that were passed have no unknown names.
    unknown = unknown_settings() if settings is None else []
    deployment = Deployment(settings or load_settings(), is_hosted=authenticate is not None)
    return deploy(deployment, assistant=assistant, authenticate=authenticate, unknown=unknown)


def deploy(
    deployment: Deployment,
    *,
    assistant: object = None,
    authenticate: IdentifyUser | None = None,
    unknown: Sequence[str] = (),
) -> FastAPI:
    """As ``create_app``, for ``serve``, which also has an address and maybe an embedded database. ``unknown`` are
    sentences about unknown settings, for the log."""
    settings, metrics = deployment.settings, Metrics()
    # Before the agents are loaded.
    start_tracing(
        version=__version__,
        with_content=settings.trace_content,
        statement_seconds=settings.trace_statement_seconds,
        per_second=settings.traces_per_second,
    )
    problems = deployment.problems()
    if deployment.database_url is None:
        problems.append(
            "DATABASE_URL: not set. Set it, or start with `chatkit-postgres serve`, which brings its own database."
        )
    if authenticate is not None and (problem := problem_of(authenticate)) is not None:
        problems.append(f"create_app(authenticate=...): {problem}.")
    # Nothing is connected before the lifespan runs.
    url = deployment.database_url or "postgresql:///"
    store = DatabaseStore(Database(url, pool_size=settings.database_pool_size, on_retry=metrics.count_retry))
    options = settings.model_options(is_hosted=deployment.is_hosted)
    loaded, more_problems = _loaded(assistant, options, store, setting=settings.assistant)
    if problems or more_problems or loaded is None:
        raise ConfigurationError(problems + more_problems)
    parts = build_parts(deployment, store, loaded, metrics, authenticate, unknown_settings=unknown)
    app = build_application(parts, _standalone(parts))
    app.state.parts = parts
    return app


def lifespan(chat: FastAPI) -> Lifespan:
    """The lifespan of an application that mounts ``chat``, which ``create_app`` made.

    ``FastAPI(lifespan=lifespan(chat))``, or, in a lifespan of the application's own,
    ``async with lifespan(chat)(app): yield``.
    """

    @asynccontextmanager
    async def mounted(_: FastAPI) -> AsyncIterator[None]:
        async with running(chat.state.parts):
            yield

    return mounted


def _loaded(
    given: object, options: ModelOptions, store: DatabaseStore, *, setting: str
) -> tuple[Assistant | None, list[str]]:
    try:
        return load_assistant(setting if given is None else given, options, store), []
    except ProxyRefused as error:
        return None, [f"HTTPS_PROXY, HTTP_PROXY, ALL_PROXY: {error}."]
    except McpError as error:
        return None, [f"CHAT_MCP_FILE: {error}."]
    except AssistantError as error:
        return None, [f"{'CHAT_ASSISTANT' if given is None else 'create_app(assistant=...)'}: {error}."]


def _standalone(parts: Parts) -> Lifespan:
    """The lifespan of a process of our own, which also sets up logging, garbage collection and signals."""

    @asynccontextmanager
    async def run(_: FastAPI) -> AsyncIterator[None]:
        settings = parts.deployment.settings
        configure_logging(level=settings.log_level, log_format=settings.log_format)
        async with running(parts):
            _settle_memory()
            with draining_on_signals(parts.runner.drain, seconds=settings.drain_seconds):
                yield
            # The signal handler has given turns their time already; end those that are left.
            await parts.runner.drain(0)

    return run


def _settle_memory() -> None:
    """Exclude long-lived objects from garbage collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
