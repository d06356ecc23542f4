"""Who signs tokens and what they must say."""

from chatkit_postgres.auth import jwks_sources
from chatkit_postgres.auth.dev_secret import dev_secret
from chatkit_postgres.auth.keys import Keys, KeySet, SharedSecret
from chatkit_postgres.auth.tokens import TokenRules
from chatkit_postgres.settings import ConfigurationError, Settings


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


def verification_keys(settings: Settings, rules: TokenRules) -> Keys:
    if settings.is_dev or not settings.uses_key_set:
        return SharedSecret(shared_secret(settings), rules.algorithms or ("HS256",))
    if settings.jwks_file is not None:
        load = jwks_sources.from_file(settings.jwks_file)
    else:
        load = jwks_sources.from_url(str(settings.jwks_url))
    return KeySet(load, rules.algorithms, outage_seconds=settings.jwks_outage_seconds)
