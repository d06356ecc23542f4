"""The package as it is installed from a wheel: without the checkout around it."""

import shutil
import subprocess
import sys
from pathlib import Path

from sqlalchemy import URL

from tests.support.processes import ROOT, clean_environment


def files_of(package: Path) -> set[str]:
    return {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def test_an_installed_package_has_all_it_needs_and_migrates(tmp_path: Path, empty_url: URL) -> None:
    # A copy, because a build leaves its own files beside what it builds.
    source, installed = tmp_path / "source", tmp_path / "installed"
    for folder in ("chatkit_postgres", "migrations", "app"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(installed), str(source)], check=True, timeout=100)
    package = {f"migrations/{name}" for name in files_of(ROOT / "migrations")} | files_of(ROOT / "chatkit_postgres")
    assert files_of(installed / "chatkit_postgres") == package
    assert not (installed / "app").exists()

    environment = clean_environment(DATABASE_URL=empty_url.render_as_string(hide_password=False))
    environment["PYTHONPATH"] = str(installed)
    migrate = (
        "import chatkit_postgres.cli\n"
        f"assert chatkit_postgres.__file__.startswith({str(installed)!r})\n"
        "chatkit_postgres.cli.main()"
    )
    migrated = subprocess.run(
        [sys.executable, "-P", "-c", migrate, "migrate"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert migrated.returncode == 0, migrated.stderr
    assert "The database is at revision" in migrated.stdout
