"""The OpenAPI document: every route is in it, and real answers are as it says."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator  # type: ignore[import-untyped] # has no types
from sqlalchemy import URL

from chatkit_postgres.api.described import ROUTES
from chatkit_postgres.api.openapi import document_of, routes_of
from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.main import create_app
from chatkit_postgres.settings import load_settings
from chatkit_postgres.store import DatabaseStore
from tests.isolation.matrix import OWN, operations
from tests.isolation.user_data import UserData, store_user_data

SECRET = "s" * 48


@pytest.fixture
async def app(database_url: URL, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FastAPI]:
    for name, value in {
        "DATABASE_URL": database_url.render_as_string(hide_password=False),
        "CHAT_JWT_SECRET": SECRET,
        "CHAT_STAFF_CLAIM": "role:support",
        "CHAT_API_DOCS": "true",
        "CHAT_LOG_LEVEL": "CRITICAL",
    }.items():
        monkeypatch.setenv(name, value)
    app = create_app(load_settings())
    app.state.parts.started.set()
    yield app
    await app.state.parts.store.close()


def client_of(app: FastAPI, **claims: str) -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {mint(SECRET, 'alice', seconds=600, more=claims)}"}
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test", headers=headers)


def validator(document: dict[str, Any], method: str, path: str, status: int, kind: str) -> Draft202012Validator:
    responses = document["paths"][path][method]["responses"]
    content = responses[str(status)]["content"]
    return Draft202012Validator(content[kind]["schema"] | {"components": document["components"]})


async def test_every_route_is_described(app: FastAPI) -> None:
    assert set(routes_of(app)) == set(ROUTES)
    document = document_of(app)
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names) == len(ROUTES)


async def test_every_operation_of_the_protocol_is_described(app: FastAPI) -> None:
    document = document_of(app)
    body = document["paths"]["/api/chatkit"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = Draft202012Validator(body | {"components": document["components"]})
    own = UserData("alice", "MARK")
    for name in operations():
        assert schema.is_valid({"type": name, "params": OWN[name](own)}), name
        assert not schema.is_valid({"type": name, "params": 5})
    assert not schema.is_valid({"type": "threads.hologram"})


def asked(own: UserData) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Method, path, its template, and a body."""
    staff = "/api/staff/users/{user_id}/threads"
    yield "get", "/api/search?q=MARK", "/api/search", {}
    yield "get", "/api/usage", "/api/usage", {}
    yield "get", "/api/threads/waiting", "/api/threads/waiting", {}
    yield "post", f"/api/threads/{own.thread}/stop", "/api/threads/{thread_id}/stop", {}
    yield "get", "/health/live", "/health/live", {}
    yield "get", "/health/ready", "/health/ready", {}
    yield "get", f"/api/attachments/{own.attachment}", "/api/attachments/{attachment_id}", {}
    yield "get", "/api/staff/users/alice/threads", staff, {}
    yield "get", f"/api/staff/users/alice/threads/{own.thread}", f"{staff}/{{thread_id}}", {}
    yield "get", f"/api/staff/users/alice/threads/{own.thread}/items", f"{staff}/{{thread_id}}/items", {}
    for name in ("threads.get_by_id", "threads.list", "items.list", "threads.update"):
        yield "post", "/api/chatkit", "/api/chatkit", {"type": name, "params": OWN[name](own)}


async def test_answers_are_as_the_document_says(app: FastAPI, store: DatabaseStore) -> None:
    own = await store_user_data(store, UserData("alice", "MARK"))
    async with client_of(app, role="support") as client:
        document = (await client.get("/openapi.json")).json()
        assert document == json.loads(json.dumps(document_of(app)))
        for method, path, template, body in asked(own):
            answer = await client.request(method, path, json=body or None)
            assert answer.status_code == 200, (path, answer.text)
            validator(document, method, template, 200, "application/json").validate(answer.json())
        refused = await client.get("/api/search?q=x&limit=0")
        validator(document, "get", "/api/search", 422, "application/json").validate(refused.json())
        unknown = await client.get("/api/staff/users/nobody/threads")
        validator(document, "get", "/api/staff/users/{user_id}/threads", 404, "application/json").validate(
            unknown.json()
        )


async def test_it_is_off_by_default(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHAT_API_DOCS")
    other = create_app(load_settings())
    other.state.parts.started.set()
    async with client_of(other) as client:
        assert (await client.get("/openapi.json")).status_code == 404
    await other.state.parts.store.close()
