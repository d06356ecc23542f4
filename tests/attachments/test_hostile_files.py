"""What somebody may try with a file."""

import io
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.attachments.conftest import Place
from tests.conftest import execute, query
from tests.support.files import objects_in, pdf, picture
from tests.support.processes import http

HTML = b"<!DOCTYPE html><html><script>alert(1)</script></html>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
GIF_AND_SCRIPT = picture("GIF") + b"/*<script>alert(1)</script>*/"


def png_of(width: int, height: int) -> bytes:
    """A few hundred bytes that say they are that large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100_000))
        + chunk(b"IEND", b"")
    )


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
        assert "1048576 bytes were announced, and 1000 came" in refused.json()["message"]

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
        codes = [user.announce(b"abc").get("code") for _ in range(52)]
        assert codes == [None] * 50 + ["too_many_attachments"] * 2
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
        time.sleep(0.3)
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
    for _ in range(55):
        assert user.direct(b"abc", "a.png", "image/png").status_code == 415
    assert user.direct(b"abc").status_code == 200


def test_nobodys_files_hold_up_everybody(local: Place) -> None:
    """A few kilobytes of PDF that ask for more time than they get."""
    busy, other = local.user(), local.user()
    heavy = pdf(") Tj (x" * 2_000_000)
    small = zlib.compress(heavy)
    assert len(small) < 100_000
    with ThreadPoolExecutor(3) as pool:
        slow = [pool.submit(busy.direct, heavy, "a.pdf", "application/pdf") for _ in range(3)]
        time.sleep(1)
        assert other.direct(picture(), "a.png", "image/png").status_code == 200
        assert other.direct(pdf("Hello"), "b.pdf", "application/pdf").status_code == 200
        assert not all(each.done() for each in slow)
        # Who waits too long for their own is told to come again.
        assert {each.result().status_code for each in slow} <= {200, 503}


class TestTypes:
    @pytest.mark.parametrize(
        "kind",
        ["text/html", "image/svg+xml", "application/x-sh", "application/javascript", "image/tiff", "image/heic"],
    )
    def test_types_that_are_not_taken(self, local: Place, kind: str) -> None:
        user = local.user()
        refused = user.client.post("attachments.create", name="a", size=3, mime_type=kind)
        assert (refused.status_code, refused.json()["code"]) == (415, "file_refused")
        assert user.direct(b"abc", "a", kind).status_code == 415

    @pytest.mark.parametrize(
        "kind", ["image/png\r\nX-Evil: 1", "image", "image/", "/png", "a b/c", "image/\u00e9", "x/" + "y" * 500]
    )
    def test_malformed_types(self, local: Place, kind: str) -> None:
        refused = local.user().client.post("attachments.create", name="a", size=3, mime_type=kind)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")

    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            (HTML, "image/png"),
            (SVG, "image/png"),
            (SVG, "image/gif"),
            (b"\x89PNG\r\n\x1a\n" + HTML, "image/png"),
            (b"GIF89a" + HTML, "image/gif"),
            (b"\xff\xd8\xff\xe0" + HTML, "image/jpeg"),
            (HTML, "application/pdf"),
            (b"PK\x03\x04" + HTML, "application/pdf"),
            (picture(), "application/pdf"),
            (picture(), "text/plain"),
            (b"MZ\x90\0\0\0", "text/csv"),
            (b"abc\0def", "text/plain"),
            (b"\xff\xfe\xfa", "text/markdown"),
            (b"\x1b[2Jabc\x07", "text/plain"),
        ],
    )
    def test_what_is_not_what_it_says(self, local: Place, data: bytes, kind: str) -> None:
        user, before = local.user(), objects_in(local.files)
        assert user.direct(data, "a", kind).json()["code"] == "file_refused"
        described = user.announce(data, "a", kind)
        assert user.send(described, data).status_code == 415
        assert objects_in(local.files) == before
        assert user.describe(described["id"]).json().get("download_url") is None

    def test_html_as_text_is_a_download_that_nothing_runs(self, local: Place) -> None:
        user = local.user()
        got = user.content(user.ready(HTML, "a.html", "text/plain"))
        assert got.headers["content-disposition"].startswith("attachment;")
        assert got.headers["content-type"].startswith("text/plain")
        assert got.headers["x-content-type-options"] == "nosniff"

    def test_of_a_polyglot_the_preview_keeps_nothing_but_pixels(self, local: Place) -> None:
        user = local.user()
        described = user.direct(GIF_AND_SCRIPT, "a.gif", "image/gif").json()
        preview = http.get(described["preview_url"])
        assert b"script" not in preview.content
        original = user.content(described["id"])
        assert original.headers["content-type"] == "image/gif"
        assert "sandbox" in original.headers["content-security-policy"]

    def test_a_picture_is_what_its_bytes_say(self, local: Place) -> None:
        described = local.user().direct(picture("JPEG"), "screenshot.png", "image/png").json()
        assert described["mime_type"] == "image/jpeg"

    def test_a_type_that_the_browser_does_not_know_is_told_by_the_name(self, local: Place) -> None:
        user = local.user()
        for name, kind in (("a.md", "text/markdown"), ("a.csv", "text/csv"), ("a.webp", "image/webp")):
            assert user.announce(b"abc", name, "")["mime_type"] == kind
        assert user.announce(b"a,b", "a.csv", "application/vnd.ms-excel")["mime_type"] == "text/csv"

    @pytest.mark.parametrize("size", [(1001, 1000), (30_000, 30_000), (2**31 - 1, 1), (1, 2**31 - 1)])
    def test_a_pixel_bomb_is_refused_unread(self, local: Place, size: tuple[int, int]) -> None:
        started = time.monotonic()
        refused = local.user().direct(png_of(*size), "a.png", "image/png")
        assert (refused.status_code, refused.json()["code"]) == (415, "file_refused")
        assert time.monotonic() - started < 20

    def test_a_picture_at_the_limit_is_taken(self, local: Place) -> None:
        assert local.user().direct(picture(size=(1000, 1000)), "a.png", "image/png").status_code == 200

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16", "RGBA"])
    def test_a_picture_of_any_depth_is_taken(self, local: Place, mode: str) -> None:
        made = io.BytesIO()
        Image.new(mode, (900, 900)).save(made, "PNG")
        assert local.user().direct(made.getvalue(), "a.png", "image/png").status_code == 200

    def test_a_picture_that_wants_too_much_memory_costs_the_server_none(self, local: Place) -> None:
        made = io.BytesIO()
        Image.new("RGBA", (1000, 1000)).save(made, "WEBP", lossless=True)
        pid = local.process.process.pid
        before = _peak_memory(pid)
        assert local.user().direct(made.getvalue(), "a.webp", "image/webp").status_code == 200
        assert _peak_memory(pid) - before < 4 * 1000 * 1000

    def test_a_broken_picture_is_refused(self, local: Place) -> None:
        data = picture(size=(500, 500))
        assert local.user().direct(data[: len(data) // 2], "a.png", "image/png").json()["code"] == "file_refused"

    def test_a_pdf_that_cannot_be_read_is_kept_without_its_text(self, local: Place) -> None:
        user = local.user()
        for data in (b"%PDF-1.4\nnothing", pdf("x")[:-200]):
            assert user.content(user.ready(data, "a.pdf", "application/pdf")).content == data


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
        user, other = local.user(), local.user()
        mine, hers = user.announce(b"abc"), other.announce(b"abc")
        key, herkey = (d["upload_descriptor"]["url"].partition("?key=")[2] for d in (mine, hers))
        base = f"{user.base_url}/api/attachments"
        answers = [
            http.put(f"{base}/{path}?key={wrong}", content=b"abc")
            for path, wrong in (
                (f"{mine['id']}/content", herkey),
                (f"{hers['id']}/content", key),
                (f"{mine['id']}/content", ""),
                (f"{mine['id']}/content", key[:-4] + "AAAA"),
                (f"{mine['id']}/content", "%C3%A4%00" * 50),
                (f"{mine['id']}/content", "A" * 5000),
                ("atc_nothing/content", key),
            )
        ]
        answers += [http.get(f"{base}/{mine['id']}/{purpose}?key={key}") for purpose in ("content", "preview")]
        ready = user.ready()
        read = user.describe(ready).json()["download_url"].partition("?key=")[2]
        answers.append(http.put(f"{base}/{ready}/content?key={read}", content=b"abc"))
        answers.append(http.get(f"{base}/{ready}/preview?key={read}"))
        assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(404, "not_found")}
        assert len({answer.json()["message"] for answer in answers}) == 1

    def test_a_link_says_nothing_of_its_owner(self, local: Place) -> None:
        user = local.user()
        token_user = query(local.database, "SELECT user_id FROM chat_attachments ORDER BY created_at DESC LIMIT 1")
        url = user.announce(b"abc")["upload_descriptor"]["url"]
        assert str(token_user[0]["user_id"]) not in url

    def test_somebody_elses_token_beside_a_link_is_refused(self, local: Place) -> None:
        user, other = local.user(), local.user()
        described = user.announce(b"abc")
        url = described["upload_descriptor"]["url"]
        assert http.put(url, content=b"abc", headers=other.client.headers).status_code == 404
        assert http.put(url, content=b"abc", headers={"Authorization": "Bearer a.b.c"}).status_code == 401
        assert http.put(url, content=b"abc", headers=user.client.headers).status_code == 200

    def test_a_deleted_file_is_gone_for_its_links(self, local: Place) -> None:
        user = local.user()
        described = user.direct(picture(), "a.png", "image/png").json()
        download = user.describe(described["id"]).json()["download_url"]
        pending = user.announce(b"abc")
        for attachment_id in (described["id"], pending["id"]):
            user.client.call("attachments.delete", attachment_id=attachment_id)
            assert user.client.post("attachments.delete", attachment_id=attachment_id).status_code == 404
        assert [http.get(url).status_code for url in (described["preview_url"], download)] == [404, 404]
        assert user.send(pending, b"abc").status_code == 404

    def test_a_disabled_users_links_are_refused(self, local: Place) -> None:
        user = local.user()
        described = user.direct(picture(), "a.png", "image/png").json()
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


def _peak_memory(pid: int) -> int:
    """Bytes, as Linux counts them."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


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


def test_the_preview_of_a_photograph_says_nothing_of_where_it_was_taken(local: Place) -> None:
    photograph, made = Image.new("RGB", (50, 50)), io.BytesIO()
    exif = photograph.getexif()
    exif[0x010E] = "SECRET PLACE"
    photograph.save(made, "JPEG", exif=exif)
    described = local.user().direct(made.getvalue(), "a.jpg", "image/jpeg").json()
    assert b"SECRET PLACE" not in http.get(described["preview_url"]).content
