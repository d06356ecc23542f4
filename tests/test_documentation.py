"""What the documents say is true: files and tests they name exist, and blocks marked runnable run."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT, ChatProcess, ModelServer, done_items, thread_id_of

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


def test_the_assistant_of_the_document_works(
    tmp_path: Path, postgres_bin: Path | None, model_server: ModelServer
) -> None:
    (source,) = re.findall(r"```python orders\.py\n(.*?)```", (ROOT / "docs" / "assistants.md").read_text(), re.DOTALL)
    (tmp_path / "orders.py").write_text(source)
    settings = {"CHAT_POSTGRES_BIN": str(postgres_bin)} if postgres_bin else {}
    settings |= {"CHAT_ASSISTANT": "orders:build", "OPENAI_BASE_URL": model_server.url, "CHAT_MODEL": "m"}
    server = ChatProcess(tmp_path, **settings).wait_until_ready()
    try:
        client = server.client("alice")
        created = client.create('use the tool show_order {"order": 7}')
        thread_id = thread_id_of(created)
        shown = next(item for item in done_items(created) if item["type"] == "widget")
        press = {"type": "order.cancel", "payload": {"order": 7}}
        client.events("threads.custom_action", thread_id=thread_id, item_id=shown["id"], action=press)
        kept = next(item for item in client.items(thread_id) if item["type"] == "widget")
        assert "Order 7: cancelled" in str(kept)
        # The widget has no such button any more.
        again = client.post("threads.custom_action", thread_id=thread_id, item_id=shown["id"], action=press)
        assert again.status_code == 422
    finally:
        assert server.stop() == 0
