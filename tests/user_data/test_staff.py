"""GET /api/staff/…: staff read what a user sees, each look is written down first, and nobody else learns anything."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from sqlalchemy import URL, text

from chatkit_postgres.auth.staff import StaffClaim
from chatkit_postgres.auth.tokens import mint
from chatkit_postgres.db.users import DISABLE_USER
from chatkit_postgres.main import create_app
from chatkit_postgres.settings import ConfigurationError, Deployment, load_settings
from chatkit_postgres.store import DatabaseStore
from chatkit_postgres.user_data.audit import Audit
from tests.isolation.user_data import UserData, store_user_data
from tests.support.sql import sql_connection

SECRET = "s" * 48
USER = "auth0|alice/threads/x"


@pytest.fixture
def settings(database_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DATABASE_URL": database_url.render_as_string(hide_password=False),
        "CHAT_JWT_SECRET": SECRET,
        "CHAT_STAFF_CLAIM": "role:support",
        "CHAT_LOG_LEVEL": "CRITICAL",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def client(settings: None) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(load_settings())
    app.state.parts.started.set()
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as opened:
        yield opened
    await app.state.parts.store.close()


def bearer(user: str, **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {mint(SECRET, user, seconds=60, more=claims)}"}


STAFF = {"role": "support"}


def path_of(user: str, *rest: str) -> str:
    return "/".join(("/api/staff/users", quote(user, safe=""), "threads", *rest))


async def actions(store: DatabaseStore) -> list[tuple[str, str, str | None, str | None]]:
    rows = [row async for row in Audit(store.database, SECRET).entries()]
    return [(row["actor"], row["action"], row["subject"], row["thread_id"]) for row in rows]


async def test_staff_read_what_the_user_sees(client: httpx2.AsyncClient, store: DatabaseStore) -> None:
    theirs = await store_user_data(store, UserData(USER, "MARK"))
    staff = bearer("sam", **STAFF)

    async def own(operation: str, **params: Any) -> Any:
        body = {"type": operation, "params": params}
        return (await client.post("/api/chatkit", json=body, headers=bearer(USER))).json()

    listed = await client.get(path_of(USER), params={"limit": 2}, headers=staff)
    assert listed.json() == await own("threads.list", limit=2)
    rest = await client.get(path_of(USER), params={"limit": 2, "after": listed.json()["after"]}, headers=staff)
    assert rest.json() == await own("threads.list", limit=2, after=listed.json()["after"])
    shown = await client.get(path_of(USER, theirs.thread), headers=staff)
    assert shown.json() == await own("threads.get_by_id", thread_id=theirs.thread)
    params = {"limit": "3", "order": "desc"}
    items = await client.get(path_of(USER, theirs.thread, "items"), params=params, headers=staff)
    assert items.json() == await own("items.list", thread_id=theirs.thread, limit=3, order="desc")
    assert "MARK" in items.text
    assert {response.headers["cache-control"] for response in (listed, shown, items)} == {"no-store"}
    assert await actions(store) == [
        ("sam", "threads.list", USER, None),
        ("sam", "threads.list", USER, None),
        ("sam", "thread.show", USER, theirs.thread),
        ("sam", "items.list", USER, theirs.thread),
    ]


async def test_hidden_items_files_and_metadata_are_not_shown(client: httpx2.AsyncClient, store: DatabaseStore) -> None:
    theirs = await store_user_data(store, UserData("alice", "MARK"))
    async with sql_connection(store.database) as connection:
        stored = await connection.execute(text("SELECT item::text FROM chat_messages WHERE item_type LIKE '%hidden%'"))
        hidden = [json.loads(row[0])["content"] for row in stored]
    assert hidden
    staff = bearer("sam", **STAFF)
    shown = (await client.get(path_of("alice", theirs.thread), headers=staff)).text
    items = (await client.get(path_of("alice", theirs.thread, "items"), headers=staff)).text
    assert "hidden_context" not in shown + items
    # The bytes have links that are signed for their owner alone.
    assert "signature" not in shown + items
    assert '"mark"' not in shown + items


@pytest.mark.parametrize("claims", [{}, {"role": "user"}, {"role": "not support"}, {"roles": ["support"]}, {"role": 1}])
async def test_everybody_else_is_told_what_is_told_of_nobody(
    client: httpx2.AsyncClient, store: DatabaseStore, claims: dict[str, Any]
) -> None:
    theirs = await store_user_data(store, UserData("alice", "MARK"))
    paths = [path_of("alice"), path_of("alice", theirs.thread), path_of("alice", theirs.thread, "items")]
    paths += [path_of("mallory"), path_of("nobody"), path_of("alice") + "?limit=x"]
    answers = [await client.get(path, headers=bearer("mallory", **claims)) for path in paths]
    absent = await client.get(path_of("nobody"), headers=bearer("sam", **STAFF))
    bodies = {json.dumps(answer.json() | {"request_id": ""}) for answer in (*answers, absent)}
    assert {answer.status_code for answer in answers} == {404}
    assert len(bodies) == 1
    assert {actor for actor, *_ in await actions(store)} == {"sam"}


async def test_what_is_absent_or_of_somebody_else_is_the_same(client: httpx2.AsyncClient, store: DatabaseStore) -> None:
    await store_user_data(store, UserData("alice", "MARK"))
    other = await store_user_data(store, UserData("bob", "SECRET"))
    staff = bearer("sam", **STAFF)
    for rest in ((), ("items",)):
        foreign = await client.get(path_of("alice", other.thread, *rest), headers=staff)
        absent = await client.get(path_of("alice", "thr_absent", *rest), headers=staff)
        assert (foreign.status_code, absent.status_code) == (404, 404)
        assert foreign.json() | {"request_id": ""} == absent.json() | {"request_id": ""}
    await store.database.run("carol", DISABLE_USER)
    empty = await client.get(path_of("carol"), headers=staff)
    assert (empty.status_code, empty.json()["data"]) == (200, [])


async def test_a_bad_request_is_refused_before_it_is_a_look(client: httpx2.AsyncClient, store: DatabaseStore) -> None:
    await store_user_data(store, UserData("alice", "MARK"))
    staff = bearer("sam", **STAFF)
    for wrong in ("limit=0", "limit=101", "limit=٣", "order=newest"):
        assert (await client.get(path_of("alice") + f"?{wrong}", headers=staff)).status_code == 422
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert (await client.request(method, path_of("alice"), headers=staff)).status_code == 405
    assert (await client.get(path_of(" "), headers=staff)).status_code == 404
    assert (await client.get(path_of("alice"))).status_code == 401
    assert await actions(store) == []


async def test_nothing_is_shown_that_cannot_be_written_down(client: httpx2.AsyncClient, store: DatabaseStore) -> None:
    theirs = await store_user_data(store, UserData("alice", "MARK"))
    async with sql_connection(store.database) as connection:
        await connection.execute(text("ALTER TABLE chat_audit RENAME TO gone"))
        await connection.commit()
    answer = await client.get(path_of("alice", theirs.thread), headers=bearer("sam", **STAFF))
    assert answer.status_code >= 500
    assert "MARK" not in answer.text


@pytest.mark.usefixtures("settings")
async def test_without_the_setting_there_is_no_such_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHAT_STAFF_CLAIM")
    app = create_app(load_settings())
    app.state.parts.started.set()
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get(path_of("alice"), headers=bearer("sam", **STAFF))).status_code == 404
    await app.state.parts.store.close()


@pytest.mark.parametrize(
    ("setting", "claims", "is_met"),
    [
        ("role:support", {"role": "support"}, True),
        ("role:support", {"role": ["user", "support"]}, True),
        ("role:support", {"role": "support user"}, False),
        ("role:support", {"role": {"support": True}}, False),
        ("scope:chats.read", {"scope": "openid chats.read"}, True),
        ("scp:chats.read", {"scp": "chats.reads"}, False),
        ("realm_access.roles:support", {"realm_access": {"roles": ["support"]}}, True),
        ("realm_access.roles:support", {"realm_access": ["roles"]}, False),
        ("https://example.com/roles:support", {"https://example.com/roles": ["support"]}, True),
        ("is_staff:true", {"is_staff": True}, True),
        ("is_staff:true", {"is_staff": 1}, False),
    ],
)
def test_the_claim_as_issuers_write_it(setting: str, claims: dict[str, Any], *, is_met: bool) -> None:
    assert StaffClaim.parse(setting).is_met_by(claims) is is_met


@pytest.mark.usefixtures("settings")
def test_staff_need_a_key_for_the_audit_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_STAFF_CLAIM", "role")
    with pytest.raises(ConfigurationError, match="CHAT_STAFF_CLAIM"):
        load_settings()
    monkeypatch.setenv("CHAT_STAFF_CLAIM", "role:support")
    monkeypatch.delenv("CHAT_JWT_SECRET")
    monkeypatch.setenv("CHAT_JWKS_URL", "https://issuer.example/keys")
    monkeypatch.setenv("CHAT_URL_SECRET", "u" * 40)
    problems = Deployment(load_settings()).problems()
    assert [problem.partition(":")[0] for problem in problems] == ["CHAT_ERASURE_KEY"]
