"""Deployment: the settings, and how this process was started."""

from dataclasses import dataclass

from chatkit_postgres.settings.settings import Settings
from chatkit_postgres.settings.urls import is_loopback


@dataclass(frozen=True)
class Deployment:
    settings: Settings
    host: str | None = None
    """The address that the server listens on; None where another server runs the application."""
    embedded_url: str | None = None
    """The URL of the embedded PostgreSQL that ``serve`` has started."""
    is_hosted: bool = False
    """Whether another application mounts ours and authenticates its users."""

    @property
    def is_dev(self) -> bool:
        """Whether anybody may have a token: only ever on one's own machine."""
        settings = self.settings
        if self.is_hosted:
            return False
        if settings.auth_mode is not None:
            return settings.auth_mode == "dev"
        return settings.is_embedded and not settings.has_key and is_loopback(self.host)

    @property
    def database_url(self) -> str | None:
        """None if there is none: neither configured, nor embedded and started."""
        configured = self.settings.database_url
        return configured.get_secret_value() if configured is not None else self.embedded_url

    @property
    def are_limits_shared(self) -> bool:
        """Whether a user's requests and turns are counted over all processes: an embedded database has one."""
        settings = self.settings
        return settings.shared_limits if settings.shared_limits is not None else not settings.is_embedded

    def problems(self) -> list[str]:
        """The problems of the settings taken together, for a server that listens on ``host``."""
        settings, found = self.settings, list[str]()
        if settings.auth_mode == "dev" and not self.is_hosted:
            found += self._dev_problems()
        elif self.is_hosted:
            found += settings.link_key_problems()
        elif not self.is_dev:
            found += settings.key_problems()
            if settings.uses_key_set or settings.jwt_key:
                found += settings.link_key_problems()
        if settings.staff_claim is not None:
            found += settings.hash_key_problems(is_dev=self.is_dev)
        found += settings.model_problems() + settings.storage_problems() + settings.limit_problems()
        if not self.is_hosted and not self.is_dev:
            found += settings.cookie_problems()
        return found

    def _dev_problems(self) -> list[str]:
        found = []
        if not self.settings.is_embedded:
            found.append(
                "CHAT_AUTH_MODE: dev hands tokens to anybody, so it works with the embedded database only. "
                "Unset DATABASE_URL, or set CHAT_AUTH_MODE=jwt and CHAT_JWT_SECRET."
            )
        if not is_loopback(self.host):
            found.append(
                "CHAT_AUTH_MODE: dev hands tokens to anybody, so it works on a loopback address only. "
                "Use --host 127.0.0.1, or set CHAT_AUTH_MODE=jwt and CHAT_JWT_SECRET."
            )
        return found
