"""Where the package lies, for messages that say what to type."""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def is_checkout() -> bool:
    """Whether this is a clone of the repository, which has `make`."""
    return (CHECKOUT / "Makefile").is_file() and (CHECKOUT / "migrations").is_dir()
