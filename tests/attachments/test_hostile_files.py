"""What somebody may try with a file."""

import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.attachments.conftest import MAX_UNSENT, Place
from tests.conftest import execute, query
from tests.support.files import image_bytes, objects_in, pdf
from tests.support.processes import eventually, http


class TestNames:
    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            ("../../etc/passwd", "passwd"),
            ("..\\..\\windows\\system.ini", "system.ini"),
            ("/", "file"),
            ("..", "file"),
            ("", "file"),
            ("a\r\nSet-Cookie: x=1.txt", "a Set-Cookie: x=1.txt"),
            ("invoice\u202egnp.exe", "invoicegnp.exe"),
            ("a" * 300 + ".txt", "a" * 251 + ".txt"),
            ("ä" * 300 + ".txt", "ä" * 125 + ".txt"),
            ('a";b.txt', 'a";b.txt'),
            ("\u0007bell.txt", "bell.txt"),
        ],
    )
    def test_a_name_is_only_ever_shown(self, local: Place, given: str, shown: str) -> None:
        user = local.user()
        described = user.announce(b"abc", given)
        assert described["name"] == shown
        assert user.send(described, b"abc").status_code == 200
        got = user.content(described["id"])
        assert got.status_code == 200
        assert got.headers["content-disposition"].isascii()
        assert "set-cookie" not in got.headers
        for name in objects_in(local.files):
            assert shown not in name

    def test_nul_in_a_name_is_refused(self, local: Place) -> None:
        user = local.user()
        refused = user.client.post("attachments.create", name="a\0.txt", size=3, mime_type="text/plain")
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
        # In a form it is dropped like the other controls.
        assert user.direct(b"abc", "a\0b.txt").json()["name"] in {"ab.txt", "a%00b.txt"}


class TestSizes:
    def test_a_thousand_bytes_announced_and_a_gigabyte_sent_stops_at_the_thousand(self, local: Place) -> None:
        user, sent = local.user(), 0

        def endless() -> Iterator[bytes]:
            nonlocal sent
            for _ in range(1024):
                sent += 1024 * 1024
                yield b"x" * (1024 * 1024)

        described = user.announce(b"", size=1000)
        try:
            response = http.put(described["upload_descriptor"]["url"], content=endless())
            assert (response.status_code, response.json()["code"]) == (413, "file_too_large")
        except httpx2.TransportError:
            # The server hangs up on those who go on for long.
            pass
        assert sent < 32 * 1024 * 1024
        assert user.describe(described["id"]).json().get("download_url") is None
        # A length that is declared is refused unread.
        declared = http.put(
            described["upload_descriptor"]["url"], content=b"x" * 5000, headers={"Content-Length": "5000"}
        )
        assert declared.status_code == 413

    def test_a_gigabyte_announced_and_a_thousand_bytes_sent_is_refused(self, local: Place) -> None:
        user = local.user()
        too_large = user.announce(b"", size=1024**3)
        assert too_large["code"] == "file_too_large"
        described = user.announce(b"", size=1024**2)
        refused = user.send(described, b"x" * 1000)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
        assert "1048576 bytes were announced, but 1000 were received" in refused.json()["message"]

    @pytest.mark.parametrize("size", [0, -1, 2**63 - 1])
    def test_impossible_sizes(self, local: Place, size: int) -> None:
        assert local.user().announce(b"", size=size)["code"] in {"invalid_request", "file_too_large"}

    def test_a_form_cannot_hide_a_large_file(self, local: Place) -> None:
        user = local.user()
        described = user.announce(b"abc")
        form = {"file": ("a", b"abc"), "more": (None, b"x" * 100_000)}
        assert http.post(described["upload_descriptor"]["url"], files=form).status_code == 413

    @pytest.mark.parametrize(
        "form",
        [
            {"other": ("a.txt", b"abc")},
            {"file": (None, b"abc")},
            [("file", ("a.txt", b"abc")), ("file", ("b.txt", b"abc"))],
        ],
        ids=["no file", "a field", "two files"],
    )
    def test_a_form_without_exactly_one_file(self, local: Place, form: Any) -> None:
        described = local.user().announce(b"abc")
        refused = http.post(described["upload_descriptor"]["url"], files=form)
        assert (refused.status_code, refused.json()["code"]) == (400, "bad_request")

    def test_too_many_that_were_not_sent(self, local: Place) -> None:
        user = local.user()
        codes = [user.announce(b"abc").get("code") for _ in range(MAX_UNSENT + 2)]
        assert codes == [None] * MAX_UNSENT + ["too_many_attachments"] * 2
        attachment_id = query(
            local.database, "SELECT attachment_id FROM chat_attachments ORDER BY created_at DESC LIMIT 1"
        )[0]["attachment_id"]
        user.client.call("attachments.delete", attachment_id=attachment_id)
        assert "code" not in user.announce(b"abc")


