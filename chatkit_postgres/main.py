"""Builds the ASGI application, to run alone or mounted in another one."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from chatkit_postgres.api.authentication import IdentifyUser
from chatkit_postgres.api.shutdown import draining_on_signals
from chatkit_postgres.assistant import Assistant, AssistantError, load_assistant
from chatkit_postgres.assistant.mcp_servers import McpError
from chatkit_postgres.assistant.models import ModelOptions
from chatkit_postgres.assistant.proxies import ProxyRefused
from chatkit_postgres.db import Database
from chatkit_postgres.observability.logs import configure_logging
from chatkit_postgres.settings import ConfigurationError, Settings, load_settings, unknown_settings
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.wiring.application import Lifespan, build_application
from chatkit_postgres.wiring.lifespan import running
from chatkit_postgres.wiring.models import model_options
from chatkit_postgres.wiring.parts import Parts, build_parts


def create_app(
    settings: Settings | None = None, *, assistant: object = None, authenticate: IdentifyUser | None = None
) -> FastAPI:
    """The ASGI application. To mount it in another one, run its ``lifespan`` there.

    Without ``settings``, they are read from the environment. ``assistant`` is what answers, in place of
    ``CHAT_ASSISTANT``: an import string, or an agent, an assistant, a ChatKitServer. ``authenticate`` is called with
    each request, in place of tokens, and returns a ``chatkit_postgres.auth.User``, or None for nobody's request.
    Raises ConfigurationError with every problem at once.
    """
    # Nobody has written the names of settings that were passed.
    unknown = unknown_settings() if settings is None else []
    settings = settings or load_settings()
    if authenticate is not None:
        # The application signs its users in, so no development tokens are issued.
        settings = settings.model_copy(update={"auth_mode": "jwt"})
    problems = settings.problems(verifies_tokens=authenticate is None)
    database_url = settings.database_url or settings.embedded_url
    if database_url is None:
        problems.append(
            "DATABASE_URL: not set. Set it, or start with `chatkit-postgres serve`, which brings its own database."
        )
    # Nothing is connected before the lifespan runs.
    url = database_url.get_secret_value() if database_url is not None else "postgresql:///"
    store = DatabaseStore(Database(url, pool_size=settings.database_pool_size))
    options = model_options(settings, is_hosted=authenticate is not None)
    loaded, more_problems = _loaded(settings.assistant if assistant is None else assistant, options, store)
    if problems or more_problems or loaded is None:
        raise ConfigurationError(problems + more_problems)
    parts = build_parts(settings, store, loaded, authenticate, unknown_settings=unknown)
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


def _loaded(named: object, options: ModelOptions, store: DatabaseStore) -> tuple[Assistant | None, list[str]]:
    try:
        return load_assistant(named, options, store), []
    except ProxyRefused as error:
        return None, [f"HTTPS_PROXY, HTTP_PROXY, ALL_PROXY: {error}."]
    except McpError as error:
        return None, [f"CHAT_MCP_FILE: {error}."]
    except AssistantError as error:
        return None, [f"{'CHAT_ASSISTANT' if isinstance(named, str) else 'create_app(assistant=...)'}: {error}."]


def _standalone(parts: Parts) -> Lifespan:
    """The lifespan of a process of our own, which also sets up logging, garbage collection and signals."""

    @asynccontextmanager
    async def run(_: FastAPI) -> AsyncIterator[None]:
        configure_logging(level=parts.settings.log_level, log_format=parts.settings.log_format)
        async with running(parts):
            _settle_memory()
            with draining_on_signals(parts.runner.drain, seconds=parts.settings.drain_seconds):
                yield
            # The signal handler has given turns their time already; end those that are left.
            await parts.runner.drain(0)

    return run


def _settle_memory() -> None:
    """Exclude long-lived objects from garbage collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
