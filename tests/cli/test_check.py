"""What `check` finds before a user does."""

import errno
import os
from pathlib import Path

import pytest

from tests.support.processes import ModelServer, run_cli

NO_DATABASE = {"DATABASE_URL": "postgresql://127.0.0.1:1/none", "CHAT_JWT_SECRET": "s" * 48}


def lines(directory: Path, **settings: str) -> dict[str, str]:
    done = run_cli(directory, "check", **NO_DATABASE | settings)
    assert done.returncode == 1
    return {line.partition(" ")[0]: line for line in done.stdout.splitlines()}


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
def test_the_model_is_asked_for_a_word(tmp_path: Path, model_server: ModelServer, api: str) -> None:
    found = lines(tmp_path, OPENAI_BASE_URL=model_server.url, CHAT_MODEL_API=api, CHAT_MODEL="scripted")
    assert "ok" in found["model"]
    assert "You said 'Are you there?'" in found["model"]
    assert model_server.calls()[-1]["body"]["model"] == "scripted"


def test_a_model_that_lists_itself_and_does_not_answer_fails(tmp_path: Path, model_server: ModelServer) -> None:
    """A list of models says nothing of whether this one, by this API, answers."""
    found = lines(tmp_path, OPENAI_BASE_URL=f"{model_server.url}/elsewhere", CHAT_MODEL="scripted")
    assert "failed" in found["model"]
    assert "HTTP 404" in found["model"]


def test_the_providers_own_words_are_told(tmp_path: Path, model_server: ModelServer) -> None:
    """The users' sentence would not say what to mend."""
    found = lines(tmp_path, OPENAI_BASE_URL="http://127.0.0.1:1/v1", CHAT_MODEL="scripted")
    assert "Connection" in found["model"]
    assert "tell those who run it" not in found["model"]
    wrong = run_cli(tmp_path, "check", **NO_DATABASE, OPENAI_BASE_URL="localhost:11434/v1")
    assert "OPENAI_BASE_URL: use a URL like http://localhost:11434/v1" in wrong.stdout


def test_an_application_that_mounts_needs_no_secret_for_tokens(tmp_path: Path) -> None:
    own = {"DATABASE_URL": NO_DATABASE["DATABASE_URL"], "CHAT_URL_SECRET": "u" * 48}
    alone = run_cli(tmp_path, "check", **own)
    assert "CHAT_JWT_SECRET" in alone.stdout
    mounted = run_cli(tmp_path, "check", "--mounted", **own)
    assert mounted.stdout.startswith("configuration  ok      mounted mode")
    assert "keys" not in mounted.stdout


def test_a_tool_that_may_be_demanded_must_be_there(tmp_path: Path) -> None:
    agent = {"CHAT_ASSISTANT": "examples.shop:build"}
    missing = lines(tmp_path, **agent, CHAT_ALLOWED_TOOLS="show_order,refund")
    assert "failed" in missing["assistant"]
    assert "has no tool refund" in missing["assistant"]
    assert "ok" in lines(tmp_path, **agent, CHAT_ALLOWED_TOOLS="show_order,list_orders")["assistant"]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("CHAT_MODLE", "CHAT_MODEL"), ("CHAT_CORS_ORIGIN", "CHAT_CORS_ORIGINS"), ("CHAT_JWT_SECRT", "CHAT_JWT_SECRET")],
)
def test_a_mistyped_setting_is_named_with_the_nearest(tmp_path: Path, name: str, nearest: str) -> None:
    found = run_cli(tmp_path, "check", **NO_DATABASE, **{name: "x"})
    assert found.returncode == 1
    first, *others = found.stdout.splitlines()
    assert first == f"configuration  failed  {name}: there is no such setting. Did you mean {nearest}?"
    # The rest is looked at all the same.
    assert [line.split()[0] for line in others] == ["assistant", "keys", "database", "storage", "model"]


def test_a_mistyped_setting_is_found_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CHAT_ASISTANT=x:y\nOTHER=1\n")
    (tmp_path / "pyproject.toml").write_text("[tool.chatkit-postgres]\nmodell = 'x'\n")
    found = run_cli(tmp_path, "check", **NO_DATABASE)
    named = [line.split()[2] for line in found.stdout.splitlines() if line.startswith("configuration")]
    assert named == ["CHAT_ASISTANT:", "CHAT_MODELL:"]


def test_what_others_read_from_the_same_file_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CHAT_BACKEND_URL=http://api:8000\nCHAT_AGENTS_DIR=.\n")
    found = run_cli(tmp_path, "check", **NO_DATABASE)
    assert found.stdout.startswith("configuration  ok")


def test_an_issuer_that_is_away_is_told_from_one_with_other_keys(tmp_path: Path) -> None:
    away = lines(tmp_path, CHAT_JWT_SECRET="", CHAT_URL_SECRET="u" * 48, CHAT_JWKS_URL="http://127.0.0.1:1/jwks.json")
    assert "not reachable (ConnectError" in away["keys"]
    (tmp_path / "keys.json").write_text('{"keys": []}')
    empty = lines(tmp_path, CHAT_JWT_SECRET="", CHAT_URL_SECRET="u" * 48, CHAT_JWKS_FILE=str(tmp_path / "keys.json"))
    assert "no public key for signatures" in empty["keys"]


def test_why_files_cannot_be_stored_is_said(tmp_path: Path) -> None:
    (tmp_path / ".data" / "attachments").mkdir(parents=True)
    # A directory of its own for the test file cannot be made where a file has its name.
    (tmp_path / ".data" / "attachments" / "probe").touch()
    found = lines(tmp_path)["storage"]
    assert "writing and reading a test file failed: " in found
    assert found.endswith(os.strerror(errno.ENOTDIR))
