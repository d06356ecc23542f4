"""Two ways in, and what comes out again, for both storages."""

import hashlib

import pytest

from tests.attachments.conftest import Place
from tests.conftest import query
from tests.support.files import docx, image_bytes, objects_in, pdf
from tests.support.processes import http, message

KINDS = {
    "text/plain": ("a.txt", b"Hello."),
    "text/markdown": ("a.md", "# Grüße\n\n- one".encode()),
    "text/csv": ("a.csv", b"a,b\n1,2\n"),
    "application/json": ("a.json", b'{"a": 1}'),
    "application/pdf": ("a.pdf", pdf("Hello")),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ("a.docx", docx("Hello")),
    "image/png": ("a.png", image_bytes("PNG")),
    "image/jpeg": ("a.jpg", image_bytes("JPEG")),
    "image/gif": ("a.gif", image_bytes("GIF")),
    "image/webp": ("a.webp", image_bytes("WEBP")),
}


@pytest.mark.parametrize("how", ["form", "PUT", "POST"])
def test_a_file_is_announced_and_uploaded_without_a_token(place: Place, how: str) -> None:
    user, data = place.user(), b"x" * 100_000
    described = user.announce(data, "notes.txt")
    assert described["upload_descriptor"]["method"] == "POST"
    known = {name: described[name] for name in ("id", "name", "type", "mime_type")}
    assert user.describe(described["id"]).json() == known
    uploaded = user.send(described, data, how)
    assert uploaded.status_code == 200
    assert uploaded.json() == known
    assert user.content(described["id"]).content == data
    (row,) = query(place.database, f"SELECT * FROM chat_attachments WHERE attachment_id = '{described['id']}'")
    assert (row["state"], row["stored_bytes"]) == ("ready", len(data))
    assert row["sha256"] == hashlib.sha256(data).hexdigest()
    assert any(row["sha256"] in name for name in objects_in(place.files))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_that_is_taken_comes_back_as_it_went(place: Place, kind: str) -> None:
    user, (name, data) = place.user(), KINDS[kind]
    direct = user.direct(data, name, kind)
    assert direct.status_code == 200, direct.text
    described = direct.json()
    assert (described["name"], described["mime_type"]) == (name, kind)
    assert described["type"] == ("image" if kind.startswith("image/") else "file")
    got = user.content(described["id"])
    assert got.content == data
    assert got.headers["content-type"].partition(";")[0] == kind
    assert got.headers["content-disposition"].startswith("inline" if kind.startswith("image/") else "attachment")
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'; sandbox" in got.headers["content-security-policy"]
    assert "metadata" not in described


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_preview_is_small_and_can_be_shown_by_any_page(place: Place, kind: str) -> None:
    user = place.user()
    described = user.direct(image_bytes(kind, (3000, 2000)), f"a.{kind.lower()}", f"image/{kind.lower()}").json()
    got = http.get(described["preview_url"], headers={"Origin": "https://a-frame.example"})
    assert got.status_code == 200
    assert got.headers["content-type"] == "image/jpeg"
    assert got.headers["cross-origin-resource-policy"] == "cross-origin"
    assert got.headers["access-control-allow-origin"] == "*"
    assert len(got.content) < 60_000


def test_a_transparent_picture_stays_transparent(place: Place) -> None:
    user = place.user()
    described = user.direct(image_bytes("PNG", mode="RGBA"), "a.png", "image/png").json()
    assert http.get(described["preview_url"]).headers["content-type"] == "image/png"


def test_a_frame_of_another_origin_may_upload(place: Place) -> None:
    user = place.user()
    url = user.announce(b"abc")["upload_descriptor"]["url"]
    frame = {"Origin": "https://a-frame.example"}
    asked = frame | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-any"}
    preflight = http.options(url, headers=asked)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, "*")
    assert "access-control-allow-credentials" not in preflight.headers
    uploaded = http.post(url, content=b"abc", headers=frame)
    assert (uploaded.status_code, uploaded.headers["access-control-allow-origin"]) == (200, "*")
    # Nothing else is open to it.
    refused = http.options(f"{user.base_url}/api/attachments", headers=asked)
    assert "access-control-allow-origin" not in refused.headers


def test_a_link_is_good_once(place: Place) -> None:
    user = place.user()
    described = user.announce(b"abc")
    assert user.send(described, b"abc").status_code == 200
    for data in (b"abc", b"xyz"):
        again = user.send(described, data)
        assert (again.status_code, again.json()["code"]) == (409, "already_uploaded")
    assert user.content(described["id"]).content == b"abc"


def test_an_upload_that_broke_off_can_be_made_again(place: Place) -> None:
    user = place.user()
    described = user.announce(b"abcdef")
    assert user.send(described, b"abc").status_code == 422
    assert user.describe(described["id"]).json().get("download_url") is None
    assert user.send(described, b"abcdef").status_code == 200


def test_links_in_items_are_renewed_whenever_they_are_read(place: Place) -> None:
    user = place.user()
    attachment_id = user.ready(image_bytes(), "a.png", "image/png")
    events = user.client.events("threads.create", input=message("Look") | {"attachments": [attachment_id]})
    thread_id = next(event["thread"]["id"] for event in events if event["type"] == "thread.created")
    stored = query(place.database, f"SELECT item FROM chat_messages WHERE item::text LIKE '%{attachment_id}%'")
    assert f'"preview_url": "attachment://{attachment_id}"' in str(stored[0]["item"])
    streamed = next(event["item"] for event in events if event["type"] == "thread.item.done")
    shown = [streamed, user.client.items(thread_id)[0]]
    shown.append(user.client.call("threads.get_by_id", thread_id=thread_id)["items"]["data"][0])
    for item in shown:
        (attachment,) = item["attachments"]
        assert attachment["thread_id"] == thread_id
        assert "metadata" not in attachment
        assert http.get(attachment["preview_url"]).status_code == 200


def test_contents_may_be_fetched_from_the_bucket_itself(
    place: Place, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    from tests.attachments.conftest import started  # noqa: PLC0415 - a server for this test alone

    bucket = request.getfixturevalue("s3_server") if "bucket" in str(place.files) else None
    own = {"CHAT_DIRECT_DOWNLOADS": "true"}
    made = started(tmp_path_factory.mktemp("direct"), place.database, place.model, bucket, **own)
    try:
        user = made.user()
        attachment_id = user.ready(b"<script>", "späße.txt")
        got = http.get(user.describe(attachment_id).json()["download_url"], follow_redirects=True)
        assert got.content == b"<script>"
        assert got.headers["content-disposition"] == "attachment; filename*=UTF-8''sp%C3%A4%C3%9Fe.txt"
        assert bool(got.history) == (bucket is not None)
        if got.history:
            assert got.history[0].headers["location"].startswith("http://127.0.0.1:")
            assert "X-Amz-Signature" in got.history[0].headers["location"]
    finally:
        made.process.stop()
