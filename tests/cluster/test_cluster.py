"""
The deployment guide, executed: its commands run against a real API server, scheduler and kubelet, and its pods run whyflag's images.

The tests of this file follow the order of the guide and depend on each other. ``make test-cluster`` runs them in a network namespace
without a way out, after it has built Kubernetes and the images.
"""

import re
import shutil
import subprocess
import tempfile
import textwrap
import time
import urllib.request
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from sqlalchemy import create_engine, make_url, text

from cli.supervisor import free_ports
from tests.cluster import ARCHIVES, IMAGES, PROGRAMS
from tests.cluster.kubernetes import ADDRESS, Cluster
from tests.conftest import ROOT, installed_postgres, needs, postgres_server
from tests.kafka import KafkaCluster
from tests.kubernetes.schemas import obtain

pytestmark = pytest.mark.cluster

DEPLOY = ROOT / "docs" / "deploy"
VOLUME = """
apiVersion: v1
kind: PersistentVolume
metadata: {name: bundle}
spec:
  capacity: {storage: 10Gi}
  accessModes: [ReadWriteMany]
  hostPath: {path: FOLDER}
"""


class Guide:
    """The guide's commands, run by a shell in a copy of the manifests, with this cluster's addresses instead of the examples."""

    def __init__(self, cluster: Cluster, folder: Path, addresses: dict[str, str]) -> None:
        self.cluster, self.folder, self._addresses = cluster, folder, addresses

    def blocks(self, page: str, heading: str) -> list[str]:
        """Return the code blocks of a section."""
        section = re.split(rf"^## {re.escape(heading)}$", (DEPLOY / page).read_text(), flags=re.MULTILINE)[1].split("\n## ")[0]
        return [textwrap.dedent(block) for block in re.findall(r"^ *```\w*\n(.*?)^ *```", section, re.MULTILINE | re.DOTALL)]

    def block(self, page: str, heading: str, number: int, **words: str) -> str:
        """Return a code block of a section, with this cluster's addresses and other words replaced."""
        found = self.blocks(page, heading)[number]
        for word, replacement in (self._addresses | words).items():
            found = found.replace(word, replacement)
        return found

    def run(self, commands: str) -> str:
        """Run commands and return what they print; they must succeed."""
        print(f"$ {commands.strip()}")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.folder,
            env=self.cluster.environment,
            capture_output=True,
            text=True,
        )
        print(done.stdout + done.stderr)
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}{self.state()}"
        return done.stdout

    def follow(self, page: str, heading: str, number: int, **words: str) -> str:
        """Run a code block of a section and return what it prints."""
        return self.run(self.block(page, heading, number, **words))

    def state(self) -> str:
        """Return pods and events, for the message of a failure."""
        get = self.cluster.kubectl
        return get("get", "pods", "-o", "wide", check=False).stdout + get("get", "events", check=False).stdout[-3000:]

    @contextmanager
    def forwarded(self, command: str):
        """Run a ``kubectl port-forward`` of the guide while the block runs."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.cluster.environment, stdout=subprocess.PIPE, text=True
        )
        try:
            assert "Forwarding from" in process.stdout.readline(), self.state()
            yield
        finally:
            process.terminate()
            process.communicate()


@pytest.fixture(scope="module")
def cluster():
    with tempfile.TemporaryDirectory(prefix="whyflag-cluster-", dir="/var/tmp") as folder, Cluster(Path(folder)) as running:
        for program in IMAGES:
            running.load(ARCHIVES / f"{program}.tar")
        yield running


@pytest.fixture(scope="module")
def postgres_url(cluster):
    with postgres_server(installed_postgres(), host=ADDRESS, superuser="postgres") as url:
        yield url


@pytest.fixture(scope="module")
def guide(cluster, postgres_url, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "k8s", folder / "k8s", ignore=shutil.ignore_patterns("__pycache__"))
    with KafkaCluster(folder / "kafka", lasting=True, host=ADDRESS) as kafka:
        database = make_url(postgres_url)
        yield Guide(cluster, folder, {
            "kafka.example.org:9092": kafka.bootstrap, "postgres.example.org:5432": f"{database.host}:{database.port}",
        })  # fmt: skip


INDEX = "index.md"


def test_the_database_of_the_guide_is_created(guide, postgres_url):
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in guide.block(INDEX, "What you need", 0).split(";"):
            if statement.strip():
                connection.execute(text(statement))
    engine.dispose()


def test_topics_tables_and_bundle_are_made_before_the_programs_start(guide):
    mine = guide.folder / "k8s" / "overlays" / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(guide.block(INDEX, "2. Make your overlay", 0))
    shutil.copy(DEPLOY / "shell.yaml", mine)
    store = guide.folder / "bundles"
    store.mkdir(mode=0o777)
    store.chmod(0o777)  # a volume of this kind ignores fsGroup
    guide.cluster.kubectl("apply", "-f", "-", text=VOLUME.replace("FOLDER", str(store)))
    guide.follow(INDEX, "3. Namespace and secrets", 0)
    steps = "4. Bundle volume, topics and tables"
    guide.follow(INDEX, steps, 0)
    logged = guide.follow(INDEX, steps, 1)
    assert len(re.search(r"created: (.*)", logged)[1].split(", ")) == 12
    guide.follow(INDEX, steps, 2)
    guide.follow(INDEX, steps, 3)
    commands = guide.block(INDEX, steps, 4).splitlines()
    guide.run(commands[0])
    (version,) = guide.run(commands[1]).split()
    guide.run(commands[2].replace("VERSION", version))


def test_the_programs_start(guide):
    guide.follow(INDEX, "5. Start the programs", 0)
    pods = yaml.safe_load(guide.cluster.kubectl("get", "pods", "-o", "yaml").stdout)["items"]
    programs = [pod for pod in pods if pod["metadata"]["labels"].get("app.kubernetes.io/component") in PROGRAMS]
    assert len(programs) == 4
    for pod in programs:
        began = datetime.fromisoformat(pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"])
        (ready,) = [one for one in pod["status"]["conditions"] if one["type"] == "Ready"]
        waited = (datetime.fromisoformat(ready["lastTransitionTime"]) - began).total_seconds()
        print(f"{pod['metadata']['name']} was ready {waited:.0f} s after its start")
    assert [pod["status"]["containerStatuses"][0]["restartCount"] for pod in programs] == [0] * 4


def test_the_first_administrator_opens_the_link(guide):
    logs, forward = guide.block(INDEX, "6. The first administrator", 0).splitlines()
    link = re.search(r"http://[^\s\"]+/invitation/[^\s\"]+", guide.run(logs))[0]
    with guide.forwarded(forward):
        assert b"password" in urllib.request.urlopen(link, timeout=30).read()


def metrics(guide, program):
    """Return the values of a program's metrics, summed over their labels."""
    (port,) = free_ports(1)
    values: dict[str, float] = {}
    with guide.forwarded(f"kubectl port-forward deployment/whyflag-{program} {port}:9464"):
        for line in urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode().splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                name = name.partition("{")[0]
                values[name] = values.get(name, 0.0) + float(value)
    return values