def test_few_uploads_of_one_user_are_under_way_at_once(local: Place) -> None:
    """Each holds a temporary file for as long as it takes."""
    user, other, open_now = local.user(), local.user(), threading.Semaphore(0)
    go_on = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b"a"
        open_now.release()
        assert go_on.wait(30)
        yield b"bc"

    def upload(slot: int) -> int:
        url = user.announce(b"abc")["upload_descriptor"]["url"]
        return httpx2.put(url, content=slowly(), timeout=60).status_code

    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(upload, slot) for slot in range(4)]
        for _ in slow:
            assert open_now.acquire(timeout=30)
        # What they have sent, the server has from its socket a moment later.
        eventually(lambda: user.send(user.announce(b"abc"), b"abc").status_code == 429, 20)
        refused = user.send(user.announce(b"abc"), b"abc")
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        assert other.send(other.announce(b"abc"), b"abc").status_code == 200
        go_on.set()
        assert [uploaded.result() for uploaded in slow] == [200] * 4
    assert user.send(user.announce(b"abc"), b"abc").status_code == 200


def test_of_many_uploads_to_one_link_one_is_kept_and_the_others_leave_nothing(local: Place) -> None:
    user = local.user()
    described, before = user.announce(b"abc"), objects_in(local.files)
    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(
            answer.status_code for answer in pool.map(lambda data: user.send(described, data), [b"aaa", b"bbb", b"ccc"])
        )
    assert statuses[0] == 200
    assert set(statuses[1:]) <= {404, 409}
    assert len(objects_in(local.files) - before) == 1


def test_what_is_refused_does_not_count_as_waiting_to_be_sent(local: Place) -> None:
    user = local.user()
    for _ in range(MAX_UNSENT + 1):
        assert user.direct(b"abc", "a.png", "image/png").status_code == 415
    assert user.direct(b"abc").status_code == 200


def test_nobodys_files_hold_up_everybody(local: Place) -> None:
    """A few kilobytes of PDF that ask for more time than they get."""
    busy, other = local.user(), local.user()
    heavy = pdf(") Tj (x" * 2_000_000)
    small = zlib.compress(heavy)
    assert len(small) < 100_000
    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(busy.direct, heavy, "a.pdf", "application/pdf") for _ in range(2)]
        time.sleep(1)
        assert other.direct(image_bytes(), "a.png", "image/png").status_code == 200
        assert other.direct(pdf("Hello"), "b.pdf", "application/pdf").status_code == 200
        assert not all(each.done() for each in slow)
        # Who waits too long for their own is told to come again.
        assert {each.result().status_code for each in slow} <= {200, 503}


