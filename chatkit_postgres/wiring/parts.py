"""Builds the parts of one server and joins them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chatkit_postgres.api.authentication import (
    Authentication,
    CookieRules,
    IdentifyUser,
    user_of_application,
    user_of_token,
)
from chatkit_postgres.api.public_url import PublicUrl, public_url
from chatkit_postgres.api.rate_limit import RateLimit, RateLimitOfProcess, SharedRateLimit
from chatkit_postgres.assistant import Assistant
from chatkit_postgres.attachments import Attachments
from chatkit_postgres.attachments.links import Links
from chatkit_postgres.attachments.storage import Storage
from chatkit_postgres.auth.disabled_users import DisabledUsers
from chatkit_postgres.auth.keys import Keys
from chatkit_postgres.auth.tokens import TokenVerifier
from chatkit_postgres.chat.server import ChatServer
from chatkit_postgres.chat.turns.live import Followers
from chatkit_postgres.chat.turns.runner import TurnRunner
from chatkit_postgres.db import Database
from chatkit_postgres.observability.metrics import Metrics
from chatkit_postgres.settings import Deployment
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.user_data.audit import Audit
from chatkit_postgres.user_data.export import Export
from chatkit_postgres.wiring.watched import watch

UPLOAD_LINK_SECONDS = 15 * 60


@dataclass(frozen=True)
class Parts:
    deployment: Deployment
    database: Database
    store: DatabaseStore
    assistant: Assistant
    storage: Storage
    attachments: Attachments
    server: ChatServer
    runner: TurnRunner
    followers: Followers
    keys: Keys | None
    """None if another application authenticates the users."""
    disabled: DisabledUsers
    rate_limit: RateLimit
    authenticate: Authentication
    public_url: PublicUrl
    metrics: Metrics
    export_of: Callable[[str], Export]
    """The export of an owner."""
    audit: Audit | None
    """None if no token may read the conversations of others."""
    unknown_settings: Sequence[str] = ()
    """Sentences about unknown settings, for the log."""
    started: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while the lifespan runs: without it, turns and files have no background tasks."""


def build_parts(
    deployment: Deployment,
    store: DatabaseStore,
    assistant: Assistant,
    metrics: Metrics,
    identify: IdentifyUser | None = None,
    *,
    unknown_settings: Sequence[str] = (),
) -> Parts:
    """``identify`` replaces tokens. Raises ConfigurationError."""
    settings, database, started = deployment.settings, store.database, asyncio.Event()
    storage = settings.file_storage(settings.data_dir, metrics.count_storage_failure)
    link_key = settings.link_key or settings.shared_secret(settings.data_dir, is_dev=deployment.is_dev)
    links = Links(link_key, seconds=settings.link_seconds, upload_seconds=UPLOAD_LINK_SECONDS)
    attachments = Attachments(store, storage, links, settings.file_limits())
    server = ChatServer(
        store,
        assistant,
        attachments,
        max_answer_characters=settings.max_answer_characters,
        history=settings.history_limits(),
        max_audio_bytes=settings.max_audio_bytes,
    )
    are_shared = deployment.are_limits_shared
    runner = TurnRunner(
        store,
        server.encode,
        metrics,
        limits=settings.turn_limits(turns_per_user=settings.turns_per_user),
        admission=settings.admission_rules(are_shared=are_shared),
        on_disconnect=settings.on_disconnect,
    )
    watch(metrics, runner, database, settings)
    disabled = DisabledUsers(database, on_disabled=runner.stop_users)
    reached_at, per_minute = public_url(settings.public_url), settings.requests_per_minute
    rate_limit = SharedRateLimit(store.limits, per_minute) if are_shared else RateLimitOfProcess(per_minute)
    keys, identify = _identification(deployment, identify, reached_at)
    return Parts(
        deployment=deployment,
        database=database,
        store=store,
        assistant=assistant,
        storage=storage,
        attachments=attachments,
        server=server,
        runner=runner,
        followers=Followers(store, server.encode, server.get_stream_options, is_draining=lambda: runner.is_draining),
        keys=keys,
        disabled=disabled,
        rate_limit=rate_limit,
        authenticate=Authentication(
            identify, disabled, rate_limit, reached_at, started.is_set, settings.context_headers
        ),
        public_url=reached_at,
        metrics=metrics,
        export_of=lambda owner: Export(database, storage, owner, with_hidden=False),
        audit=_audit(deployment, database),
        started=started,
        unknown_settings=unknown_settings,
    )


def _audit(deployment: Deployment, database: Database) -> Audit | None:
    settings = deployment.settings
    if settings.staff_claim is None:
        return None
    return Audit(database, settings.key_of_hashes(settings.data_dir, is_dev=deployment.is_dev))


def _identification(
    deployment: Deployment, identify: IdentifyUser | None, reached_at: PublicUrl
) -> tuple[Keys | None, IdentifyUser]:
    """The keys of tokens, and the function that identifies the user of a request: by its token, or as the application
    decides."""
    settings = deployment.settings
    are_named = "cors_origins" in settings.model_fields_set
    # The default origins, of development servers, may send a token, which a page must own, but no cookie.
    origins = frozenset(settings.cors_origins if identify is None or are_named else ())
    if identify is not None:
        tokens = settings.daily_tokens()
        return None, user_of_application(identify, origins, reached_at, settings.staff(), tokens)
    rules = settings.token_rules(is_dev=deployment.is_dev, daily_tokens=settings.daily_tokens())
    keys = settings.verification_keys(rules, settings.data_dir, is_dev=deployment.is_dev)
    cookie = CookieRules(settings.auth_cookie, origins) if settings.auth_cookie else None
    return keys, user_of_token(TokenVerifier(rules, keys), cookie)