def until(guide, program, name, minimum):
    """Wait until a metric has reached a value."""
    deadline = time.monotonic() + 300
    while metrics(guide, program).get(name, 0.0) < minimum:
        assert time.monotonic() < deadline, (name, metrics(guide, program), guide.state())
        time.sleep(2)


def test_transactions_become_decisions_and_explained_alerts(guide):
    section = "7. See that it works"
    forward = re.search(r"`(kubectl port-forward deployment/whyflag-score 9464:9464)`", (DEPLOY / INDEX).read_text())[1]
    with guide.forwarded(forward):
        assert urllib.request.urlopen("http://127.0.0.1:9464/ready", timeout=30).read() == b"ready\n"
    assert metrics(guide, "score")["whyflag_partitions"] == 24, "twelve partitions in each of two stages"
    guide.follow(INDEX, section, 0, **{"--limit 20000": "--limit 5000"})
    until(guide, "score", "whyflag_decisions_total", 5000)
    until(guide, "explain", "whyflag_explanations_total", 1)


def test_a_restart_of_every_program_loses_nothing(guide):
    before = metrics(guide, "score")["whyflag_decisions_total"]
    assert before == 5000
    guide.run("kubectl rollout restart deployment && kubectl rollout status deployment/whyflag-score")
    for program in PROGRAMS:
        guide.run(f"kubectl rollout status deployment/whyflag-{program}")
    assert metrics(guide, "score").get("whyflag_decisions_total", 0.0) == 0, "no transaction is decided again"


