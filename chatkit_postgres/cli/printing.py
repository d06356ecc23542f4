"""Prints for people."""

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.progress import Progress


def printable(text: str) -> str:
    """Without characters that a terminal would obey."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def printable_lines(text: str) -> str:
    """As ``printable``, with the ends of lines kept."""
    return "\n".join(printable(line.replace("\t", "    ")) for line in text.splitlines())


def json_for_stdout(value: Any, indent: int | None = None) -> str:
    """A terminal would obey some characters that JSON may have as they are."""
    return json.dumps(value, indent=indent, ensure_ascii=sys.stdout.isatty())


def minute(time: datetime | str | None) -> str:
    """In UTC. A text is ISO 8601 in UTC."""
    if time is None:
        return "-"
    return f"{datetime.fromisoformat(time) if isinstance(time, str) else time:%Y-%m-%d %H:%M}Z"


def bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # On stderr, because programs read stdout; nothing of it in the mail of a cron job.
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not console.is_terminal)


def fail(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(1)
