"""Checks of the Dockerfile and the Compose file, without a container engine."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from core.metrics import VERSION
from core.settings import Settings
from tests.conftest import ROOT, needs


def test_the_dockerfile_passes_hadolint_and_does_not_run_as_root():
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists() and shutil.which("hadolint") is None:
        pytest.skip("hadolint has no wheel for this platform")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (ROOT / "Dockerfile").read_text()
    assert text.count("\nFROM ") + text.startswith("FROM ") == 2
    assert "\nUSER 10001\n" in text
    assert re.search(r"^ARG BASE=[a-z0-9:.-]+@sha256:[0-9a-f]{64}$", text, re.M), "the base is not fixed by its digest"


# -- Docker Compose ---------------------------------------------------------------------------------------------------------------


def _services():
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def test_compose_uses_settings_and_commands_that_exist():
    known = {f"WHYFLAG_{name.upper()}" for name in Settings.__struct_fields__}
    services = _services()
    ours = {name: service for name, service in services.items() if service["image"].startswith("whyflag-")}
    assert {"score", "explain", "archive", "console", "topics", "bundle", "traffic"} <= ours.keys()
    for name, service in ours.items():
        assert service.get("environment", {}).keys() <= known, name
        if "command" in service:
            words = [word for word in service["command"] if not word.startswith("-")]
            options = [word.split("=")[0] for word in service["command"] if word.startswith("-")]
            done = subprocess.run([sys.executable, "-m", "cli.main", *words, "--help"], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert all(option in done.stdout for option in options), name
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), f"{name} is open to the network"
        assert ":" in service["image"] or service["image"].startswith("whyflag-"), f"{name} has no version"
    for service in services.values():
        for source in (volume.split(":")[0] for volume in service.get("volumes", []) if volume.startswith("./")):
            assert (ROOT / source).exists(), f"{source} is not there"
    targets = yaml.safe_load((ROOT / "compose" / "prometheus.yaml").read_text())["scrape_configs"][0]["static_configs"][0]
    assert {target.split(":")[0] for target in targets["targets"]} <= services.keys()


@pytest.mark.system
def test_docker_compose_accepts_the_file():
    done = subprocess.run(
        [needs("docker-compose"), "-f", ROOT / "compose.yaml", "config"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"].keys() == _services().keys()


def test_dockerfile_overlays_and_guide_name_the_present_version():
    assert f"ARG PROGRAM VERSION={VERSION} " in (ROOT / "Dockerfile").read_text()
    for path in ("k8s/overlays/prod/kustomization.yaml", "docs/deploy/index.md"):
        tags = re.findall(r"newTag: ([\w.]+)|registry\.example\.org/whyflag-\S+:([\w.]+)", (ROOT / path).read_text())
        assert {one or other for one, other in tags} == {VERSION}, path
