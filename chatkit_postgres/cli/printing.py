"""Prints for people."""

from datetime import datetime
from typing import NoReturn

import typer


def printable(text: str) -> str:
    """Without characters that a terminal would obey."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def printable_lines(text: str) -> str:
    """As ``printable``, with the ends of lines kept."""
    return "\n".join(printable(line.replace("\t", "    ")) for line in text.splitlines())


def minute(time: datetime | str | None) -> str:
    """In UTC. A text is ISO 8601 in UTC."""
    if time is None:
        return "-"
    return f"{datetime.fromisoformat(time) if isinstance(time, str) else time:%Y-%m-%d %H:%M}Z"


def fail(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(1)
