"""Routes and middleware of the FastAPI application."""

import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Request

from chatkit_postgres import __version__
from chatkit_postgres.api.attachments import FileEndpoint, attachments_router
from chatkit_postgres.api.chatkit import ChatEndpoint, chatkit_router
from chatkit_postgres.api.client_config import client_config_router
from chatkit_postgres.api.errors import install_error_handlers
from chatkit_postgres.api.export import export_router
from chatkit_postgres.api.health import health_router
from chatkit_postgres.api.live import LiveEndpoint, live_router
from chatkit_postgres.api.marked_threads import marked_threads_router
from chatkit_postgres.api.metrics import metrics_router
from chatkit_postgres.api.middleware import (
    CorsMiddleware,
    HeadMiddleware,
    LoopbackHostMiddleware,
    RequestIdMiddleware,
    SecurityHeadersMiddleware,
    UnhandledErrorMiddleware,
)
from chatkit_postgres.api.openapi import openapi_router
from chatkit_postgres.api.search import search_router
from chatkit_postgres.api.staff import StaffEndpoint, staff_router
from chatkit_postgres.api.uploads import UploadLimits
from chatkit_postgres.api.usage import usage_router
from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.db.migrations import head_revision, is_served_by_this_code
from chatkit_postgres.pages import Gate, embed_router, playground_router
from chatkit_postgres.wiring.client_config import client_config, model_name
from chatkit_postgres.wiring.parts import Parts
from chatkit_postgres.wiring.rendering import RenderLimits

DEV_TOKEN_SECONDS = 24 * 60 * 60
MAX_EMBEDDED_MARKDOWN_BYTES = 32 * 1024
"""A longer text is shown as plain text: a crafted one of this length takes a second or two."""


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def build_application(parts: Parts, lifespan: Lifespan) -> FastAPI:
    settings = parts.deployment.settings
    app = FastAPI(
        title="chatkit-postgres",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # A redirect would contain the Host header of the request.
        redirect_slashes=False,
        **_without_spans(),
    )
    install_error_handlers(app)
    _add_routes(app, parts)
    if settings.embed_origins:
        _add_embed(app, parts)
    if parts.deployment.is_dev:
        _add_playground(app, parts)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(UnhandledErrorMiddleware)
    # Outside of all middleware that responds, so that a browser can read errors, too.
    app.add_middleware(
        CorsMiddleware,
        origins=settings.cors_origins,
        with_cookies=settings.auth_cookie is not None or parts.deployment.is_hosted,
    )
    app.add_middleware(SecurityHeadersMiddleware, max_header_bytes=settings.max_header_bytes)
    app.add_middleware(RequestIdMiddleware)
    return app


def _without_spans() -> dict[str, Any]:
    """FastAPI's own spans, which newer versions make where a host has set a provider, contain query strings: what users
    search for, and keys of signed URLs."""
    if "telemetry" not in inspect.signature(FastAPI).parameters:
        return {}
    return {"telemetry": {"tracing": False, "logs": False, "auto_configure": False}}


def _add_routes(app: FastAPI, parts: Parts) -> None:
    settings = parts.deployment.settings
    app.include_router(
        health_router(
            parts.database,
            parts.keys,
            head_revision=head_revision(),
            is_served=is_served_by_this_code,
            is_draining=lambda: parts.runner.is_draining,
            is_full=lambda: parts.runner.is_full,
            is_started=parts.started.is_set,
        )
    )
    edge_limits = settings.edge_limits(
        max_attachments=settings.max_attachments_per_message,
        max_audio_bytes=settings.max_audio_bytes if settings.transcription_model is not None else None,
    )
    endpoint = ChatEndpoint(parts.server, parts.runner, edge_limits)
    app.include_router(chatkit_router(endpoint, parts.authenticate))
    live = LiveEndpoint(
        parts.store,
        parts.runner,
        parts.followers,
        parts.metrics,
        heartbeat_seconds=edge_limits.heartbeat_seconds,
        send_seconds=edge_limits.send_seconds,
    )
    app.include_router(live_router(live, parts.authenticate))
    files = FileEndpoint(
        parts.attachments,
        authenticate=parts.authenticate,
        is_disabled=parts.disabled.includes,
        rate_limit=parts.rate_limit,
        metrics=parts.metrics,
        limits=UploadLimits(max_bytes=settings.max_attachment_bytes, seconds=settings.upload_seconds),
        public_url=parts.public_url,
        from_bucket=settings.direct_downloads,
    )
    app.include_router(attachments_router(files, parts.authenticate))
    app.include_router(client_config_router(client_config(settings, parts.assistant), parts.authenticate))
    app.include_router(usage_router(parts.store, parts.authenticate))
    app.include_router(export_router(parts.export_of, parts.authenticate))
    app.include_router(search_router(parts.store, parts.authenticate))
    if parts.audit is not None:
        app.include_router(staff_router(StaffEndpoint(parts.store, parts.audit), parts.authenticate))
    app.include_router(
        marked_threads_router(parts.store, parts.authenticate, stale_seconds=settings.turn_stale_seconds)
    )
    if not parts.deployment.is_hosted:
        # Mounted in another application, the metrics would be public.
        app.include_router(metrics_router(parts.metrics))
    if settings.api_docs or parts.deployment.is_dev:
        app.include_router(openapi_router(app))


def _add_embed(app: FastAPI, parts: Parts) -> None:
    settings = parts.deployment.settings

    async def user_of(request: Request) -> str:
        return (await parts.authenticate.user_of(request)).id

    app.include_router(
        embed_router(
            settings.embed_origins,
            Gate(user_of, RenderLimits().rendering, max_bytes=MAX_EMBEDDED_MARKDOWN_BYTES),
            uploads=settings.origin_of_uploads,
            images=settings.origin_of_images,
        )
    )


def _add_playground(app: FastAPI, parts: Parts) -> None:
    settings = parts.deployment.settings
    secret = settings.shared_secret(settings.data_dir, is_dev=True)
    rules = settings.token_rules(is_dev=True)
    app.include_router(
        playground_router(
            lambda user: mint(secret, user, seconds=DEV_TOKEN_SECONDS, rules=rules),
            parts.assistant,
            model_name(settings, parts.assistant),
        )
    )
    app.add_middleware(LoopbackHostMiddleware)
