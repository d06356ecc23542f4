"""The files of deploy/, as far as they can be known without a cluster; with the tools that read them."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from chatkit_postgres.observability.metrics import Metrics
from chatkit_postgres.settings import Settings
from tests.support.processes import ROOT

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
SUFFIXES = r"(?:_total|_bucket|_count|_sum)?"


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def documents(path: Path) -> list[Any]:
    return list(YAML(typ="safe").load_all(path))


def manifest(name: str) -> Any:
    (document,) = documents(KUBERNETES / name)
    return document


def container(name: str) -> Any:
    (found,) = manifest(name)["spec"]["template"]["spec"]["containers"]
    return found


def names_of_metrics(text: str) -> set[str]:
    return set(re.findall(r"\bchatkit_\w+", text))


def known_metrics() -> set[str]:
    return set(re.findall(r"^# TYPE (chatkit_\w+)", Metrics().exposition().decode(), re.MULTILINE))


@pytest.mark.parametrize("path", ["prometheus/alerts.yaml", "grafana/dashboard.json", "kubernetes/scale.yaml"])
def test_every_metric_exists(path: str) -> None:
    known = known_metrics()
    used = names_of_metrics((DEPLOY / path).read_text())
    assert used
    bare = {re.sub(rf"{SUFFIXES}$", "", name) for name in known}
    assert {re.sub(rf"{SUFFIXES}$", "", name) for name in used} <= bare


def test_every_metric_of_the_operations_page_has_a_graph() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    wanted = set(re.findall(r"^\| `(chatkit_\w+)", page, re.MULTILINE)) - {
        "chatkit_clean_up_last_success_timestamp_seconds"
    }
    shown = names_of_metrics((DEPLOY / "grafana" / "dashboard.json").read_text())
    assert {re.sub(rf"{SUFFIXES}$", "", name) for name in wanted} <= {
        re.sub(rf"{SUFFIXES}$", "", name) for name in shown
    }


def test_prometheus_takes_the_alerts() -> None:
    checked = subprocess.run(
        [program("promtool"), "check", "rules", DEPLOY / "prometheus" / "alerts.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_dashboard_is_one_page_without_overlaps() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)
    assert all(panel["gridPos"]["w"] == 12 and panel["gridPos"]["h"] == 8 for panel in dashboard["panels"])


def test_kustomize_names_every_manifest() -> None:
    listed = set(manifest("kustomization.yaml")["resources"])
    assert listed == {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}


def test_every_setting_of_the_manifests_exists() -> None:
    literals = manifest("kustomization.yaml")["configMapGenerator"][0]["literals"]
    fields = {f"CHAT_{name}".upper() for name in Settings.model_fields}
    assert {literal.partition("=")[0] for literal in literals} <= fields


def test_what_belongs_together_has_the_same_labels() -> None:
    labels = {"app.kubernetes.io/name": "chat"}
    deployment = manifest("deployment.yaml")["spec"]
    assert deployment["selector"]["matchLabels"] == labels
    assert deployment["template"]["metadata"]["labels"] == labels
    assert manifest("service.yaml")["spec"]["selector"] == labels
    assert manifest("disruption.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("network.yaml")["spec"]["podSelector"]["matchLabels"] == labels
    assert manifest("scale.yaml")["spec"]["scaleTargetRef"]["name"] == manifest("deployment.yaml")["metadata"]["name"]
    # Or traffic would reach the job.
    job = manifest("migrate.yaml")["spec"]["template"]["metadata"]["labels"]
    assert job != labels


@pytest.mark.parametrize("name", ["deployment.yaml", "migrate.yaml"])
def test_a_pod_can_do_little(name: str) -> None:
    pod = manifest(name)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["automountServiceAccountToken"] is False
    own = container(name)["securityContext"]
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_pod_that_stops_has_time_for_its_answers() -> None:
    drain = Settings.model_fields["drain_seconds"].default
    before = int(container("deployment.yaml")["lifecycle"]["preStop"]["exec"]["command"][1])
    grace = manifest("deployment.yaml")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > drain + before + 10
    unit = (DEPLOY / "systemd" / "chatkit-postgres@.service").read_text()
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) > drain + 10


def test_the_probes_ask_the_routes_that_are_there() -> None:
    server = container("deployment.yaml")
    assert server["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert server["livenessProbe"]["httpGet"]["path"] == server["startupProbe"]["httpGet"]["path"] == "/health/live"
    patience = server["livenessProbe"]["periodSeconds"] * server["livenessProbe"]["failureThreshold"]
    assert patience >= 120, "a process with a thousand answers to begin is slow, and must not be killed for that"


def test_the_autoscaler_acts_before_a_process_is_full() -> None:
    (metric,) = manifest("scale.yaml")["spec"]["metrics"]
    assert int(metric["pods"]["target"]["averageValue"]) <= Settings.model_fields["max_turns"].default / 2


def test_systemd_takes_the_unit_and_finds_it_hardened() -> None:
    analyze = program("systemd-analyze")
    unit = DEPLOY / "systemd" / "chatkit-postgres@.service"
    verified = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    # The program is not installed here.
    told = [line for line in verified.stderr.splitlines() if line and "is not executable" not in line]
    assert told == []
    rated = subprocess.run(
        [analyze, "security", "--offline=true", unit], capture_output=True, text=True, check=False
    ).stdout
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", rated)
    assert exposure is not None
    assert float(exposure[1]) < 2
