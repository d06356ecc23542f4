"""`serve` does not start with a setting that is unsafe or impossible: one line names the setting, before a database is
made."""

from pathlib import Path

import pytest

from tests.support.processes import run_cli

EXTERNAL = {"DATABASE_URL": "postgresql://u@127.0.0.1:1/x"}
SECURED = EXTERNAL | {"CHAT_JWT_SECRET": "f" * 48}
KEY_SET = SECURED | {"CHAT_JWT_SECRET": ""}
EVERYWHERE = ("--host", "0.0.0.0")

REFUSED: list[tuple[tuple[str, ...], dict[str, str], str]] = [
    # Who could sign in, or nobody.
    ((), EXTERNAL, "CHAT_JWT_SECRET: needed to verify tokens"),
    (EVERYWHERE, {}, "CHAT_JWT_SECRET: needed to verify tokens"),
    ((), EXTERNAL | {"CHAT_AUTH_MODE": "dev"}, "embedded database only"),
    (EVERYWHERE, {"CHAT_AUTH_MODE": "dev"}, "loopback address only"),
    ((), SECURED | {"CHAT_JWT_SECRET": "short"}, "CHAT_JWT_SECRET: shorter than 32 bytes"),
    ((), SECURED | {"CHAT_JWT_ALGORITHMS": "HS256,RS256"}, "CHAT_JWT_ALGORITHMS: use algorithms of one family"),
    ((), SECURED | {"CHAT_JWT_ALGORITHMS": "none"}, "CHAT_JWT_ALGORITHMS"),
    ((), SECURED | {"CHAT_JWT_ALGORITHMS": "RS256"}, "CHAT_JWT_ALGORITHMS: RS256 needs CHAT_JWKS_URL"),
    ((), SECURED | {"CHAT_JWKS_URL": "https://issuer.example/jwks"}, "set one of them"),
    ((), KEY_SET | {"CHAT_JWKS_URL": "http://issuer.example/jwks"}, "CHAT_JWKS_URL: use https://"),
    ((), KEY_SET | {"CHAT_JWKS_URL": "http://[2606:4700::1]/jwks"}, "CHAT_JWKS_URL: use https://"),
    ((), KEY_SET | {"CHAT_JWKS_URL": "http://134744072/jwks"}, "CHAT_JWKS_URL: use https://"),
    (
        (),
        KEY_SET | {"CHAT_JWKS_URL": "https://i.example", "CHAT_JWT_ALGORITHMS": "HS256"},
        "a key set holds public keys",
    ),
    ((), KEY_SET | {"CHAT_JWKS_FILE": "/nowhere/jwks.json"}, "CHAT_JWKS_FILE: /nowhere/jwks.json"),
    ((), SECURED | {"CHAT_AUTH_COOKIE": "a b"}, "CHAT_AUTH_COOKIE: not the name of a cookie"),
    (
        (),
        SECURED | {"CHAT_AUTH_COOKIE": "session"},
        "CHAT_AUTH_COOKIE: a browser sends this cookie with",
    ),
    # What cannot be loaded or found.
    ((), {"CHAT_ASSISTANT": "nowhere.at:all"}, "CHAT_ASSISTANT: nowhere.at:all: there is no module nowhere in"),
    ((), {"CHAT_ASSISTANT": "os:nowhere"}, "CHAT_ASSISTANT: os:nowhere"),
    ((), {"CHAT_ASSISTANT": "os:sep"}, "not to an agents.Agent, an Assistant or a ChatKitServer"),
    ((), {"CHAT_MCP_FILE": "missing.json"}, "CHAT_MCP_FILE"),
    ((), {"CHAT_POSTGRES_BIN": "/nowhere"}, "No PostgreSQL binaries found"),
    # Limits.
    ((), {"CHAT_MAX_PAGE_SIZE": "1000"}, "CHAT_MAX_PAGE_SIZE"),
    ((), {"CHAT_MAX_JSON_DEPTH": "0"}, "CHAT_MAX_JSON_DEPTH"),
    ((), {"CHAT_REQUESTS_PER_MINUTE": "0"}, "CHAT_REQUESTS_PER_MINUTE"),
]


@pytest.mark.parametrize(("arguments", "settings", "named"), REFUSED)
def test_a_refused_start_names_the_setting_and_makes_no_database(
    tmp_path: Path, arguments: tuple[str, ...], settings: dict[str, str], named: str
) -> None:
    done = run_cli(tmp_path, "serve", "--port", "0", *arguments, **settings)
    assert (done.returncode, named in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".data" / "postgres" / "cluster").exists()
