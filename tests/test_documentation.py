"""What the documents say is true: files and tests they name exist, and blocks marked runnable run."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT, ChatProcess

README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, postgres_bin: Path | None) -> Iterator[ChatProcess]:
    settings = {"CHAT_POSTGRES_BIN": str(postgres_bin)} if postgres_bin else {}
    process = ChatProcess(tmp_path_factory.mktemp("documentation"), **settings)
    yield process.wait_until_ready()
    process.stop()


@pytest.mark.parametrize("block", re.findall(r"```bash runnable\n(.*?)```", README, re.DOTALL), ids=["talk"])
def test_a_runnable_block_runs_when_pasted(server: ChatProcess, block: str, tmp_path: Path) -> None:
    script = block.replace("http://localhost:8000", server.base_url)
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "thread.created" in done.stdout
    assert "tool says" in done.stdout
    assert '"code"' not in done.stdout
    assert done.stdout.rstrip().endswith('"has_more":false}')


@pytest.mark.parametrize("promise", re.findall(r"`(tests/[^`]+::[^`]+)`", README))
def test_a_promise_names_a_test_that_exists(promise: str) -> None:
    path, *names = promise.split("::")
    source = (ROOT / path).read_text()
    for name in names:
        assert re.search(rf"\b(class|def) {name}\b", source), promise


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", *map(str, (ROOT / "docs").rglob("*.md"))])
def test_links_to_files_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_every_command_is_in_the_readme() -> None:
    from app.cli import cli  # noqa: PLC0415 - typer's own registry

    for command in cli.registered_commands:
        assert command.callback is not None
        assert f"`chatkit-postgres {command.callback.__name__}" in README
