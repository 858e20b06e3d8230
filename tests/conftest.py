"""What many tests share: a small simulated world and a bundle trained on it, made once a run."""

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from core.messages import decode_alert
from core.settings import Settings
from models.bundle import Bundle, load_bundle
from models.features.spec import default_spec
from training.mapping import load_mapping
from training.progress import Progress
from training.readers import TransactionFile
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
        label_delay_ms=5 * DAY, out=out, seed=seed, pan_key=b"",
        progress=Progress(lambda name, steps: None, lambda steps: None), recipe=recipe,
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
        pan_key=b"",
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
