"""Starts an S3 server, makes files of every type, and uploads them."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx2
from PIL import Image

from tests.support.processes import ChatClient, clean_environment, free_port, http

START_SECONDS = 20


class S3Server:
    """Runs ``rclone serve s3``, which verifies signatures; a bucket is a directory."""

    key = "test-key"
    secret = "test-secret-of-some-length"

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.bucket = directory / "bucket"
        self.bucket.mkdir(parents=True, exist_ok=True)
        rclone = Path(sys.executable).with_name("rclone")
        arguments = ["serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{self.key},{self.secret}"]
        self._log = (directory / "rclone.log").open("ab")
        self._process = subprocess.Popen(
            [rclone, *arguments, "--config", directory / "none", directory],
            env=clean_environment(),
            stdout=self._log,
            stderr=self._log,
        )

    def wait_until_ready(self) -> Self:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                http.get(self.url)
            except httpx2.TransportError:
                assert time.monotonic() < deadline, "the S3 server did not start"
                assert self._process.poll() is None, (self.directory / "rclone.log").read_text()
                time.sleep(0.05)
            else:
                return self

    def settings(self) -> dict[str, str]:
        return {
            "CHAT_STORAGE_URL": "s3://bucket/some/prefix",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


def objects_in(place: Path) -> set[str]:
    """The names of all files in a directory, which may be that of a bucket."""
    # The server makes and removes directories at the same time; os.walk ignores those that are gone.
    return {str((Path(way) / name).relative_to(place)) for way, _, names in os.walk(place) for name in names}


def image_bytes(kind: str = "PNG", size: tuple[int, int] = (60, 40), *, mode: str = "RGB") -> bytes:
    made = io.BytesIO()
    color = (200, 30, 30) if mode == "RGB" else (200, 30, 30, 128)
    Image.new(mode, size, color).save(made, kind)
    return made.getvalue()


def pdf(text: str) -> bytes:
    """A PDF of one page with the text."""
    stream = f"BT /F1 24 Tf 20 100 Td ({text}) Tj ET".encode()
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 400 200]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(body))
        body += b"%d 0 obj%s endobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    count = len(parts) + 1
    return body + b"xref\n0 %d\n0000000000 65535 f \n%strailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (
        *(count, table, count),
        len(body),
    )


def docx(text: str) -> bytes:
    """A ZIP archive that begins like a Word document."""
    import zipfile  # noqa: PLC0415 - used here alone

    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", f"<document>{text}</document>")
    return made.getvalue()


class Uploader:
    """Uploads files as one user."""

    def __init__(self, client: ChatClient) -> None:
        self.client = client
        self.base_url = client.url.removesuffix("/api/chatkit")

    def announce(self, data: bytes, name: str = "a.txt", kind: str = "text/plain", size: int | None = None) -> Any:
        size = len(data) if size is None else size
        return self.client.post("attachments.create", name=name, size=size, mime_type=kind).json()

    def send(self, described: dict[str, Any], data: bytes, how: str = "PUT") -> httpx2.Response:
        """Uploads to the signed URL, without a cookie or a token."""
        url = described["upload_descriptor"]["url"]
        if how == "form":
            return http.post(url, files={"file": ("ignored.exe", data, "application/x-ignored")})
        return http.request(how, url, content=data)

    def direct(self, data: bytes, name: str = "a.txt", kind: str = "text/plain") -> httpx2.Response:
        url = f"{self.base_url}/api/attachments"
        return http.post(url, files={"file": (name, data, kind)}, headers=self.client.headers)

    def ready(self, data: bytes = b"Hello.", name: str = "a.txt", kind: str = "text/plain") -> str:
        """Uploads a file; returns its id."""
        described = self.announce(data, name, kind)
        response = self.send(described, data)
        assert response.status_code == 200, response.text
        return str(described["id"])

    def describe(self, attachment_id: str) -> httpx2.Response:
        return http.get(f"{self.base_url}/api/attachments/{attachment_id}", headers=self.client.headers)

    def content(self, attachment_id: str) -> httpx2.Response:
        return http.get(self.describe(attachment_id).json()["download_url"])


def peak_memory(pid: int) -> int:
    """The peak resident memory of a process in bytes, as Linux counts it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