def test_the_audit_key_is_changed(guide):
    former = guide.run("kubectl get secret whyflag-console -o jsonpath='{.data.WHYFLAG_AUDIT_KEY}' | base64 -d")
    guide.run(
        'kubectl patch secret whyflag-console -p \'{"stringData": {"WHYFLAG_AUDIT_KEY": "another key of the audit trail"}}\'\n'
        f"kubectl create secret generic whyflag-housekeeping --from-literal=WHYFLAG_AUDIT_FORMER_KEYS={former}"
    )
    printed = guide.follow("keys.md", "Audit key", 0)
    assert "changed the audit key" in printed
    assert "the audit trail is intact" in printed


def test_the_store_is_backed_up_and_restored(guide):
    printed = guide.follow("backup.md", "Bundle store", 0)
    assert "champion" in printed


def test_a_bundle_is_rolled_back_or_the_command_says_why_not(guide):
    done = subprocess.run(
        ["bash", "-c", guide.block("upgrade.md", "Roll back a bundle", 0).splitlines()[0]],
        env=guide.cluster.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert "has no other champion to roll back to" in done.stderr


def test_an_upgrade_follows_the_guide(guide):
    for number in range(len(guide.blocks("upgrade.md", "Upgrade"))):
        commands = guide.block("upgrade.md", "Upgrade", number)
        kept = [line for line in commands.splitlines() if "only with KEDA" not in line and "cronjob" not in line]
        if any("state rebuild" in line for line in kept):
            continue  # only for another format
        guide.run(
            "\n".join(kept).replace("kubectl diff -k k8s/overlays/mine", "kubectl diff -k k8s/overlays/mine || [ $? -eq 1 ]")
        )
    for program in PROGRAMS:
        guide.run(f"kubectl rollout status deployment/whyflag-{program}")


def test_the_api_server_accepts_the_prod_overlay_without_a_warning(guide):
    crds = obtain(needs("go"), needs("mvn"))
    kubectl = guide.cluster.kubectl
    kubectl("apply", "--server-side", "-f", str(crds))
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    applied = kubectl("apply", "-k", str(guide.folder / "k8s" / "overlays" / "prod"))
    assert applied.stderr == ""
    deadline, failed = time.monotonic() + 30, ""
    while time.monotonic() < deadline and not failed:
        failed = kubectl("get", "events", "-n", "whyflag", "--field-selector=reason=FailedCreate", "-o", "name").stdout
        time.sleep(2)
    assert failed == "", kubectl("get", "events", "-n", "whyflag").stdout
    pods = kubectl("get", "pods", "-n", "whyflag", "-o", "name").stdout.split()
    assert len(pods) >= len(PROGRAMS), "the namespace's pod security lets the pods in"
    assert "unchanged" in kubectl("apply", "-k", str(guide.folder / "k8s" / "overlays" / "prod")).stdout


def test_everything_is_removed(guide):
    guide.follow(INDEX, "Remove", 0)
    assert (
        guide.cluster.kubectl("get", "deployment,service,configmap", "-l", "app.kubernetes.io/name=whyflag", "-o", "name").stdout
        == ""
    )
