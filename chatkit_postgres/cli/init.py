"""`init`: writes the skeleton of a repository with an agent, its test, and the files to run them."""

import json
import re
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from chatkit_postgres import __version__
from chatkit_postgres.settings import ConfigurationError

SUFFIX = ".template"
DOTTED = {"env.example": ".env.example", "gitignore": ".gitignore"}


def init(
    directory: Annotated[Path, typer.Argument(help="An empty folder; created if missing.")] = Path(),
) -> None:
    """Write the skeleton of a repository: an agent, its test, settings, Dockerfile, compose override."""
    directory = directory.absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        present = sorted(path.name for path in directory.iterdir() if path.name not in {".git", ".venv"})
    except OSError as error:
        typer.echo(f"init: {directory}: {error.strerror}.", err=True)
        raise typer.Exit(2) from None
    if present:
        typer.echo(f"init: {directory} is not empty: {', '.join(present[:5])}.", err=True)
        raise typer.Exit(2)
    values = {"name": _project_name(directory), "version": __version__, "dependency": dependency()}
    for name, template in _templates(files("chatkit_postgres.cli") / "skeleton"):
        path = directory / DOTTED.get(name, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(Template(template).substitute(values))
        typer.echo(path.relative_to(directory))
    if "file://" in values["dependency"]:
        typer.echo(
            "\npyproject.toml names chatkit-postgres by a path on this machine: put it where colleagues can reach it.",
            err=True,
        )
    typer.echo("\nStart it with `chatkit-postgres serve`; see README.md.", err=True)


def dependency() -> str:
    """The requirement that installs this package from its own source (PEP 610). Raises ConfigurationError if that
    source is unknown: a bare name would be resolved by an index, where the package may be anybody's."""
    try:
        origin = json.loads(distribution("chatkit-postgres").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        origin = {}
    if "url" not in origin:
        raise ConfigurationError(
            ["init: the source of this installation is unknown. Install the wheel or the repository by its path."]
        )
    name, version_control = "chatkit-postgres[server,files,embedded]", origin.get("vcs_info")
    if version_control is None:
        return f"{name} @ {origin['url']}"
    return f"{name} @ {version_control['vcs']}+{origin['url']}@{version_control['commit_id']}"


def _project_name(directory: Path) -> str:
    """The directory's name as a valid distribution name."""
    return re.sub(r"[^a-z0-9]+", "-", directory.name.lower()).strip("-") or "my-agents"


def _templates(folder: Traversable, prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            found += _templates(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(SUFFIX):
            found.append((prefix + entry.name.removesuffix(SUFFIX), entry.read_text()))
    return found
