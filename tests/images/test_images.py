"""Images: each program's is built without a daemon and run with a read-only root as an unprivileged user."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from itertools import islice
from pathlib import Path

import pytest

from cli.supervisor import free_ports
from core.messages import decode_decision, encode
from core.topics import DECISIONS, TRANSACTIONS
from streams.kafka.clients import Sender, create_topics
from tests.conftest import ROOT, needs, transactions_file
from tests.workers import collect
from training.replay import transactions_of

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="building a root file system needs root")]

# every image takes two to three minutes; jobs contains the groups of all others
PROGRAMS = tuple(os.environ.get("WHYFLAG_TEST_IMAGES", "score jobs").split())
FOREIGN = {
    "score": ("fastapi", "llama_index", "faiss", "sqlalchemy"),
    "archive": ("fastapi", "llama_index", "xgboost"),
    "console": ("faiss",),
}
DEVELOPMENT = ("pytest", "mypy", "hypothesis", "playwright")


class Store:
    """Where ``images/build`` keeps the images, and podman to run them."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self._podman = [needs("podman"), "--root", folder / "root", "--runroot", folder / "run", "--storage-driver", "overlay",
                        "--runtime", needs("runc"), "--cgroup-manager", "cgroupfs"]  # fmt: skip

    def podman(self, *arguments, check=True):
        return subprocess.run([*self._podman, *arguments], capture_output=True, text=True, check=check)

    def start(self, program, *command, volumes=(), environment=None, name=None, check=True):
        """Run an image as Kubernetes would: user 10001, read-only, no capabilities, only /tmp writable."""
        options = ["--network", "host", "--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp:rw,nosuid,nodev,size=1g", "--user", "10001:10001",
                   "--cap-drop", "all", "--security-opt", "no-new-privileges", "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"]  # fmt: skip
        options += [part for volume in volumes for part in ("--volume", volume)]
        options += [part for key, value in (environment or {}).items() for part in ("--env", f"{key}={value}")]
        named = ["--detach", "--name", name] if name else ["--rm"]
        return self.podman("run", *named, *options, f"localhost/whyflag-{program}", *command, check=check)

    def run(self, program, entrypoint, *arguments):
        """Run another program of an image and return what it prints."""
        limits = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"]
        options = ["--rm", *limits, "--network", "host", "--entrypoint", entrypoint]
        return self.podman("run", *options, f"localhost/whyflag-{program}", *arguments).stdout


@pytest.fixture(scope="module")
def store():
    """All images, built once; they are rebuilt when the code changes, from cached layers where it does not."""
    needs("mmdebstrap"), needs("buildah")
    folder = ROOT / ".test_cache" / "images"
    subprocess.run([ROOT / "images" / "build", *PROGRAMS], check=True, env=os.environ | {"STORE": str(folder)})
    opened = Store(folder)
    yield opened
    opened.podman("rm", "--all", "--force")
    subprocess.run(["buildah", "--root", folder / "root", "--runroot", folder / "run", "rmi", "--prune"], check=False)


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_image_starts_and_holds_only_what_its_program_needs(store, program):
    shown = store.start(program, "--help")
    assert "Usage: whyflag" in shown.stdout
    (image,) = json.loads(store.podman("image", "inspect", f"localhost/whyflag-{program}").stdout)
    assert image["User"] == "10001"
    labels = image["Labels"]
    assert labels["org.opencontainers.image.title"] == f"whyflag-{program}"
    assert len(labels["org.opencontainers.image.revision"]) == 40
    assert image["Healthcheck"]["Test"] == ["CMD", "/opt/whyflag/bin/health"]
    listed = store.run(program, "/bin/sh", "-c", "ls /opt/whyflag/lib/python3*/site-packages").split()
    assert {"core", "msgspec"} <= set(listed)
    assert not set(listed).intersection((*FOREIGN.get(program, ()), *DEVELOPMENT))


@pytest.fixture
def mounted(world, bundle_dir):
    """A folder with the bundle and the world that every user may read, unlike those of the tests."""
    folder = Path(tempfile.mkdtemp(prefix="whyflag-images-", dir="/var/tmp"))
    shutil.copytree(bundle_dir, folder / "bundle")
    shutil.copytree(world, folder / "world")
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield folder
    shutil.rmtree(folder)


def test_the_jobs_image_can_train(store):
    code = "from training.train import environment; print(environment()['xgboost'])"
    shown = store.run("jobs", "/opt/whyflag/bin/python", "-c", code)
    assert shown.strip() == importlib.metadata.version("xgboost")


def test_the_jobs_image_replays_a_file(store, mounted):
    done = store.start(
        "jobs", "replay", "--bundle=/bundle", "--transactions=/world/transactions.parquet", "--out=/tmp/out",
        volumes=[f"{mounted}/bundle:/bundle:ro", f"{mounted}/world:/world:ro"], check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^decided +60,195$", done.stdout, re.M), done.stdout


def test_the_score_image_decides_what_comes_from_kafka_and_stops_on_sigterm(store, apache, world, mounted):
    create_topics(apache, partitions=2)
    some = list(islice(transactions_of(transactions_file(world)), 500))
    (port,) = free_ports(1)
    settings = {"WHYFLAG_KAFKA_BOOTSTRAP": apache.kafka_bootstrap, "WHYFLAG_METRICS_PORT": port, "WHYFLAG_BUNDLE": "/bundle"}
    began = time.monotonic()
    store.start("score", "worker", "score", volumes=[f"{mounted}/bundle:/bundle:ro"], environment=settings, name="score")
    try:
        sender = Sender(apache, 0)
        for one in some:
            sender.send(TRANSACTIONS, one.card_id.encode(), encode(one))
        sender.close()
        decided = {decode_decision(record.value).transaction_id for record in collect(apache, {DECISIONS: 500}, 120)[DECISIONS]}
        print(f"500 decisions {time.monotonic() - began:.0f} s after the start of the container")
        assert decided == {one.transaction_id for one in some}
        health = store.podman("exec", "score", "/opt/whyflag/bin/health", check=False)
        assert health.returncode == 0, health.stderr
        store.podman("stop", "--time", "30", "score")
        (container,) = json.loads(store.podman("inspect", "score").stdout)
        assert container["State"]["ExitCode"] == 0
        logged = store.podman("logs", "score").stderr
        assert "nothing is unfinished" in logged
        assert "compiling features" not in logged, "the image's kernels do not fit"
    finally:
        print(store.podman("logs", "score", check=False).stderr[-3000:])
