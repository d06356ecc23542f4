"""What somebody may try with what is in a file: it is what its bytes say, and nothing in it runs."""

import io
import struct
import time
import zlib

import pytest
from PIL import Image

from tests.attachments.conftest import Place
from tests.support.files import image_bytes, objects_in, pdf, peak_memory
from tests.support.processes import http

HTML = b"<!DOCTYPE html><html><script>alert(1)</script></html>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
GIF_AND_SCRIPT = image_bytes("GIF") + b"/*<script>alert(1)</script>*/"


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
            (image_bytes(), "application/pdf"),
            (image_bytes(), "text/plain"),
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
        described = local.user().direct(image_bytes("JPEG"), "screenshot.png", "image/png").json()
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
        assert local.user().direct(image_bytes(size=(1000, 1000)), "a.png", "image/png").status_code == 200

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16", "RGBA"])
    def test_a_picture_of_any_depth_is_taken(self, local: Place, mode: str) -> None:
        made = io.BytesIO()
        Image.new(mode, (900, 900)).save(made, "PNG")
        assert local.user().direct(made.getvalue(), "a.png", "image/png").status_code == 200

    def test_a_picture_that_wants_too_much_memory_costs_the_server_none(self, local: Place) -> None:
        made = io.BytesIO()
        Image.new("RGBA", (1000, 1000)).save(made, "WEBP", lossless=True)
        pid = local.process.process.pid
        before = peak_memory(pid)
        assert local.user().direct(made.getvalue(), "a.webp", "image/webp").status_code == 200
        assert peak_memory(pid) - before < 4 * 1000 * 1000

    def test_a_broken_picture_is_refused(self, local: Place) -> None:
        data = image_bytes(size=(500, 500))
        assert local.user().direct(data[: len(data) // 2], "a.png", "image/png").json()["code"] == "file_refused"

    def test_a_pdf_that_cannot_be_read_is_kept_without_its_text(self, local: Place) -> None:
        user = local.user()
        for data in (b"%PDF-1.4\nnothing", pdf("x")[:-200]):
            assert user.content(user.ready(data, "a.pdf", "application/pdf")).content == data


def test_the_preview_of_a_photograph_says_nothing_of_where_it_was_taken(local: Place) -> None:
    photograph, made = Image.new("RGB", (50, 50)), io.BytesIO()
    exif = photograph.getexif()
    exif[0x010E] = "SECRET PLACE"
    photograph.save(made, "JPEG", exif=exif)
    described = local.user().direct(made.getvalue(), "a.jpg", "image/jpeg").json()
    assert b"SECRET PLACE" not in http.get(described["preview_url"]).content
