"""The manifests of deploy/kubernetes by the schemas of Kubernetes, of an old and a new version."""

import subprocess
from pathlib import Path

import pytest

from tests.support.processes import ROOT

MANIFESTS = sorted(
    path for path in (ROOT / "deploy" / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml"
)


@pytest.fixture(scope="module")
def validate(pytestconfig: pytest.Config) -> Path:
    return Path(pytestconfig.getoption("--field")).absolute() / "kubernetes" / "bin" / "kubernetes-validate"


def _errors(validate: Path, version: str, *files: Path) -> str:
    checked = subprocess.run(
        [validate, "--strict", "--kubernetes-version", version, *files], capture_output=True, text=True, check=False
    )
    return "" if checked.returncode == 0 else checked.stdout + checked.stderr


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_kubernetes_takes_every_manifest(validate: Path, version: str) -> None:
    assert len(MANIFESTS) == 6
    assert _errors(validate, version, *MANIFESTS) == ""


def test_a_misspelt_field_would_be_noticed(validate: Path, tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "kubernetes" / "disruption.yaml").read_text()
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text.replace("maxUnavailable", "maxUnavailabl"))
    assert "maxUnavailabl" in _errors(validate, "1.37", wrong)
