"""What the wheel brings: types, a store without a server, and a repository in four commands."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

from chatkit_postgres.db.binaries import find_binaries
from chatkit_postgres.settings import Settings, variable_name
from tests.support.documents import commands_of, serving
from tests.support.installed import InstalledProcess, without_checkout
from tests.support.processes import ROOT, ChatProcess, done_items, free_port, texts

SDKS = {"agents", "openai", "chatkit", "fastapi", "sqlalchemy", "asyncpg", "pydantic", "structlog"}

TYPED = '''\
"""Every public name, as a team uses it."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from agents import Agent, RunContextWrapper, function_tool
from chatkit.agents import AgentContext
from chatkit.types import ThreadItem, ThreadStreamEvent, WidgetItem
from chatkit.widgets import WidgetRoot
from fastapi import FastAPI, Request
from pydantic import BaseModel

from chatkit_postgres import (
    AgentAssistant,
    Assistant,
    Database,
    DatabaseStore,
    Refusal,
    RequestContext,
    Settings,
    action,
    create_app,
    lifespan,
)
from chatkit_postgres.auth import User
from chatkit_postgres.testing import demo_answer


class ShopContext(AgentContext[RequestContext]):
    shop: str = "main"


@function_tool
async def who(ctx: RunContextWrapper[ShopContext]) -> str:
    return f"{ctx.context.shop}: {ctx.context.request_context.user_id}"


class Payload(BaseModel):
    order: int


AGENT = Agent[ShopContext](name="Shop", tools=[who])


class Shop(AgentAssistant):
    own_tool_choices = frozenset({"returns"})

    async def agent(self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]) -> Agent[Any]:
        return AGENT

    async def agent_context(self, context: AgentContext[RequestContext]) -> ShopContext:
        return ShopContext(thread=context.thread, store=context.store, request_context=context.request_context)

    @action("order.cancel", Payload)
    async def cancel(
        self, payload: Payload, sender: WidgetItem | None, context: AgentContext[RequestContext]
    ) -> WidgetRoot | None:
        roles: Any = context.request_context.claims.get("roles")
        header: str | None = context.request_context.headers.get("X-Shop")
        return None if roles or header else sender.widget if sender else None


class Own(Assistant):
    async def respond(
        self, history: Sequence[ThreadItem], context: AgentContext[RequestContext]
    ) -> AsyncGenerator[ThreadStreamEvent, None]:
        nothing: tuple[ThreadStreamEvent, ...] = ()
        for event in nothing:
            yield event


async def authenticate(request: Request) -> User | None:
    name = request.headers.get("x-user")
    return User(name, {"roles": ["guest"]}) if name else None


def build() -> FastAPI:
    chat = create_app(Settings(), assistant=Shop(AGENT), authenticate=authenticate)
    host = FastAPI(lifespan=lifespan(chat))
    host.mount("/chat", chat)
    return host


