"""The deployment guide fits the manifests and the commands, and names the tests of its procedures."""

import importlib
import re
import shlex
import shutil
import subprocess
import textwrap
from pathlib import Path

import click
import pytest
import yaml

from cli.main import COMMANDS
from k8s.generate import SECRETS
from tests.conftest import ROOT, needs
from tests.kubernetes.policies import images, of_kind, pods, resources, restricted, settings

GUIDE = sorted((ROOT / "docs" / "deploy").glob("*.md"))
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
INDEX = (ROOT / "docs" / "deploy" / "index.md").read_text()
SHELL = ROOT / "docs" / "deploy" / "shell.yaml"
RENDERED = {path.stem: list(yaml.safe_load_all(path.read_text())) for path in (ROOT / "k8s" / "rendered").glob("*.yaml")}
PROGRAMS = ("score", "explain", "archive", "console")
pages = pytest.mark.parametrize("page", GUIDE, ids=lambda path: path.stem)
pages_and_runbooks = pytest.mark.parametrize("page", [*GUIDE, *RUNBOOKS], ids=lambda path: path.stem)


def blocks(text):
    """Return the code blocks of a page, without continuation lines."""
    return [block.replace("\\\n", " ") for block in re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)]


@pages_and_runbooks
def test_every_cited_test_is_in_the_file_that_is_named(page):
    cited = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", page.read_text())
    missing = [
        f"{file}::{name}" for file, name in cited if not re.search(rf"^(async )?def {name}\(", _source(file), re.MULTILINE)
    ]
    assert missing == []


def _source(file: str) -> str:
    return (ROOT / file).read_text() if (ROOT / file).exists() else ""


@pages
def test_every_procedure_names_its_test_or_says_that_there_is_none(page):
    for section in re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]:
        if "```" in section or re.search(r"^\d+\. ", section, re.MULTILINE):
            assert "::test_" in section or "Not tested: " in section, section.splitlines()[0]


PROGRAMS_OF_LINES = (
    "kubectl", "whyflag ", "kafka-", "connect-", "openssl", "docker", "images/build", "buildah", "cat", "tar", "python", "pg_", "createdb",
    "promtool", "curl", "for ", "done", "DATABASE=", "PAN_KEY=", "AUDIT_KEY=", "RESTORED_URL=",
)  # fmt: skip


@pages_and_runbooks
def test_every_line_of_commands_begins_with_a_program(page):
    """A line that was wrapped would be run in pieces."""
    for block in blocks(page.read_text()):
        lines = [line for line in textwrap.dedent(block).splitlines() if line and not line.startswith("#")]
        if lines[0].startswith(PROGRAMS_OF_LINES) and "<<END" not in block:
            wrong = [line for line in lines if not line.startswith((*PROGRAMS_OF_LINES, "  ", "}"))]
            assert wrong == []


@pages_and_runbooks
def test_every_command_and_option_exists(page):
    lines = [line for block in blocks(page.read_text()) for line in block.splitlines()]
    inline = re.findall(r"`(whyflag [^`\n]+)`", page.read_text())
    for line in [*lines, *inline]:
        for words in re.findall(r"\bwhyflag ((?:[a-z][\w-]* ?)+[^|;#]*)", line):
            _check(re.split(r"[\s\"'=]+", words.strip().strip("'\"")), line)


def _check(words, line):
    if words[0] not in COMMANDS:
        return  # a name, such as that of a namespace
    command = importlib.import_module(COMMANDS[words[0]].module).command
    rest = words[1:]
    if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, line
        command = command.commands[rest[0]]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    assert {word for word in rest if word.startswith("--")} <= known, line


@pages_and_runbooks
def test_every_resource_of_a_kubectl_line_is_in_the_manifests(page):
    known = {(one["kind"].lower(), one["metadata"]["name"]) for found in RENDERED.values() for one in found}
    known |= {("deployment", "whyflag-shell")}
    named = re.findall(r"\b(deployment|job|cronjob|service|kafka|scaledobject)/([\w-]+)", "\n".join(blocks(page.read_text())))
    assert set(named) <= known


def _given_secrets():
    """Return the keys of each secret that the guide creates with kubectl."""
    found = {}
    for line in "\n".join(blocks(INDEX)).splitlines():
        if line.startswith("kubectl create secret generic "):
            name, *options = shlex.split(line)[4:]
            found[name] = {option.removeprefix("--from-literal=").partition("=")[0] for option in options}
    return found


