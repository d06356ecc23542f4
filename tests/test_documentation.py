"""What the documents say is true: files and tests they name exist, and blocks marked runnable run."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chatkit_postgres import ApprovalRequest
from chatkit_postgres.assistant.loading import load_assistant
from chatkit_postgres.assistant.models import ModelOptions
from chatkit_postgres.errors import ChatError
from chatkit_postgres.settings import Settings, variable_name
from chatkit_postgres.store import DatabaseStore
from docs import reference_pages
from tests.support.chat import Chat, create, stored
from tests.support.processes import ROOT, ChatProcess, ModelServer, done_items, texts, thread_id_of

README = (ROOT / "README.md").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))
PROMISES = (ROOT / "docs" / "promises.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
ERRORS = (ROOT / "docs" / "errors.md").read_text()
INDEX = (ROOT / "docs" / "index.md").read_text()
RUNNABLE = [
    pytest.param(block, id=f"{path.stem}-{number}")
    for path in [ROOT / "README.md", *DOCS]
    for number, block in enumerate(re.findall(r"```bash runnable\n(.*?)```", path.read_text(), re.DOTALL), start=1)
]


OF_READERS = {
    "pg_hba.conf",
    "compose.override.yml",
    "support.py",
    "test_support.py",
    "my_workflow.py",
    "orders.py",
    "graph.py",
}
"""Names of files in folders of their own, or of what the document prints."""
ROUTES_LIKE_FILES = {"openapi.json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, postgres_bin: Path | None) -> Iterator[ChatProcess]:
    settings = {"CHAT_POSTGRES_BIN": str(postgres_bin)} if postgres_bin else {}
    process = ChatProcess(tmp_path_factory.mktemp("documentation"), **settings)
    yield process.wait_until_ready()
    process.stop()


@pytest.mark.slow
@pytest.mark.parametrize("block", RUNNABLE)
def test_a_runnable_block_runs_when_pasted(server: ChatProcess, block: str, tmp_path: Path) -> None:
    output = _pasted(server, block, tmp_path)
    assert output
    assert '"code"' not in output


@pytest.mark.slow
def test_the_talk_of_the_quick_start_says_what_it_promises(server: ChatProcess, tmp_path: Path) -> None:
    (block,) = [param.values[0] for param in RUNNABLE if param.id == "quick-start-1"]
    output = _pasted(server, str(block), tmp_path)
    assert "thread.created" in output
    assert "says: " in output
    assert output.rstrip().endswith('"has_more":false}')


def test_the_next_example_documents_its_variables_and_its_errors() -> None:
    app = ROOT / "examples" / "nextjs"
    folders = (app / "app", app / "lib", ROOT / "examples" / "front-end" / "proxy")
    sources = [path for folder in folders for path in folder.rglob("*.ts*")]
    code = "".join(path.read_text() for path in [*sources, app / "next.config.ts", app / "package.json"])
    variables = set(re.findall(r"process\.env\.(\w+)", code)) - {"NODE_ENV"}
    documented = (app / "README.md").read_text()
    assert variables
    assert {name for name in variables if f"`{name}`" not in documented} == set()
    guide = (ROOT / "docs" / "nextjs.md").read_text()
    errors = set(re.findall(r'refusal\(\s*(\d+), "(\w+)"', code))
    assert len(errors) >= 4
    expected = (f"{status} `{name}`" for status, name in errors)
    assert [error for error in expected if error not in " ".join(guide.split())] == []


def _pasted(server: ChatProcess, block: str, directory: Path) -> str:
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", block.replace("http://localhost:8000", server.base_url)],
        cwd=directory,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_promises() -> None:
    rows = re.findall(r"^\| (?!promise|-)", PROMISES, re.MULTILINE)
    assert len(rows) > 20
    # None of them without its test.
    assert len(rows) == len(re.findall(r"^\| .* \| `tests/[^`]+` \|$", PROMISES, re.MULTILINE))


@pytest.mark.parametrize("promise", re.findall(r"`(tests/[^`]+::[^`]+)`", PROMISES))
def test_a_promise_names_a_test_that_exists(promise: str) -> None:
    path, *names = promise.split("::")
    source = (ROOT / path).read_text()
    for name in names:
        assert re.search(rf"\b(class|def) {name}\b", source), promise


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.stem)
def test_every_document_has_its_place_in_the_order(document: Path) -> None:
    """On the page for readers of the repository, and in the site."""
    assert "](docs/index.md)" in README
    assert document == ROOT / "docs" / "index.md" or f"]({document.name})" in INDEX
    assert re.search(rf"[-:] {document.name}$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", reference_pages.pages().items(), ids=lambda page: page[0])
def test_pages_that_are_made_from_the_code_are_as_the_code_is(page: tuple[str, str]) -> None:
    name, text = page
    assert (ROOT / "docs" / name).read_text() == text, "python -m docs.reference_pages"


def test_every_decision_is_listed() -> None:
    directory = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\((\d{4}-[^)]+)\)", (directory / "README.md").read_text())
    assert listed == sorted(path.name for path in directory.glob("[0-9]*.md"))


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CONTRIBUTING.md",
        *map(str, (ROOT / "examples").glob("*/README.md")),
        *map(str, (ROOT / "docs").rglob("*.md")),
    ],
)
def test_links_to_files_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("document", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS], ids=lambda path: path.stem)
def test_files_that_sentences_name_exist(document: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - wherever git is
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    kinds = "py|tsx?|mjs|js|ya?ml|toml|css|sql|ini|json|html|sh|conf"
    for name in re.findall(rf"`/?([\w./\[\]-]+\.(?:{kinds}))`", document.read_text()):
        if name.rpartition("/")[2] not in OF_READERS | ROUTES_LIKE_FILES:
            assert re.search(rf"(^|/){re.escape(name)}$", listed, re.MULTILINE), name


def test_every_command_is_documented() -> None:
    from chatkit_postgres.cli import cli  # noqa: PLC0415 - typer's own registry

    for command in cli.registered_commands:
        assert command.callback is not None
        assert f"`chatkit-postgres {command.name or command.callback.__name__}" in OPERATIONS
    for group in cli.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            name = command.name or getattr(command.callback, "__name__", "")
            assert re.search(rf"`(chatkit-postgres )?{group.name} {name}", OPERATIONS), name


def kinds_of_errors() -> list[type[ChatError]]:
    kinds: list[type[ChatError]] = [ChatError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    # Those of the tests' own assistants are not ours.
    return [kind for kind in kinds if kind.__module__.startswith("chatkit_postgres.")]


@pytest.mark.parametrize("kind", kinds_of_errors(), ids=lambda kind: kind.__name__)
def test_every_error_code_is_documented_with_its_status(kind: type[ChatError]) -> None:
    assert f"\n| `{kind.code}` | {kind.status} |" in ERRORS


def test_no_error_code_is_documented_that_does_not_exist() -> None:
    documented = re.findall(r"^\| `(\w+)` \| \d+ \|", ERRORS, re.MULTILINE)
    assert set(documented) == {kind.code for kind in kinds_of_errors()}
    assert len(documented) == len(set(documented))


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`(CHAT_[A-Z_]+)`", "".join(path.read_text() for path in DOCS))))
)
def test_settings_that_documents_name_exist(name: str) -> None:
    assert name in {variable_name(field) for field in Settings.model_fields}


@pytest.mark.slow
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


async def test_the_assistant_without_the_agents_sdk_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: DatabaseStore
) -> None:
    (source,) = re.findall(r"```python graph\.py\n(.*?)```", (ROOT / "docs" / "assistants.md").read_text(), re.DOTALL)
    (tmp_path / "graph.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    chat = Chat(store, load_assistant("graph:Graph", ModelOptions(), store))
    events = await chat.events(create("What is said here"))
    assert [event["type"] for event in events[-2:]] == ["thread.item.updated", "thread.item.done"]
    assert texts(done_items(events)) == ["What is said here", "What is said here "]
    rows = await stored(store, "SELECT sender_type FROM chat_messages ORDER BY position")
    assert [row["sender_type"] for row in rows] == ["user", "assistant"]


TOOL_EXAMPLES = dict(re.findall(r"```python (\S+)\n(.*?)```", (ROOT / "docs" / "tools.md").read_text(), re.DOTALL))


@pytest.mark.parametrize("name", TOOL_EXAMPLES)
def test_the_examples_about_tools_can_be_used_as_they_stand(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: DatabaseStore
) -> None:
    (tmp_path / f"example_{name}").write_text(TOOL_EXAMPLES[name])
    monkeypatch.syspath_prepend(str(tmp_path))
    module = f"example_{name.removesuffix('.py')}"
    loaded = load_assistant(f"{module}:{'MyServer' if name == 'server.py' else 'build'}", ModelOptions(), store)
    request = ApprovalRequest("A", "pay", "Pay", {})
    context: Any = SimpleNamespace(request_context=None)
    assert "chatkit_postgres.approval" in json.dumps(loaded.approval_card(request, context).model_dump())
