"""The routes of files, with every kind of id and link that is not the caller's, for both ways to read and to write.

What a stranger gets is what they would get for a file that does not exist; the owner's rows and bytes stay as they are.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

import httpx2
import pytest
from sqlalchemy import URL

from chatkit_postgres.store.ids import new_id
from tests.faults.harness import NO_CHORES, environment, new_user
from tests.isolation.matrix import MALFORMED, RULES, SECRET, TABLES, Matrix, connected
from tests.isolation.user_data import UserData
from tests.support.files import Uploader, image_bytes, objects_in
from tests.support.processes import ChatClient, ChatProcess, ModelServer, message

ROUTES = [
    ("GET", ""),
    ("GET", "/content"),
    ("GET", "/preview"),
    ("PUT", "/content"),
    ("POST", "/content"),
]

# The router takes no empty name and no slash.
MALFORMED_IDS = [
    quote(wrong.encode("utf-8", "surrogatepass")) for wrong in MALFORMED if wrong.strip() and "/" not in wrong
]
Digest = Callable[[str], Awaitable[str]]


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, shared_database: URL, model_server: ModelServer
) -> Iterator[ChatProcess]:
    own = {"CHAT_JWT_SECRET": SECRET, "CHAT_JWT_ISSUER": str(RULES.issuer), **NO_CHORES}
    process = ChatProcess(tmp_path_factory.mktemp("files"), **environment(shared_database, model_server) | own)
    yield process.wait_until_ready()
    assert process.stop() == 0


@dataclass
class Owner:
    """A user with a file that waits for its bytes, one that was not sent, one that was, and one that is deleted."""

    uploader: Uploader
    user: str
    links: dict[str, list[str]]
    """File to the keys of its links."""
    deleted: str


def owner(server: ChatProcess, mark: bytes) -> Owner:
    name = new_user()
    client = ChatClient(server.base_url, Matrix.token_of(UserData(name, "")))
    uploader = Uploader(client)
    image = image_bytes() + mark
    pending = uploader.announce(image, "pending.png", "image/png")
    links = {pending["id"]: [_key(pending["upload_descriptor"]["url"]), _key(pending["preview_url"])]}
    for sends in (False, True):
        announced = uploader.announce(image, "ready.png", "image/png")
        assert uploader.send(announced, image).status_code == 200
        if sends:
            client.events("threads.create", input=message("Look") | {"attachments": [announced["id"]]})
        described = uploader.describe(announced["id"]).json()
        urls = (announced["upload_descriptor"]["url"], described["preview_url"], described["download_url"])
        links[announced["id"]] = [_key(url) for url in urls]
    deleted = uploader.ready(image, "deleted.png", "image/png")
    client.call("attachments.delete", attachment_id=deleted)
    return Owner(uploader, name, links, deleted)


def _key(url: str) -> str:
    return url.partition("?key=")[2]


@pytest.fixture
async def digest_of(shared_database: URL) -> AsyncIterator[Digest]:
    async with connected(shared_database) as database:

        async def digest(user: str) -> str:
            return str(await database.fetchval(Matrix.everything, user))

        assert "attachments" in TABLES
        yield digest


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=[f"{method} {path}" for method, path in ROUTES])
async def test_a_stranger_sees_and_changes_no_file(
    server: ChatProcess, digest_of: Digest, method: str, path: str
) -> None:
    victim, stranger = owner(server, b"SECRET"), owner(server, b"MINE")
    files = server.directory / ".data" / "attachments"
    before = (await digest_of(victim.user), objects_in(files))
    own_keys = [key for keys in stranger.links.values() for key in keys]
    ids = [*victim.links, victim.deleted, stranger.deleted, *MALFORMED_IDS]
    with httpx2.Client(base_url=server.base_url, timeout=30) as client:

        def ask(attachment_id: str, key: str, token: str | None) -> tuple[int, bytes]:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            url, body = f"/api/attachments/{attachment_id}{path}", b"abc" if method != "GET" else None
            answer = client.request(method, url, params={"key": key}, headers=headers, content=body)
            return answer.status_code, answer.content.replace(answer.headers["x-request-id"].encode(), b"")

        token = Matrix.token_of(UserData(stranger.user, ""))
        tokens = [token] if path == "" else [None, token]
        for held in tokens:
            absent = ask(new_id("attachment"), own_keys[0], held)
            assert (absent[0], json.loads(absent[1])["code"]) == (404, "not_found")
            for attachment_id in ids:
                for key in ["", "nonsense", *own_keys]:
                    assert ask(attachment_id, key, held) == absent, (attachment_id, key, held)
        # Of the owner's links in a stranger's hand, with the stranger's token beside them, none works.
        for attachment_id, keys in victim.links.items():
            for key in keys:
                assert ask(attachment_id, key, token)[0] == 404
                # Nor for another file of the same owner, nor for another purpose.
                others = [other for other in victim.links if other != attachment_id]
                assert {ask(other, key, None)[0] for other in others} <= {404, 401}
    assert (await digest_of(victim.user), objects_in(files)) == before
