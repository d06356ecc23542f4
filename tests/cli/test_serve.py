"""What `serve` says, and does not say, when it starts."""

from pathlib import Path

import pytest

from tests.support.processes import ROOT, ChatProcess, http, run_cli


def test_the_version_is_an_option_too(tmp_path: Path) -> None:
    assert run_cli(tmp_path, "--version").stdout == run_cli(tmp_path, "version").stdout


def test_a_mistyped_setting_is_a_warning(tmp_path: Path, embedded_settings: dict[str, str]) -> None:
    server = ChatProcess(tmp_path, CHAT_HISTORY_TOKEN="5000", **embedded_settings).wait_until_ready()
    assert server.stop() == 0
    assert "unknown_setting" in server.log
    assert "Did you mean CHAT_HISTORY_TOKENS?" in server.log


def test_nothing_is_said_of_migrations_before_the_greeting(tmp_path: Path, embedded_settings: dict[str, str]) -> None:
    server = ChatProcess(tmp_path, **embedded_settings).wait_until_ready()
    assert server.stop() == 0
    before, _, _ = server.log.partition("chatkit-postgres 0")
    assert before.strip() == ""
    assert "alembic" not in server.log


@pytest.mark.parametrize("path", ["/", "/health/live", "/health/ready", "/metrics", "/playground/page.js"])
def test_head_is_answered_wherever_get_is(demo: ChatProcess, path: str) -> None:
    got, head = http.get(demo.base_url + path), http.head(demo.base_url + path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert http.head(f"{demo.base_url}/nowhere").status_code == 404
    assert http.head(f"{demo.base_url}/api/chatkit").status_code == 405


def test_no_message_names_a_package_that_is_not_published() -> None:
    """Anybody could register it."""
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in ("chatkit_postgres", "docs", "app", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".md", ".template", ".toml", ".yml"} and "node_modules" not in path.parts
        for line in path.read_text().splitlines()
        if "pip install" in line and "chatkit-postgres" in line.partition("pip install")[2]
    ]
    assert found == []
