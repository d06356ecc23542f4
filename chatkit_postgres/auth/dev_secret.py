"""Reads or creates the signing key of development tokens, stored next to the embedded database."""

import os
import secrets
from contextlib import suppress
from pathlib import Path


def dev_secret(path: Path) -> str:
    """Read the secret; create it first if there is none. Two processes that start at once agree on one secret."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        half_made = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(half_made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(48))
        # A link, not a rename: the first process wins, and no process reads an incomplete secret.
        with suppress(FileExistsError):
            os.link(half_made, path)
        half_made.unlink()
    return path.read_text().strip()
