"""The stack of `docker compose up`, as far as it can be known without an engine."""

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from chatkit_postgres.settings import Settings
from tests.support.processes import ROOT

STACK: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
IMAGES = {"api": ROOT / "Dockerfile", "web": ROOT / "examples" / "nextjs" / "Dockerfile"}


def test_each_part_waits_for_what_it_needs() -> None:
    cluster = {name for name, service in STACK.items() if service.get("profiles") == ["citus"]}
    assert set(STACK) - cluster == {"postgres", "backup", "secret", "migrate", "api", "web"}
    assert STACK["backup"]["profiles"] == ["backup"]
    assert cluster == {"citus", "citus-worker-1", "citus-worker-2", "citus-nodes"}
    waits = {
        (name, other): how["condition"]
        for name, service in STACK.items()
        for other, how in service.get("depends_on", {}).items()
        if not {name, other} & cluster
    }
    assert waits == {
        ("backup", "postgres"): "service_healthy",
        ("migrate", "postgres"): "service_healthy",
        ("api", "migrate"): "service_completed_successfully",
        ("api", "secret"): "service_completed_successfully",
        ("web", "api"): "service_healthy",
    }
    assert "healthcheck" in STACK["postgres"]


def test_a_cluster_is_ready_before_its_tables_are_made_and_distributed_before_they_are_used() -> None:
    nodes = {"citus", "citus-worker-1", "citus-worker-2"}
    assert set(STACK["citus-nodes"]["depends_on"]) == nodes
    added = " ".join(STACK["citus-nodes"]["command"])
    assert all(f"citus_add_node('{name}', 5432)" in added for name in nodes - {"citus"})
    assert len({volume for name in nodes for volume in STACK[name]["volumes"]}) == len(nodes)
    # Without the profile, nobody waits for it.
    after = STACK["migrate"]["depends_on"]["citus-nodes"]
    assert after == {"condition": "service_completed_successfully", "required": False}
    # A service that is not required may also fail: so the tables are distributed by the one that the server waits for.
    assert "chatkit-postgres migrate && {" in STACK["migrate"]["command"][-1]
    assert "citus || chatkit-postgres distribute; }" in STACK["migrate"]["command"][-1]
    assert "--host 127.0.0.1" in STACK["citus"]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", IMAGES)
def test_what_faces_the_network_can_do_little(name: str) -> None:
    service, image = STACK[name], IMAGES[name].read_text()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    stages = image.split("\nFROM ")
    assert len(stages) == 3, "one stage that builds, one that runs"
    assert re.search(r"^FROM \S+-slim", image, re.MULTILINE)
    assert "\nUSER 10001\n" in stages[-1]
    assert "\nHEALTHCHECK " in stages[-1]
    # What built it stays behind.
    assert not re.search(r"pip install|npm ci", stages[-1])


def test_what_a_dotenv_file_says_for_make_run_leads_no_container_astray() -> None:
    api = STACK["api"]
    (directory,) = {volume.split(":")[1] for volume in api["volumes"] if volume.startswith("data:")}
    # What stands here wins over the file.
    assert api["environment"]["CHAT_DATA_DIR"] == directory
    assert {"DATABASE_URL", "CHAT_JWT_SECRET_FILE", "CHAT_PUBLIC_URL"} <= set(api["environment"])
    assert api["extra_hosts"] == ["host.docker.internal:host-gateway"]


@pytest.mark.parametrize("name", ["secret", "migrate"])
def test_what_runs_once_can_do_what_it_is_for(name: str) -> None:
    service = STACK[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("cap_add", []) == (["CHOWN", "DAC_OVERRIDE"] if name == "secret" else [])
    assert (service.get("network_mode") == "none") is (name == "secret")


def test_a_backup_is_whole_or_not_there(tmp_path: Path) -> None:
    script = STACK["backup"]["command"][-1].replace("$$", "$").replace("/backups", str(tmp_path))
    script = script.replace("sleep 86400", "exit")
    old = tmp_path / "chat-2020-01-01.dump"
    old.touch()
    os.utime(old, (0, 0))
    programs = tmp_path / "programs"
    programs.mkdir()
    dump = programs / "pg_dump"
    for ends, names in ((1, 0), (0, 1)):
        dump.write_text(f'#!/bin/sh\nfor last; do :; done\necho dump > "${{last#--file=}}"\nexit {ends}\n')
        dump.chmod(0o755)
        subprocess.run(["/bin/sh", "-c", script], env={"PATH": f"{programs}:/usr/bin:/bin"}, check=True)
        assert len(list(tmp_path.glob("chat-*.dump"))) == names
    assert not old.exists()


@pytest.mark.parametrize("name", ["postgres", "api", "web", "backup"])
def test_what_runs_on_has_a_limit(name: str) -> None:
    assert re.fullmatch(r"\d+[mg]", STACK[name]["mem_limit"])


@pytest.mark.parametrize("name", IMAGES)
def test_what_stops_is_given_longer_than_the_drain(name: str) -> None:
    grace = re.fullmatch(r"\$\{STOP_GRACE_PERIOD:-(\d+)s\}", STACK[name]["stop_grace_period"])
    assert grace is not None
    assert int(grace[1]) > Settings.model_fields["drain_seconds"].default


def test_both_sides_share_one_secret() -> None:
    for name in IMAGES:
        assert STACK[name]["environment"]["CHAT_JWT_SECRET"] == "${CHAT_JWT_SECRET:-}"
        assert STACK[name]["environment"]["CHAT_JWT_SECRET_FILE"] == "${CHAT_JWT_SECRET_FILE-/secrets/jwt}"
        assert "secrets:/secrets:ro" in STACK[name]["volumes"]
    published = STACK["web"]["ports"][0].split(":")[1]
    assert f"localhost:{published}" in STACK["api"]["environment"]["CHAT_PUBLIC_URL"]


@pytest.mark.parametrize("name", ["secret", "migrate", "api"])
def test_one_image_of_this_version_is_built_and_none_is_fetched(name: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert STACK[name]["image"] == f"chatkit-postgres:{version}"
    assert STACK[name]["build"] == "."


def test_a_folder_of_agents_is_found_where_it_is_mounted() -> None:
    (mount,) = [volume for volume in STACK["api"]["volumes"] if volume.startswith("${CHAT_AGENTS_DIR")]
    assert mount == "${CHAT_AGENTS_DIR:-./app}:/agents:ro"
    assert "ENV PYTHONPATH=/agents\n" in IMAGES["api"].read_text()


def test_the_key_of_the_domain_reaches_the_build_of_the_page() -> None:
    arguments = STACK["web"]["build"]["args"]
    for name in arguments:
        assert f"ARG {name}" in IMAGES["web"].read_text()
        assert f"process.env.{name}" in (ROOT / "examples/nextjs/app/chat.tsx").read_text()


def test_the_examples_are_in_the_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {"!examples/*.py", "!examples/handbook_pages", "!app", "!chatkit_postgres", "!migrations"} <= set(ignored)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", IMAGES["api"].read_text(), re.MULTILINE)
    assert {"app", "chatkit_postgres", "migrations", "examples"} <= set(copied)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists()
