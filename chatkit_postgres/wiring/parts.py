"""All parts of one server, joined."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from chatkit_postgres.api.authentication import (
    Authentication,
    CookieRules,
    IdentifyUser,
    user_of_application,
    user_of_token,
)
from chatkit_postgres.api.public_url import PublicUrl, public_url
from chatkit_postgres.api.rate_limit import RateLimit
from chatkit_postgres.assistant import Assistant
from chatkit_postgres.attachments import Attachments
from chatkit_postgres.attachments.links import Links
from chatkit_postgres.attachments.storage import Storage
from chatkit_postgres.auth.disabled_users import DisabledUsers
from chatkit_postgres.auth.keys import Keys
from chatkit_postgres.auth.tokens import TokenVerifier
from chatkit_postgres.chat.history import limits_of
from chatkit_postgres.chat.runner import TurnRunner
from chatkit_postgres.chat.server import ChatServer
from chatkit_postgres.db import Database
from chatkit_postgres.observability.metrics import Metrics
from chatkit_postgres.settings import Settings
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.wiring.files import file_limits, file_storage
from chatkit_postgres.wiring.identity import shared_secret, token_rules, verification_keys
from chatkit_postgres.wiring.limits import turn_limits

UPLOAD_LINK_SECONDS = 15 * 60


@dataclass
class Started:
    """Whether the lifespan runs, which begins and ends what answers and files need."""

    is_on: bool = False


@dataclass(frozen=True)
class Parts:
    settings: Settings
    database: Database
    store: DatabaseStore
    assistant: Assistant
    storage: Storage
    attachments: Attachments
    server: ChatServer
    runner: TurnRunner
    keys: Keys | None
    """None where the application authenticates its users itself."""
    disabled: DisabledUsers
    rate_limit: RateLimit
    authenticate: Authentication
    public_url: PublicUrl
    metrics: Metrics = field(default_factory=Metrics)
    is_hosted: bool = False
    """Whether another application authenticates the users."""
    unknown_settings: Sequence[str] = ()
    """Sentences about names that look like settings, for the log."""
    started: Started = field(default_factory=Started)


def build_parts(
    settings: Settings,
    store: DatabaseStore,
    assistant: Assistant,
    identify: IdentifyUser | None = None,
    *,
    unknown_settings: Sequence[str] = (),
) -> Parts:
    """``identify`` replaces tokens. Raises ConfigurationError."""
    database, metrics, started = store.database, Metrics(), Started()
    assistant.database = database
    storage = file_storage(settings)
    storage.on_failure = lambda operation: metrics.storage_failures.labels(operation).inc()
    link_key = settings.link_key or shared_secret(settings)
    links = Links(link_key, seconds=settings.link_seconds, upload_seconds=UPLOAD_LINK_SECONDS)
    attachments = Attachments(store, storage, links, file_limits(settings))
    server = ChatServer(
        store,
        assistant,
        attachments,
        max_answer_characters=settings.max_answer_characters,
        history=limits_of(settings.history_tokens),
        max_audio_bytes=settings.max_audio_bytes,
    )
    runner = TurnRunner(
        store, server.encode, metrics, limits=turn_limits(settings), on_disconnect=settings.on_disconnect
    )
    metrics.watch(running_turns=lambda: runner.running_count, connections_in_use=database.connections_in_use)
    database.on_retry = lambda reason: metrics.database_retries.labels(reason).inc()
    disabled = DisabledUsers(database, on_disabled=runner.stop_users)
    reached_at, rate_limit = public_url(settings.public_url), RateLimit(settings.requests_per_minute)
    are_named = "cors_origins" in settings.model_fields_set
    # The default ones, of development servers, are trusted with a token, which a page must have; not with a cookie.
    origins = frozenset(settings.cors_origins if identify is None or are_named else ())
    keys: Keys | None = None
    if identify is None:
        rules = token_rules(settings)
        keys = verification_keys(settings, rules)
        cookie = CookieRules(settings.auth_cookie, origins) if settings.auth_cookie else None
        identify = user_of_token(TokenVerifier(rules, keys), cookie)
    else:
        identify = user_of_application(identify, origins, reached_at)
    return Parts(
        settings=settings,
        database=database,
        store=store,
        assistant=assistant,
        storage=storage,
        attachments=attachments,
        server=server,
        runner=runner,
        keys=keys,
        disabled=disabled,
        rate_limit=rate_limit,
        authenticate=Authentication(
            identify, disabled, rate_limit, reached_at, lambda: started.is_on, settings.context_headers
        ),
        public_url=reached_at,
        metrics=metrics,
        started=started,
        is_hosted=keys is None,
        unknown_settings=unknown_settings,
    )
