"""What can be configured, and that docs/settings.md and .env.example know of it."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from chatkit_postgres.settings import (
    ConfigurationError,
    Deployment,
    Settings,
    fingerprint,
    is_loopback,
    load_settings,
    variable_name,
)
from chatkit_postgres.settings.fingerprint import OF_ONE_MACHINE
from tests.support.processes import ROOT


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("field", [*Settings.model_fields])
def test_every_setting_is_documented(field: str) -> None:
    assert Settings.model_fields[field].description
    name = re.escape(variable_name(field))
    assert re.search(rf"^\| `{name}` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)
    assert re.search(rf"^#? ?{name}=", (ROOT / ".env.example").read_text(), re.MULTILINE)


@pytest.mark.parametrize("field", [*Settings.model_fields])
def test_its_default_is_documented_as_it_is(field: str) -> None:
    line = rf"^\| `{re.escape(variable_name(field))}` \|.*\|([^|]*)\|$"
    found = re.search(line, (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)
    assert found is not None
    documented = found[1].strip()
    match default := Settings.model_fields[field].default:
        case None:
            # What happens then is said in words.
            assert documented
            assert not documented[0].isdigit()
        case ():
            assert documented == "none"
        case bool():
            assert documented == str(default).lower()
        case int() | float():
            assert documented == f"{default:g}" or documented == str(default)
        case tuple():
            assert field == "attachment_types" or documented == f"`{','.join(default)}`"
        case _:
            assert documented == f"`{default}`"


@pytest.mark.parametrize("field", [*Settings.model_fields])
def test_a_fingerprint_shows_a_change_of_what_processes_share(field: str) -> None:
    as_it_is = Settings()
    changed = fingerprint(as_it_is.model_copy(update={field: "something else"})) != fingerprint(as_it_is)
    assert changed == (field not in OF_ONE_MACHINE)


def test_a_fingerprint_shows_whether_a_secret_is_set_and_nothing_else_of_it() -> None:
    none, one, other = (
        fingerprint(Settings().model_copy(update={"jwt_secret": secret}))
        for secret in (None, SecretStr("1" * 32), SecretStr("2" * 32))
    )
    assert none != one == other


def test_no_setting_is_documented_that_does_not_exist() -> None:
    documented = re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(variable_name(field) for field in [*Settings.model_fields])


def test_a_dotenv_file_is_read_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("CHAT_MODEL=from-file\nCHAT_LOG_LEVEL=DEBUG\nUNRELATED=1\n")
    monkeypatch.setenv("CHAT_MODEL", "from-environment")
    settings = load_settings()
    assert (settings.model, settings.log_level) == ("from-environment", "DEBUG")


def test_a_repository_names_what_holds_wherever_it_is_deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text('[tool.chatkit-postgres]\nassistant = "ours.support:build"\nmodel = "from-project"\n')
    (tmp_path / ".env").write_text("CHAT_MODEL=from-file\n")
    assert (load_settings().assistant, load_settings().model) == ("ours.support:build", "from-file")
    monkeypatch.setenv("CHAT_ASSISTANT", "other.agent:build")
    assert load_settings().assistant == "other.agent:build"
    project.write_text("[tool.chatkit-postgres")
    with pytest.raises(ConfigurationError, match=r"pyproject\.toml"):
        load_settings()


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "CHAT_JWT_SECRET", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "")
    settings = load_settings()
    assert settings.is_embedded
    assert settings.uses_demo_model


def test_all_malformed_values_are_reported_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "DATABASE_URL": "sqlite:///x",
        "CHAT_JWT_ALGORITHMS": "HS256,none",
        "CHAT_LOG_LEVEL": "LOUD",
        "CHAT_MAX_BODY_BYTES": "-1",
        "OPENAI_API_KEY": "sk-…",
        "CHAT_TRACING_KEY": "sk-1\nX: y",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert sorted(problem.partition(":")[0] for problem in refused.value.problems) == sorted(wrong)
    assert "sk-" not in str(refused.value.problems)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.com", "", None])
def test_not_loopback(host: str | None) -> None:
    assert not is_loopback(host)


def test_development_mode_needs_loopback_an_embedded_database_and_no_key_of_ones_own() -> None:
    assert Deployment(load_settings(), "127.0.0.1").is_dev
    assert not Deployment(load_settings(), "0.0.0.0").is_dev
    assert not Deployment(load_settings()).is_dev
    assert not Deployment(load_settings(database_url="postgresql://h/d"), "127.0.0.1").is_dev
    assert not Deployment(load_settings(jwt_secret="k" * 48), "127.0.0.1").is_dev


def test_a_secret_can_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("k" * 48 + "\n")
    settings = load_settings(jwt_secret_file=tmp_path / "secret")
    assert settings.jwt_key == "k" * 48
    assert Deployment(settings, "0.0.0.0").problems() == []
    (tmp_path / "bytes").write_bytes(b"\xff" * 48)
    (unreadable,) = Deployment(load_settings(jwt_secret_file=tmp_path / "bytes"), "0.0.0.0").problems()
    assert unreadable.startswith("CHAT_JWT_SECRET_FILE: ")
    (missing,) = Deployment(load_settings(jwt_secret_file=tmp_path / "none"), "0.0.0.0").problems()
    assert missing.startswith("CHAT_JWT_SECRET_FILE: ")


@pytest.mark.parametrize(
    "wrong",
    [
        "https://Shop.example.com",
        "https://shop.example.com:443",
        "http://shop.example.com:80",
        "https://a.example/x",
        "https://*.example.com",
        "https://a.example?x",
        "https://u@a.example",
        "https://\u00e9.example",
        "a.example",
        "null",
    ],
)
def test_an_origin_that_no_browser_writes_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("CHAT_EMBED_ORIGINS", f"https://shop.example.com:8443,{wrong}")
    with pytest.raises(ConfigurationError, match="CHAT_EMBED_ORIGINS"):
        load_settings()
