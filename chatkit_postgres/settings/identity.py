"""Settings of identity: keys and rules of tokens, and the pages that may call."""

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from chatkit_postgres.auth.algorithms import FAMILIES
from chatkit_postgres.settings.errors import ConfigurationError
from chatkit_postgres.settings.lists import split
from chatkit_postgres.settings.urls import is_trustworthy

if TYPE_CHECKING:
    from chatkit_postgres.auth.daily_tokens import DailyTokens
    from chatkit_postgres.auth.keys import Keys
    from chatkit_postgres.auth.staff import StaffClaim
    from chatkit_postgres.auth.tokens import TokenRules

MIN_SECRET_BYTES = 32
CURE = 'Make one: python -c "import secrets; print(secrets.token_urlsafe(48))"'
DEFAULT_ORIGINS = ("http://localhost:3000", "http://127.0.0.1:3000")

AuthMode = Literal["jwt", "dev"]


class IdentitySettings(BaseSettings):
    auth_mode: AuthMode | None = Field(
        default=None,
        description="`jwt` or `dev`; unset: `dev` if the database is embedded and the address is loopback",
    )
    jwt_secret: SecretStr | None = Field(
        default=None, description="key of HS256, HS384 and HS512 tokens, at least 32 bytes"
    )
    jwt_secret_file: Path | None = Field(default=None, description="a file that holds CHAT_JWT_SECRET")
    jwks_url: str | None = Field(default=None, description="URL of the issuer's public keys")
    jwks_file: Path | None = Field(default=None, description="a file that holds the issuer's public keys")
    jwks_outage_seconds: float = Field(
        default=24 * 3600,
        ge=0,
        description="seconds for which the last keys stay valid while the issuer is unreachable",
    )
    jwt_algorithms: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        default=None,
        description="accepted algorithms of one family, comma-separated; unset: `HS256`, or by the keys of the issuer",
    )
    jwt_issuer: str | None = Field(default=None, description="the `iss` a token must have")
    jwt_audience: str | None = Field(
        default=None, description="the `aud` a token must have; unset: a token that names one is refused"
    )
    jwt_user_claim: str = Field(default="sub", min_length=1, description="the claim that names the user")
    jwt_leeway_seconds: int = Field(default=30, ge=0, le=300, description="clock difference allowed in `exp` and `nbf`")
    user_claims: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="claims stored with a user, comma-separated, e.g. `name,email,roles`"
    )
    staff_claim: str | None = Field(
        default=None,
        description="a claim, `name:value`, whose tokens may read the conversations of others, such as `role:support`",
    )
    auth_cookie: str | None = Field(
        default=None, description="also take the token from this cookie, for pages of CHAT_CORS_ORIGINS"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=DEFAULT_ORIGINS, description="browser origins that may call directly, comma-separated"
    )

    embed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="origins of pages that may show `/embed` in an iframe, comma-separated"
    )

    @field_validator("jwt_algorithms", "cors_origins", "embed_origins", "user_claims", mode="before")
    @classmethod
    def _split_identity(cls, value: Any) -> Any:
        return split(value)

    @field_validator("jwt_algorithms")
    @classmethod
    def _one_family(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        # With two families a public key can pass for the secret of the other one.
        if value is not None and not any(value and set(value) <= set(family) for family in FAMILIES.values()):
            families = "; ".join(", ".join(family) for family in FAMILIES.values())
            raise ValueError(f"use algorithms of one family: {families}")
        return value

    @field_validator("jwks_url")
    @classmethod
    def _fetchable(cls, value: str | None) -> str | None:
        if value is not None and not is_trustworthy(value):
            raise ValueError("use https://, or http:// for this machine or a host of a private network")
        return value

    @field_validator("auth_cookie")
    @classmethod
    def _cookie_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", value):
            raise ValueError("not the name of a cookie")
        return value

    @field_validator("staff_claim")
    @classmethod
    def _claim_and_value(cls, value: str | None) -> str | None:
        from chatkit_postgres.auth.staff import StaffClaim

        if value is not None:
            StaffClaim.parse(value)
        return value

    @field_validator("embed_origins")
    @classmethod
    def _canonical(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        # As browsers write them, because they are compared.
        for origin in value:
            if not re.fullmatch(r"https?://[a-z0-9.\[\]-]+(:\d+)?", origin) or re.search(
                r"^(http://.*:80|https://.*:443)$", origin
            ):
                raise ValueError(f"{origin!r} is not an origin as browsers write it, like https://shop.example.com")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not re.fullmatch(r"https?://[^/\s*;,'\"]+", origin):
                raise ValueError(f"{origin!r} is not an origin like https://chat.example.com")
        return value

    @property
    def uses_key_set(self) -> bool:
        return self.jwks_url is not None or self.jwks_file is not None

    @property
    def jwt_key(self) -> str | None:
        if self.jwt_secret is not None:
            return self.jwt_secret.get_secret_value()
        if self.jwt_secret_file is not None:
            with suppress(OSError, UnicodeDecodeError):
                return self.jwt_secret_file.read_text().strip()
        return None

    @property
    def has_key(self) -> bool:
        return self.uses_key_set or self.jwt_secret is not None or self.jwt_secret_file is not None

    def token_rules(self, *, is_dev: bool, daily_tokens: "DailyTokens | None" = None) -> "TokenRules":
        from chatkit_postgres.auth.tokens import TokenRules

        algorithms = self.jwt_algorithms
        if is_dev or (algorithms is None and not self.uses_key_set):
            algorithms = ("HS256",)
        return TokenRules(
            algorithms=algorithms,
            issuer=self.jwt_issuer,
            audience=self.jwt_audience,
            user_claim=self.jwt_user_claim,
            leeway_seconds=self.jwt_leeway_seconds,
            stored_claims=self.user_claims,
            staff_claim=self.staff(),
            daily_tokens=daily_tokens,
        )

    def staff(self) -> "StaffClaim | None":
        from chatkit_postgres.auth.staff import StaffClaim

        return StaffClaim.parse(self.staff_claim) if self.staff_claim is not None else None

    def shared_secret(self, data_dir: Path, *, is_dev: bool) -> str:
        """The secret that tokens are signed and verified with; in development mode one of its own in ``data_dir``.
        Raises ConfigurationError if there is none."""
        from chatkit_postgres.auth.dev_secret import dev_secret

        if not is_dev:
            if self.jwt_key is None or self.uses_key_set:
                raise ConfigurationError(["CHAT_JWT_SECRET: needed to sign tokens, and not set."])
            return self.jwt_key
        file = data_dir / "dev-secret"
        try:
            return dev_secret(file)
        except OSError as error:
            raise ConfigurationError([f"CHAT_DATA_DIR: cannot write {file}: {error.strerror}."]) from error

    def verification_keys(self, rules: "TokenRules", data_dir: Path, *, is_dev: bool) -> "Keys":
        from chatkit_postgres.auth import jwks_sources
        from chatkit_postgres.auth.keys import KeySet, SharedSecret

        if is_dev or not self.uses_key_set:
            return SharedSecret(self.shared_secret(data_dir, is_dev=is_dev), rules.algorithms or ("HS256",))
        if self.jwks_file is not None:
            load = jwks_sources.from_file(self.jwks_file)
        else:
            load = jwks_sources.from_url(str(self.jwks_url))
        return KeySet(load, rules.algorithms, outage_seconds=self.jwks_outage_seconds)

    def cookie_problems(self) -> list[str]:
        if self.auth_cookie is None or "cors_origins" in self.model_fields_set:
            return []
        cure = "Name the pages that may: CHAT_CORS_ORIGINS=https://chat.example.com"
        return [f"CHAT_AUTH_COOKIE: a browser sends this cookie with requests of any page. {cure}"]

    def key_problems(self) -> list[str]:
        sources = [self.jwks_url, self.jwks_file, self.jwt_secret or self.jwt_secret_file]
        if sum(source is not None for source in sources) > 1:
            return ["CHAT_JWT_SECRET, CHAT_JWKS_URL, CHAT_JWKS_FILE: set one of them, keys come from one place."]
        is_hmac = set(self.jwt_algorithms or ()) <= set(FAMILIES["HMAC"])
        if not self.uses_key_set:
            return self._secret_problems() if is_hmac else [self._wants_key_set()]
        if self.jwt_algorithms and is_hmac:
            return ["CHAT_JWT_ALGORITHMS: a key set holds public keys; use RS256, PS256, ES256 or EdDSA, or unset it."]
        if self.jwks_file is not None and not self.jwks_file.is_file():
            return [f"CHAT_JWKS_FILE: {self.jwks_file} is not a readable file."]
        return []

    def _wants_key_set(self) -> str:
        return f"CHAT_JWT_ALGORITHMS: {', '.join(self.jwt_algorithms or ())} needs CHAT_JWKS_URL or CHAT_JWKS_FILE."

    def _secret_problems(self) -> list[str]:
        key = self.jwt_key
        if key is None:
            if self.jwt_secret_file is not None:
                return [f"CHAT_JWT_SECRET_FILE: {self.jwt_secret_file} is not a readable file. {CURE}"]
            return [f"CHAT_JWT_SECRET: needed to verify tokens, and not set; nor is CHAT_JWKS_URL. {CURE}"]
        if len(key.encode()) < MIN_SECRET_BYTES:
            return [f"CHAT_JWT_SECRET: shorter than {MIN_SECRET_BYTES} bytes. {CURE}"]
        return []
