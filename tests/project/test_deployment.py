"""Checks of the Dockerfile, Kubernetes manifests and Compose file, without a container engine or a cluster."""

import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from core.settings import Settings
from tests.conftest import ROOT, needs

BASE = ROOT / "k8s" / "base"


def _documents():
    return [
        d
        for path in sorted([*BASE.glob("*.yaml"), *(ROOT / "k8s" / "components").glob("*/*.yaml")])
        if path.name != "kustomization.yaml"
        for d in yaml.safe_load_all(path.read_text())
    ]


def _deployments(documents):
    return [document for document in documents if document["kind"] == "Deployment"]


def test_the_dockerfile_passes_hadolint_and_does_not_run_as_root():
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists() and shutil.which("hadolint") is None:
        pytest.skip("hadolint has no wheel for this platform")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (ROOT / "Dockerfile").read_text()
    assert text.count("\nFROM ") + text.startswith("FROM ") == 2
    assert "\nUSER 10001\n" in text


@pytest.mark.parametrize("document", _documents(), ids=lambda d: f"{d['kind']}-{d['metadata']['name']}")
def test_every_manifest_is_valid(document):
    kubernetes_validate.validate(document, "1.31", strict=True)


def test_every_workload_has_a_restricted_context_probes_and_resource_limits():
    deployments = _deployments(_documents())
    assert {d["metadata"]["name"] for d in deployments} == {
        "whyflag-score",
        "whyflag-explain",
        "whyflag-archive",
        "whyflag-console",
    }
    known = {f"WHYFLAG_{name.upper()}" for name in Settings.__struct_fields__}
    for deployment in deployments:
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["enableServiceLinks"] is False  # they would set WHYFLAG_CONSOLE_PORT=tcp://..., an invalid setting
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness")} == {"/live"}
        assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert {variable["name"] for variable in container["env"]} <= known


@pytest.mark.parametrize("component", ["score", "explain", "archive", "console"])
def test_container_arguments_are_valid_whyflag_commands(component):
    (deployment,) = (d for d in _deployments(_documents()) if d["metadata"]["name"] == f"whyflag-{component}")
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    done = subprocess.run([sys.executable, "-m", "cli.main", *arguments, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_retraining_job_is_restricted_and_runs_a_valid_whyflag_command():
    (job,) = (d for d in _documents() if d["kind"] == "CronJob")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    command, *options = container["args"]
    done = subprocess.run([sys.executable, "-m", "cli.main", command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(option.split("=")[0] in done.stdout for option in options)


@pytest.mark.system
def test_kustomize_renders_the_base():
    rendered = subprocess.run([needs("kubectl"), "kustomize", BASE], capture_output=True, text=True, check=True).stdout
    documents = list(yaml.safe_load_all(rendered))
    for document in documents:
        kubernetes_validate.validate(document, "1.31", strict=True)
    assert len(_deployments(documents)) == 4


# -- Docker Compose ---------------------------------------------------------------------------------------------------------------


def _services():
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def test_compose_uses_settings_and_commands_that_exist():
    known = {f"WHYFLAG_{name.upper()}" for name in Settings.__struct_fields__}
    services = _services()
    ours = {name: service for name, service in services.items() if service["image"] == "whyflag"}
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
        assert ":" in service["image"] or service["image"] == "whyflag", f"{name} has no version"
    targets = yaml.safe_load((ROOT / "compose" / "prometheus.yaml").read_text())["scrape_configs"][0]["static_configs"][0]
    assert {target.split(":")[0] for target in targets["targets"]} <= services.keys()


@pytest.mark.system
def test_docker_compose_accepts_the_file():
    done = subprocess.run(
        [needs("docker-compose"), "-f", ROOT / "compose.yaml", "config"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"].keys() == _services().keys()