store = DatabaseStore(Database("postgresql://localhost/chat"))
refusal = Refusal("No.")
answered: str = demo_answer(AGENT, "Hello")
'''


def test_a_team_can_check_its_types_strictly(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text(TYPED)
    checker = [sys.executable, "-m", "mypy", "--strict", "--no-incremental"]
    done = subprocess.run(
        [*checker, "--python-executable", str(installed / "server" / "bin" / "python"), "ours.py"],
        cwd=tmp_path,
        env=without_checkout(),
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout


def test_importing_the_package_costs_next_to_nothing(installed: Path, tmp_path: Path) -> None:
    """Counted, not timed: none of the SDKs is imported before it is used."""
    code = "import sys, chatkit_postgres; print(*sys.modules)"
    done = subprocess.run(
        [str(installed / "server" / "bin" / "python"), "-c", code],
        cwd=tmp_path,
        env=without_checkout(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    modules = {name.partition(".")[0] for name in done.stdout.split()}
    assert "chatkit_postgres" in modules
    assert (
        modules & {"agents", "openai", "chatkit", "fastapi", "sqlalchemy", "asyncpg", "pydantic", "structlog"} == set()
    )


STORE_ALONE = """\
import asyncio, sys
from datetime import datetime

from chatkit.types import ThreadMetadata

from chatkit_postgres import Database, DatabaseStore


async def main():
    store = DatabaseStore(Database(sys.argv[1]))
    ada, bob = {"user_id": "ada"}, {"user_id": "bob"}
    await store.save_thread(ThreadMetadata(id="t", created_at=datetime.now()), ada)
    print([thread.id for thread in (await store.load_threads(10, None, "desc", ada)).data])
    print([thread.id for thread in (await store.load_threads(10, None, "desc", bob)).data])
    await store.close()


asyncio.run(main())
"""


def test_the_store_alone_needs_no_server(installed: Path, tmp_path: Path, empty_url: URL) -> None:
    binaries = installed / "store" / "bin"
    absent = subprocess.run(
        [str(binaries / "python"), "-c", "import fastapi, jose, obstore, PIL"], capture_output=True, check=False
    )
    assert absent.returncode != 0, "the extras are installed, and this test shows nothing"
    url = empty_url.render_as_string(hide_password=False)
    environment = without_checkout(DATABASE_URL=url)
    subprocess.run([str(binaries / "chatkit-postgres"), "migrate"], cwd=tmp_path, env=environment, check=True)
    (tmp_path / "alone.py").write_text(STORE_ALONE)
    done = subprocess.run(
        [str(binaries / "python"), "alone.py", url],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["['t']", "[]"], done.stderr
    refused = subprocess.run(
        [str(binaries / "chatkit-postgres"), "serve"],
        cwd=tmp_path,
        env=environment | {"CHAT_JWT_SECRET": "s" * 48},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "the extra `server`" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.timeout(600)
def test_the_commands_of_the_document_in_an_environment_of_their_own(installed: Path, tmp_path: Path) -> None:
    """As printed: with the newest of everything, from the index, and with the PostgreSQL that is installed along."""
    install, init, serve = commands_of(ROOT / "docs" / "repository.md")[0]
    (wheel,) = (installed / "dist").glob("*.whl")
    shutil.copy(wheel, tmp_path)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "own"], check=True)
    port = free_port()
    script = f"{install} --quiet\n{init}\n{serve} --port {port}"
    with serving(script, port, tmp_path, binaries=tmp_path / "own" / "bin") as client:
        events = client.create("What is the order status of 7?")
        assert "on its way" in texts([item for item in done_items(events) if item["type"] == "assistant_message"])[-1]
    assert (tmp_path / "my-shop" / "my_agents" / "support.py").exists()


def test_a_repository_in_four_commands(installed: Path, tmp_path: Path) -> None:
    """init, serve, an answer; and the test that comes with it."""
    folder = tmp_path / "my-shop"
    command, python = installed / "server" / "bin" / "chatkit-postgres", installed / "server" / "bin" / "python"
    made = subprocess.run(
        [str(command), "init", str(folder)], env=without_checkout(), capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    project = (folder / "pyproject.toml").read_text()
    assert 'name = "my-shop"' in project
    (dependency,) = re.findall(r'"(chatkit-postgres\[.*)"', project)
    assert re.fullmatch(r"chatkit-postgres\[server,files,embedded\] @ file://.*\.whl", dependency), (
        "as it was installed here"
    )
    # As with the extra `embedded`, whose wheel is large, and installed in the checkout.
    binaries = find_binaries(None)
    assert binaries is not None
    process = InstalledProcess(installed / "server", folder, CHAT_POSTGRES_BIN=str(binaries.directory))
    try:
        client = process.wait_until_ready().client("ada")
        events = client.create("What is the order status of 7?")
        assert "on its way" in texts([item for item in done_items(events) if item["type"] == "assistant_message"])[-1]
    finally:
        assert process.stop() == 0
    shutil.rmtree(folder / ".data")
    # pytest is the team's; here it is the checkout's, with the wheel's packages.
    (folder / "run_tests.py").write_text(
        "import sys\nfrom tests.test_support import *\n"
        "for name, test in list(globals().items()):\n    if name.startswith('test_'):\n        test(); print(name)\n"
    )
    tested = subprocess.run(
        [str(python), "run_tests.py"], cwd=folder, env=without_checkout(), capture_output=True, text=True, check=False
    )
    assert len(tested.stdout.split()) == 2, tested.stderr
    again = subprocess.run(
        [str(command), "init", str(folder)], env=without_checkout(), capture_output=True, text=True, check=False
    )
    assert again.returncode == 2
    assert "is not empty" in again.stderr


@pytest.mark.parametrize("name", ["Dockerfile", "compose.override.yml", ".env.example", ".gitignore", "README.md"])
def test_what_init_writes_is_whole(installed: Path, tmp_path: Path, name: str) -> None:
    command = installed / "server" / "bin" / "chatkit-postgres"
    subprocess.run([str(command), "init"], cwd=tmp_path, env=without_checkout(), check=True, capture_output=True)
    text = (tmp_path / name).read_text()
    assert text.strip()
    assert "$" not in text.replace("${", ""), "every placeholder is filled in"
    tools = Path(sys.executable).parent
    check = {
        "Dockerfile": [tools / "hadolint", name],
        "compose.override.yml": [tools / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", name],
    }.get(name)
    if check is not None:
        subprocess.run(list(map(str, check)), cwd=tmp_path, check=True)
    if name == ".env.example":
        known = {variable_name(field) for field in Settings.model_fields}
        named = set(re.findall(r"^# ([A-Z_]+)=", text, re.MULTILINE))
        assert len(named) > 3
        assert named <= known


def test_the_wheel_is_no_checkout(installed: Path, tmp_path: Path, demo: ChatProcess) -> None:
    """Messages speak of commands that are there."""
    command = installed / "server" / "bin" / "chatkit-postgres"
    done = subprocess.run(
        [str(command), "serve", "--port", str(demo.port)],
        cwd=tmp_path,
        env=without_checkout(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"chatkit-postgres serve --port {demo.port + 10}" in done.stderr
    assert "make" not in done.stderr
