"""The commands that README, *Start* and *Your repository* print run as they are printed; those of compose are read."""

import re
import shlex
import subprocess
from itertools import chain
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from chatkit_postgres.cli import cli
from chatkit_postgres.settings import Settings, variable_name
from tests.faults.harness import new_user
from tests.support.agent_builder import EXPORT
from tests.support.documents import commands_of, is_ready, pasted, serving
from tests.support.hosted_api import KEY, HostedApi, hosted_threads, served
from tests.support.processes import (
    ROOT,
    ModelServer,
    done_items,
    free_port,
    http,
    texts,
)

DOCS = ROOT / "docs"
LEAVING = commands_of(DOCS / "leaving-hosted-chatkit.md")
REPOSITORY = commands_of(DOCS / "repository.md")
START = [block for name in ("quick-start", "playground", "how-it-works") for block in commands_of(DOCS / f"{name}.md")]
README = commands_of(ROOT / "README.md")
PRINTED = sorted(set(chain(*README, *START, *REPOSITORY, *LEAVING)))
ASSIGNMENTS = re.compile(r"[A-Z_]+=\S+")
IN_A_SENTENCE = re.findall(r"`(make run [^`]+)`", (DOCS / "quick-start.md").read_text())

MAKE_RUN = sorted({command for command in [*PRINTED, *IN_A_SENTENCE] if "make run" in command})
COMPOSE = [command for command in PRINTED if command.startswith("docker compose ")]
SETTINGS = [command for command in PRINTED if ASSIGNMENTS.fullmatch(command)]
IN_WHEEL = REPOSITORY[0]
"""By ``tests/wheel``."""
IN_CI = ["make test"]
AGENTS = {"app": "Assistant", "plain": "Support", "shop": "Shop", "handbook": "Handbook"}
"""What front ends call those of this repository, by their modules."""


def test_no_command_is_left_out() -> None:
    known = [*MAKE_RUN, *COMPOSE, *SETTINGS, *IN_WHEEL, *IN_CI, *chain(*LEAVING)]
    assert [command for command in PRINTED if command not in known] == []
    assert len(MAKE_RUN) >= 6
    assert len(COMPOSE) == 2
    assert [command.partition(" ")[0] for command in IN_WHEEL] == ["pip", "chatkit-postgres", "chatkit-postgres"]
    assert " make test ARGS=" in (ROOT / ".ci" / "run").read_text()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The checkout without what its developer has put into it."""
    made = tmp_path / "clone"
    made.mkdir()
    for entry in ROOT.iterdir():
        if entry.name not in {".env", ".data"}:
            (made / entry.name).symlink_to(entry)
    is_current = subprocess.run(["make", "--question", ".venv/.ready"], cwd=made, check=False)  # noqa: S607
    assert is_current.returncode == 0, "make setup comes first: several tests at once must not install"
    return made


@pytest.mark.slow
@pytest.mark.parametrize("command", MAKE_RUN)
def test_make_run_serves_a_page_and_an_answer_until_it_is_interrupted(
    command: str, clone: Path, tmp_path: Path, postgres_bin: Path | None, model_server: ModelServer
) -> None:
    variables = {"CHAT_POSTGRES_BIN": str(postgres_bin)} if postgres_bin else {}
    if "OPENAI_API_KEY" in command:
        # OpenAI's own cannot be reached.
        variables["OPENAI_BASE_URL"] = model_server.url
    port = free_port()
    # The ports that the document names may be in use here.
    ordered = command.replace("http://localhost:11434/v1", model_server.url)
    ordered = re.sub(r"--port \d+", f"--port {port}", ordered) if "--port" in ordered else ordered
    ordered = ordered if "--port" in ordered else f'{ordered} ARGS="--port {port}"'
    question = f"What time is it, {new_user()}?"
    with serving(ordered, port, tmp_path, variables, cwd=clone) as client:
        page = http.get(f"http://localhost:{port}/")
        assert (page.status_code, page.headers["content-type"].partition(";")[0]) == (200, "text/html")
        events = client.create(question)
        assert "".join(texts([item for item in done_items(events) if item["type"] == "assistant_message"]))
        name = http.get(f"http://localhost:{port}/api/client-config", headers=client.headers).json()["name"]
    # It was the agent, and the model, that the command names.
    (agent,) = re.findall(r"examples\.(\w+):", command) or ["app"]
    assert name == AGENTS[agent]
    (model,) = re.findall(r"CHAT_MODEL=(\S+)", command) or [None]
    asked = [call["body"]["model"] for call in model_server.calls() if question in str(call["body"])]
    assert set(asked) == ({model} if model else set())
    assert not is_ready(f"http://localhost:{port}")
    assert not list(tmp_path.rglob("postmaster.pid")), "its PostgreSQL has ended, too"


@pytest.mark.slow
def test_leaving_hosted_chatkit_step_by_step(
    tmp_path: Path, postgres_bin: Path | None, model_server: ModelServer
) -> None:
    (save,), dotenv, (check, serve), (load,) = LEAVING
    api = HostedApi(*hosted_threads(3, 6, 24), failures=0, delay_seconds=0, page=10)
    with served(api) as url:
        pasted(f"{save.replace('sk-…', KEY)} --base-url {url}", tmp_path)
    (tmp_path / "my_workflow.py").write_text(EXPORT)
    (tmp_path / ".env").write_text("\n".join(dotenv).replace("sk-…", KEY))
    variables = {"OPENAI_BASE_URL": model_server.url} | (
        {"CHAT_POSTGRES_BIN": str(postgres_bin)} if postgres_bin else {}
    )
    pasted(check, tmp_path, variables)
    # While it serves, whose PostgreSQL the import finds.
    port = free_port()
    (tmp_path / "users.csv").write_text("".join(f"{user},alice\n" for user in {t.user for t in api.threads}))
    with serving(f"{serve} --port {port}", port, tmp_path, variables) as client:
        imported = pasted(load, tmp_path, variables)
        assert f"thread\t{len(api.threads)} imported" in imported
        assert {thread["id"] for thread in client.call("threads.list")["data"]} == {t.id for t in api.threads}
        events = client.post_message(api.threads[0].id, "Hello")
        assert "You said" in "".join(texts(done_items(events)))


@pytest.mark.parametrize("command", COMPOSE)
def test_what_compose_is_asked_for_is_there(command: str, tmp_path: Path) -> None:
    """No engine is at hand: the files that a command names, where it looks for them, and the services in them."""
    team = tmp_path / "my-shop"
    assert CliRunner().invoke(cli, ["init", str(team)]).exit_code == 0
    (tmp_path / "chatkit-postgres").symlink_to(ROOT)
    words = shlex.split(command)[2:]
    files = [words[at + 1] for at, word in enumerate(words) if word == "-f"]
    services = {name for file in files for name in YAML(typ="safe").load(team / file)["services"]}
    action, *targets = words[2 * len(files) :]
    assert files
    assert action in {"build", "up"}
    assert {target for target in targets if not target.startswith("-")} <= services


@pytest.mark.parametrize("line", SETTINGS)
def test_a_setting_is_one_of_ours_or_of_the_stack(line: str) -> None:
    name = line.partition("=")[0]
    ours = {variable_name(field) for field in Settings.model_fields}
    assert name in ours or re.search(rf"\$\{{{name}[:}}]", (ROOT / "docker-compose.yml").read_text())
