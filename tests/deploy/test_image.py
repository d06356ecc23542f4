"""The check of the image's health, which an engine runs every few seconds."""

import json
import re
import subprocess

from tests.support.processes import ROOT, ChatProcess, free_port


def check(port: int) -> int:
    stage = (ROOT / "Dockerfile").read_text().split("\nFROM ")[-1]
    command = re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.+\])$", stage, re.MULTILINE)
    assert command is not None
    words = [word.replace("/8000", f"/{port}") for word in json.loads(command[1])]
    return subprocess.run(words, capture_output=True, check=False, timeout=10).returncode


def test_it_is_well_while_the_server_is_ready(demo: ChatProcess) -> None:
    assert check(demo.port) == 0
    assert check(free_port()) != 0
