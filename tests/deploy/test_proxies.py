"""nginx and Caddy in front of a server, with the files of deploy/: streams, limits, and what nobody is to see."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chatkit_postgres.settings import Settings
from tests.support.processes import ROOT, ChatProcess, free_port, message

DEPLOY = ROOT / "deploy"
STATIC = ROOT / "chatkit_postgres" / "pages" / "static"
PATIENCE = 20


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install nginx-light caddy")
    return found


@contextmanager
def _running(command: list[str], port: int, log: Path, **environment: str) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment or None)
        try:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                assert process.poll() is None, log.read_text()
                with closing(socket.socket()) as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _certificate(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "chat.example.com")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (directory / "chat.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "chat.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@contextmanager
def _nginx(directory: Path, server: ChatProcess) -> Iterator[str]:
    port = free_port()
    _certificate(directory)
    ours = (DEPLOY / "nginx" / "chatkit.conf").read_text()
    ours = ours.replace("server 127.0.0.1:8000;", f"server 127.0.0.1:{server.port};")
    ours = ours.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    ours = re.sub(r"/etc/ssl/chat\.example\.com\.(crt|key)", rf"{directory}/chat.\1", ours)
    temporary = " ".join(
        f"{kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"daemon off; pid {directory}/nginx.pid; error_log stderr; events {{}}"
        f" http {{ access_log off; {temporary} {ours} }}"
    )
    command = [_program("nginx"), "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", "stderr"]
    with _running(command, port, directory / "nginx.log"):
        yield f"https://127.0.0.1:{port}"


@contextmanager
def _caddy(directory: Path, server: ChatProcess) -> Iterator[str]:
    port = free_port()
    ours = (DEPLOY / "caddy" / "Caddyfile").read_text()
    # A name that is ours gets a certificate from the network.
    ours = ours.replace("chat.example.com {", f"http://127.0.0.1:{port} {{")
    ours = ours.replace("reverse_proxy 127.0.0.1:8000", f"reverse_proxy 127.0.0.1:{server.port}")
    (directory / "Caddyfile").write_text("{\n\tadmin off\n}\n" + ours)
    command = [_program("caddy"), "run", "--config", str(directory / "Caddyfile"), "--adapter", "caddyfile"]
    with _running(command, port, directory / "caddy.log", HOME=str(directory), XDG_DATA_HOME=str(directory)):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module", params=[_nginx, _caddy], ids=["nginx", "caddy"])
def proxied(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, demo: ChatProcess
) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("proxy")
    directory.chmod(0o755)
    with request.param(directory, demo) as url:
        yield url


def _client(url: str, token: str | None = None) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    # Its certificate is signed by nobody.
    return httpx2.Client(base_url=url, headers=headers, verify=False, timeout=PATIENCE)


@pytest.fixture
def token(demo: ChatProcess) -> str:
    with httpx2.Client() as client:
        return str(client.post(f"{demo.base_url}/dev/token", json={"user": "behind"}).json()["token"])


def test_events_arrive_one_by_one(proxied: str, token: str) -> None:
    asked = {"type": "threads.create", "params": {"input": message("Tell me a long story")}}
    with _client(proxied, token) as client, client.stream("POST", "/api/chatkit", json=asked) as response:
        assert response.status_code == 200
        arrived = [time.monotonic() for line in response.iter_lines() if line.startswith("data:")]
    assert len(arrived) > 10
    assert len({round(at, 2) for at in arrived}) > 3, "buffered: all events came at once"


def test_metrics_are_for_nobody_outside(proxied: str, token: str) -> None:
    with _client(proxied, token) as client:
        assert client.get("/metrics").status_code == 404
        assert client.get("/health/live").status_code == 200


def test_a_file_that_is_too_large_is_refused_at_the_door(proxied: str, token: str) -> None:
    size = Settings.model_fields["max_attachment_bytes"].default + 2 * 1024 * 1024
    with _client(proxied, token) as client:
        response = client.post("/api/attachments", files={"file": ("large.bin", b"x" * size, "application/pdf")})
    # Caddy says 502 if the server has refused the size before it did.
    assert response.status_code in ({413} if proxied.startswith("https") else {413, 502})


@pytest.mark.parametrize("proxied", [_nginx], ids=["nginx"], indirect=True)
def test_nginx_lets_few_through_without_a_token(proxied: str, token: str) -> None:
    with _client(proxied) as nobody, _client(proxied, token) as somebody:
        codes = [
            nobody.post("/api/chatkit", json={"type": "threads.list", "params": {}}).status_code for _ in range(40)
        ]
        assert codes.count(401) >= 20
        assert 429 in codes
        asked = [somebody.post("/api/chatkit", json={"type": "threads.list", "params": {}}) for _ in range(40)]
        assert {response.status_code for response in asked} == {200}


@pytest.mark.parametrize("proxied", [_nginx], ids=["nginx"], indirect=True)
def test_nginx_counts_nothing_that_comes_without_a_token_for_a_reason(proxied: str) -> None:
    files = [path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*.js")]
    asks = {"Origin": "https://shop.example.com", "Access-Control-Request-Method": "POST"}
    with _client(proxied) as nobody:
        pages = [nobody.get(f"/playground/{name}").status_code for name in files]
        preflights = [nobody.options("/api/chatkit", headers=asks).status_code for _ in range(40)]
        signed = [nobody.get("/api/attachments/atc_1/content?key=old").status_code for _ in range(40)]
        cookies = [nobody.get("/api/usage", headers={"Cookie": "session=old"}).status_code for _ in range(40)]
    assert len(pages) > 25
    assert set(pages) == {200}
    assert 429 not in {*preflights, *signed, *cookies}
