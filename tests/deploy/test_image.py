"""The checks of the images' health, which an engine runs every few seconds."""

import json
import re
import subprocess
import threading
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

from tests.support.processes import ROOT, ChatProcess, free_port


def check(dockerfile: str, port: int) -> int:
    stage = (ROOT / dockerfile).read_text().split("\nFROM ")[-1]
    command = re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.+\])$", stage, re.MULTILINE)
    assert command is not None
    words = [re.sub(r"(127\.0\.0\.1)/\d+", rf"\1/{port}", word) for word in json.loads(command[1])]
    return subprocess.run(words, capture_output=True, check=False, timeout=10).returncode


def test_it_is_well_while_the_server_is_ready(demo: ChatProcess) -> None:
    assert check("Dockerfile", demo.port) == 0
    assert check("Dockerfile", free_port()) != 0


def test_the_page_is_well_while_it_is_served(tmp_path: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *given: object) -> None:
            super().__init__(*given, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        (tmp_path / "index.html").write_text("Here.")
        assert check("examples/nextjs/Dockerfile", server.server_port) == 0
        (tmp_path / "index.html").unlink()
        tmp_path.rmdir()
        assert check("examples/nextjs/Dockerfile", server.server_port) != 0
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert check("examples/nextjs/Dockerfile", free_port()) != 0