def test_the_secrets_of_the_guide_are_those_of_the_dev_overlay():
    given = _given_secrets()
    wanted = {
        source["secretRef"]["name"]
        for _, _, _, one in pods(RENDERED["dev"])
        for source in one["envFrom"]
        if "secretRef" in source
    }
    assert given.keys() == wanted
    optional = {"WHYFLAG_KAFKA_USER", "WHYFLAG_KAFKA_PASSWORD", "WHYFLAG_LLM_KEY", "WHYFLAG_OIDC_CLIENT_SECRET"}
    for name, keys in given.items():
        if (program := name.removeprefix("whyflag-")) in SECRETS:  # the job of the topics has no key without a password
            assert keys == set(SECRETS[program]) - optional, name


def test_the_secret_entries_of_the_guide_are_those_of_the_prod_overlay():
    rows = re.findall(r"^\| `whyflag/(\w+)` \| (.*) \|$", INDEX, re.MULTILINE)
    users = {one["metadata"]["name"] for one in of_kind(RENDERED["prod"], "KafkaUser")}
    assert {name for name, _ in rows} == SECRETS.keys()
    for name, cell in rows:
        keys = set(re.findall(r"`(WHYFLAG_\w+|sasl|username|password|tls|ca)`", cell))
        assert keys == set(SECRETS[name]), name
        assert set(re.findall(r"`(kafka-\w+)`", cell)) <= users, name


def test_the_first_apply_leaves_out_the_programs():
    assert f"notin ({', '.join(PROGRAMS)})" in INDEX
    for overlay, found in RENDERED.items():
        first = [one for one in found if one["metadata"].get("labels", {}).get("app.kubernetes.io/component") not in PROGRAMS]
        assert of_kind(first, "Deployment") == [], overlay
        assert of_kind(first, "Job"), overlay
        assert of_kind(first, "ConfigMap"), overlay


def _built(folder: Path):
    built = subprocess.run([needs("kubectl"), "kustomize", folder], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


@pytest.fixture
def overlays(tmp_path):
    """A copy of the manifests, to which a test adds an overlay."""
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "k8s" / "overlays"


@pytest.mark.system
def test_the_overlay_of_the_guide_can_be_built_and_satisfies_the_policies(overlays):
    mine = overlays / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(next(block for block in blocks(INDEX) if "kind: Kustomization" in block))
    shutil.copy(SHELL, mine)
    found = _built(mine)
    for policy in (restricted, images, settings):
        assert list(policy(found)) == []
    assert list(resources(found)) == []
    (shell,) = [one for one in of_kind(found, "Deployment") if one["metadata"]["name"] == "whyflag-shell"]
    (config,) = of_kind(found, "ConfigMap")
    assert config["data"]["WHYFLAG_CONSOLE_URL"] == "http://localhost:8080"
    (container,) = shell["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"][0]["configMapRef"]["name"] == config["metadata"]["name"]
    assert {one["metadata"]["namespace"] for one in found} == {"whyflag-dev"}
    assert all("registry.example.org/whyflag-" in one["image"] for _, _, _, one in pods(found))


@pytest.mark.system
def test_the_shell_fits_into_the_prod_overlay(overlays):
    shutil.copytree(overlays / "prod", mine := overlays / "mine")
    shutil.copy(SHELL, mine)
    text = (mine / "kustomization.yaml").read_text()
    (mine / "kustomization.yaml").write_text(text.replace("  - ingress.yaml\n", "  - ingress.yaml\n  - shell.yaml\n"))
    found = _built(mine)
    (shell,) = [one for one in of_kind(found, "Deployment") if one["metadata"]["name"] == "whyflag-shell"]
    (container,) = shell["spec"]["template"]["spec"]["containers"]
    assert {"name": "kafka", "mountPath": "/kafka", "readOnly": True} in container["volumeMounts"]
    given = {
        one["spec"]["target"]["name"]: {data["secretKey"] for data in one["spec"]["data"]}
        for one in of_kind(found, "ExternalSecret")
    }
    for variable in container["env"]:
        if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
            assert reference.get("optional") or reference["key"] in given[reference["name"]]