class TestLinks:
    def test_a_late_upload_is_refused(self, local: Place) -> None:
        user = local.user()
        described = user.announce(b"abc")
        execute(
            local.database,
            "UPDATE chat_attachments SET upload_expires_at = now() - interval '1 second'"
            f" WHERE attachment_id = '{described['id']}'",
        )
        late = user.send(described, b"abc")
        assert (late.status_code, late.json()["code"]) == (410, "link_expired")

    def test_a_link_is_for_one_file_and_one_purpose(self, local: Place) -> None:
        """The links of another file, or of none, are refused in tests/isolation/test_files.py."""
        user = local.user()
        mine = user.announce(b"abc")
        key = mine["upload_descriptor"]["url"].partition("?key=")[2]
        base = f"{user.base_url}/api/attachments"
        answers = [
            http.put(f"{base}/{mine['id']}/content?key={wrong}", content=b"abc")
            for wrong in (key[:-4] + "AAAA", "%C3%A4%00" * 50, "A" * 5000)
        ]
        answers += [http.get(f"{base}/{mine['id']}/{purpose}?key={key}") for purpose in ("content", "preview")]
        ready = user.ready()
        read = user.describe(ready).json()["download_url"].partition("?key=")[2]
        answers.append(http.put(f"{base}/{ready}/content?key={read}", content=b"abc"))
        answers.append(http.get(f"{base}/{ready}/preview?key={read}"))
        assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(404, "not_found")}
        assert len({answer.json()["message"] for answer in answers}) == 1

    def test_a_link_says_nothing_of_its_owner(self, local: Place) -> None:
        described = local.user().announce(b"abc")
        (owned,) = query(
            local.database, f"SELECT user_id FROM chat_attachments WHERE attachment_id = '{described['id']}'"
        )
        assert str(owned["user_id"]) not in described["upload_descriptor"]["url"]

    def test_somebody_elses_token_beside_a_link_is_refused(self, local: Place) -> None:
        user, other = local.user(), local.user()
        described = user.announce(b"abc")
        url = described["upload_descriptor"]["url"]
        assert http.put(url, content=b"abc", headers=other.client.headers).status_code == 404
        assert http.put(url, content=b"abc", headers={"Authorization": "Bearer a.b.c"}).status_code == 401
        assert http.put(url, content=b"abc", headers=user.client.headers).status_code == 200

    def test_a_deleted_file_is_gone_for_its_links(self, local: Place) -> None:
        user = local.user()
        described = user.direct(image_bytes(), "a.png", "image/png").json()
        download = user.describe(described["id"]).json()["download_url"]
        pending = user.announce(b"abc")
        for attachment_id in (described["id"], pending["id"]):
            user.client.call("attachments.delete", attachment_id=attachment_id)
            assert user.client.post("attachments.delete", attachment_id=attachment_id).status_code == 404
        assert [http.get(url).status_code for url in (described["preview_url"], download)] == [404, 404]
        assert user.send(pending, b"abc").status_code == 404

    def test_a_disabled_users_links_are_refused(self, local: Place) -> None:
        user = local.user()
        described = user.direct(image_bytes(), "a.png", "image/png").json()
        pending = user.announce(b"abc")
        (row,) = query(
            local.database, f"SELECT user_id FROM chat_attachments WHERE attachment_id = '{described['id']}'"
        )
        execute(local.database, f"INSERT INTO chat_users (user_id, disabled_at) VALUES ('{row['user_id']}', now())")
        deadline = time.monotonic() + 15
        while http.get(described["preview_url"]).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert http.get(described["preview_url"]).json()["code"] == "user_disabled"
        assert user.send(pending, b"abc").json()["code"] == "user_disabled"


@pytest.mark.parametrize("charset", ["undefined", "punycode", "idna", "no-such"])
def test_a_form_in_a_strange_charset(local: Place, charset: str) -> None:
    user = local.user()
    body = b'--B\r\nContent-Disposition: form-data; name="file"; filename="\xff\xfe.txt"\r\n\r\nabc\r\n--B--\r\n'
    kind = {"Content-Type": f"multipart/form-data; boundary=B; charset={charset}"}
    answer = http.post(f"{user.base_url}/api/attachments", content=body, headers=user.client.headers | kind)
    assert answer.status_code in {200, 400}, answer.text


@pytest.mark.parametrize("host", ["localhost:99999", "a b", "x/y", "[::1", "h:", ""])
def test_a_host_that_is_none(local: Place, host: str) -> None:
    user = local.user()
    body = {"type": "attachments.create", "params": {"name": "a.txt", "size": 3, "mime_type": "text/plain"}}
    answer = http.post(
        user.client.url, json=body, headers=user.client.headers | {"Host": host.encode().decode("latin-1")}
    )
    assert answer.status_code == 400, answer.text
