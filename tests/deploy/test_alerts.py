"""What Prometheus makes of the alerts, by its own tool, with series as a server has them from its first scrape."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.deploy.test_files import DEPLOY, program
from tests.support.processes import ChatProcess, http

RULES = DEPLOY / "prometheus" / "alerts.yaml"
TURNS = 'chatkit_turns_total{operation="threads.create",state="interrupted"}'
REFUSED = 'chatkit_turns_refused_total{code="server_full"}'
STORAGE = 'chatkit_storage_failures_total{operation="put"}'
UPLOADS = 'chatkit_uploads_total{outcome="storage_unavailable"}'
AVAILABLE = 'chatkit_database_available{instance="a"}'
SERVER = 'chatkit_server_info{instance="%s",settings="%s",version="1"}'
USED, POOL = "chatkit_database_connections_in_use", "chatkit_database_pool_size"


def fires(tmp_path: Path, alert: str, series: dict[str, str], at: str) -> bool:
    """Whether it fires at a time after the first scrape, of series that are scraped every 15 seconds."""
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": []}],
    }
    path = tmp_path / "tests.yaml"
    path.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": [test]}))
    checked = subprocess.run([program("promtool"), "test", "rules", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0 or "got:" in checked.stdout + checked.stderr, checked.stderr
    return checked.returncode != 0


@pytest.mark.parametrize(
    ("alert", "calm", "alarming"),
    [
        ("ChatTurnsInterrupted", {TURNS: "0x60"}, {TURNS: "0x20 1x40"}),
        ("ChatServerFull", {REFUSED: "0x60"}, {REFUSED: "0x20 1+1x40"}),
        ("ChatStorageFails", {STORAGE: "0x60", UPLOADS: "0x60"}, {STORAGE: "0x20 1x40", UPLOADS: "0x60"}),
        ("ChatStorageFails", {STORAGE: "0x60", UPLOADS: "0x60"}, {STORAGE: "0x60", UPLOADS: "0x20 1x40"}),
        ("ChatDatabaseDown", {AVAILABLE: "1x20 0x2 1x40"}, {AVAILABLE: "1x20 0x40"}),
        ("ChatConnectionsUsedUp", {USED: "10x60", POOL: "20x60"}, {USED: "20x60", POOL: "20x60"}),
    ],
)
def test_an_alert_fires_for_the_first_event_of_a_process_and_for_nothing_else(
    tmp_path: Path, alert: str, calm: dict[str, str], alarming: dict[str, str]
) -> None:
    assert not fires(tmp_path, alert, calm, "8m")
    assert fires(tmp_path, alert, alarming, "8m")


def test_different_settings_are_noticed_when_no_deployment_takes_so_long(tmp_path: Path) -> None:
    first, same, other = SERVER % ("a", "x"), SERVER % ("b", "x"), SERVER % ("b", "y")
    alert = "ChatSettingsDiffer"
    assert not fires(tmp_path, alert, {first: "1x400", same: "1x400"}, "90m")
    assert not fires(tmp_path, alert, {first: "1x40 _x360", same: "1x60 _x340", other: "_x60 1x340"}, "90m")
    assert not fires(tmp_path, alert, {first: "1x400", other: "1x400"}, "10m")
    assert fires(tmp_path, alert, {first: "1x400", other: "1x400"}, "90m")
    # Of another service, which the same Prometheus scrapes.
    elsewhere = other.replace("{", '{job="staging",')
    assert not fires(tmp_path, alert, {first: "1x400", elsewhere: "1x400"}, "90m")


def test_a_server_has_these_series_before_anything_has_happened(demo: ChatProcess) -> None:
    lines = {line.rpartition(" ")[0] for line in http.get(f"{demo.base_url}/metrics").text.splitlines()}
    assert {TURNS, REFUSED, STORAGE, UPLOADS, "chatkit_database_available", USED, POOL} <= lines
