"""What a host's ``authenticate`` may do wrong, and refuse."""

from typing import Any

import pytest
from agents import Agent
from fastapi import Depends, HTTPException, Request

from chatkit_postgres import AgentAssistant, create_app
from chatkit_postgres.api.authentication import user_of_application
from chatkit_postgres.api.public_url import public_url
from chatkit_postgres.auth.user import User
from chatkit_postgres.errors import ChatError
from chatkit_postgres.settings import ConfigurationError


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (302, (401, "unauthorized", "Please sign in again.")),
        (401, (401, "unauthorized", "Ours.")),
        (402, (403, "forbidden", "Ours.")),
        (403, (403, "forbidden", "Ours.")),
        (404, (404, "not_found", "Ours.")),
        (409, (403, "forbidden", "Ours.")),
        (429, (429, "too_many_requests", "Too many requests. Please wait a moment.")),
        (500, (503, "unavailable", "Ours.")),
        (503, (503, "unavailable", "Ours.")),
    ],
)
async def test_a_refusal_of_the_host_is_one_of_ours(status: int, expected: tuple[int, str, str]) -> None:
    async def authenticate(request: Request) -> User:
        raise HTTPException(status, "Ours.", headers={"Retry-After": "7"})

    identify = user_of_application(authenticate, frozenset(), public_url(None))
    with pytest.raises(ChatError) as refused:
        await identify(Request({"type": "http", "method": "GET", "headers": []}))
    error = refused.value
    assert (error.status, error.code, error.message) == expected
    if status == 429:
        assert error.retry_after_seconds == 7


async def test_one_that_is_not_async_is_named(caplog: pytest.LogCaptureFixture) -> None:
    identify = user_of_application(lambda _: User("alice"), frozenset(), public_url(None))  # type: ignore[arg-type,return-value]
    with pytest.raises(ChatError):
        await identify(Request({"type": "http", "method": "GET", "headers": []}))
    assert "write async def authenticate" in caplog.text


async def _with_a_database(request: Request, db: Any = Depends(lambda: None)) -> User | None:
    return None


async def _of_nothing() -> User | None:
    return None


@pytest.mark.parametrize(
    ("authenticate", "reason"),
    [(_with_a_database, r"injects is not resolved here \(db\)"), (_of_nothing, "called with the request alone")],
)
def test_one_that_cannot_be_called_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, authenticate: Any, reason: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u@127.0.0.1:1/x")
    monkeypatch.setenv("CHAT_URL_SECRET", "u" * 48)
    with pytest.raises(ConfigurationError, match=reason):
        create_app(assistant=AgentAssistant(Agent(name="A")), authenticate=authenticate)


async def test_claims_that_cannot_be_stored_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    async def authenticate(request: Request) -> User:
        return User("alice", {"plan": "pro", "account": object()})  # type: ignore[dict-item] # as a host may have it

    identify = user_of_application(authenticate, frozenset(), public_url(None))
    for _ in range(2):
        user = await identify(Request({"type": "http", "method": "GET", "headers": []}))
        assert user is not None
        assert dict(user.claims or {}) == {"plan": "pro"}
    assert caplog.text.count("claims_dropped") == 1
    assert "claims=['account']" in caplog.text


@pytest.mark.parametrize("named", ["oops", "module:", ":build", ""])
def test_a_name_that_is_no_import_string_says_how_one_looks(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u@127.0.0.1:1/x")
    monkeypatch.setenv("CHAT_URL_SECRET", "u" * 48)

    async def authenticate(request: Request) -> User | None:
        return None

    with pytest.raises(ConfigurationError) as refused:
        create_app(assistant=named, authenticate=authenticate)
    assert f"create_app(assistant=...): {named!r}: use package.module:attribute." in str(refused.value)
