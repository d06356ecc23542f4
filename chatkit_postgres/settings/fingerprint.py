"""A fingerprint of the settings that the processes of one service must share, so that a difference can be seen."""

import hashlib
import json

from pydantic import SecretStr

from chatkit_postgres.settings.settings import Settings

OF_ONE_MACHINE = frozenset(
    {
        "data_dir",
        "database_pool_size",
        "jwks_file",
        "jwt_secret_file",
        "log_format",
        "log_level",
        "mcp_file",
        "postgres_bin",
    }
)
"""Names of the settings that may differ between the processes of one service."""


def fingerprint(settings: Settings) -> str:
    """12 hexadecimal digits. Of secrets, only whether they are set is in it: it is public."""
    shared = {
        name: "set" if isinstance(value, SecretStr) else value for name, value in settings if name not in OF_ONE_MACHINE
    }
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:12]
