"""Recipes: tuning, calibration and imbalance compared, budgets by cost, monotone features, the registry, and novelty's share."""

import itertools
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from msgspec import structs

from cli.main import whyflag
from core.errors import InputError
from core.privacy.masking import Privacy
from models.bundles.bundle import load_bundle
from models.calibration import CalibrationMethod, fit_calibration
from models.features.spec import default_spec
from models.novelty import fit_forest, novelty
from models.trees import margins_by_xgboost
from tests.conftest import DAY, transactions_file
from training.data.dataset import features_of, load_dataset
from training.progress import NoProgress
from training.train import BOOSTER, Imbalance, Recipe, fit_booster, load_history, load_recipe, train
from training.tune import folds_of, tune

QUIET = NoProgress()


@pytest.fixture(scope="module")
def history(world):
    return load_history(transactions_file(world), default_spec(), world / "labels.parquet", 5 * DAY, Privacy(), QUIET)


def test_folds_never_use_later_transactions_or_labels(history):
    time, known = history.dataset.columns.event_time, history.dataset.known
    for fold in folds_of(history, 5 * DAY):
        begin = time[fold.validate].min()
        assert time[fold.train].max() < begin - 5 * DAY
        assert time[fold.validate].max() < history.split.train_end, "folds must not use the calibration and test periods"
        told = known.reported[fold.train][fold.known]
        assert (told <= begin + DAY).all()
        assert fold.known.sum() >= 10


@pytest.fixture(scope="module")
def small_history(history):
    """The history with every sixth of its honest transactions, and trees with fewer bins: the search takes a tenth of the time."""
    fraud = history.dataset.known.final
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BOOSTER, "max_bin", 64)
        yield structs.replace(history, usable=history.usable & (fraud | (np.arange(len(fraud)) % 6 == 0)))


def test_tuning_keeps_its_budget_and_is_deterministic(small_history):
    found = [
        tune(small_history, default_spec(), label_delay_ms=5 * DAY, trials=3, seconds=1800, seed=3, progress=QUIET)
        for _ in range(2)
    ]
    assert found[0] == found[1]
    assert len(found[0].trials) == 3
    assert set(found[0].imbalance) == set(Imbalance)
    assert found[0].average_precision >= found[0].default_average_precision, "the default is the first trial"
    assert len({json.dumps(trial) for trial in found[0].trials}) == 3


def test_tuning_ends_when_its_time_is_up(small_history, monkeypatch):
    """On a clock that advances a second a look: the comparison is cut short, or the trial under way is given up."""
    import training.train
    import training.tune

    now = itertools.count()
    monkeypatch.setattr(training.train, "monotonic", lambda: next(now))
    monkeypatch.setattr(training.tune.time, "monotonic", lambda: next(now))

    def tuned(seconds):
        options = {"label_delay_ms": 5 * DAY, "trials": 50, "seconds": seconds, "seed": 3, "progress": QUIET}
        return tune(small_history, default_spec(), **options)

    with pytest.raises(InputError, match="more --minutes"):
        tuned(500)  # 3 folds of 200 rounds take 600 looks
    found = tuned(700)
    assert set(found.imbalance) == {Imbalance.NONE}
    assert found.recipe == Recipe(booster=found.recipe.booster)
    assert found.average_precision == found.default_average_precision
    found = tuned(2_500)
    assert set(found.imbalance) == set(Imbalance)
    assert [trial["state"] for trial in found.trials] == ["complete", "fail"]


def test_a_recipe_goes_from_tuning_to_a_bundle(world, tmp_path, monkeypatch):
    monkeypatch.setitem(BOOSTER, "max_bin", 64)  # a fifth of the time
    files = [
        "--transactions",
        str(world / "transactions.parquet"),
        "--labels",
        str(world / "labels.parquet"),
        "--label-delay",
        "5d",
    ]
    recipe = tmp_path / "recipe.json"
    tuned = CliRunner().invoke(
        whyflag, ["tune", *files, "--trials", "2", "--out", str(recipe), "--study", str(tmp_path / "study.json")]
    )
    assert tuned.exit_code == 0, tuned.output
    assert "undersampled" in tuned.output
    assert len(json.loads((tmp_path / "study.json").read_text())["trials"]) == 2
    tracking = f"sqlite:///{tmp_path}/mlflow.db"
    made = CliRunner().invoke(
        whyflag,
        ["train", *files, "--recipe", str(recipe), "--calibration", "isotonic", "--review-cost", "4", "--out", str(tmp_path / "b"),
         "--mlflow", tracking],
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    bundle = load_bundle(tmp_path / "b")
    assert bundle.metrics.recipe["booster"] == json.loads(recipe.read_text())["booster"]
    assert bundle.calibration.method == "isotonic"
    assert bundle.metrics.data.sha256.keys() == {"transactions", "labels"}
    assert "scikit-learn" in bundle.metrics.environment
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "mlartifacts", "mlflow.db", "recipe.json", "study.json"]
    # what MLflow itself has recorded
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=tracking)
    registered = client.get_model_version_by_alias("whyflag", "challenger")
    assert registered.tags["bundle"] == bundle.version
    run = client.get_run(registered.run_id)
    assert run.data.metrics["test.average_precision"] == bundle.metrics.test.average_precision
    assert run.data.params["data.sha256.transactions"] == bundle.metrics.data.sha256["transactions"]
    assert {"bundle/manifest.json", "bundle/model.ubj"} <= {f.path for f in client.list_artifacts(registered.run_id, "bundle")}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"imbalance": "magic"}',
        '{"calibration": "magic"}',
        '{"rounds": "many"}',
        '{"rounds": 0}',
        '{"novel_share": 5}',
        '{"depth": 3}',
    ],
)
def test_an_invalid_recipe_raises_an_input_error(tmp_path, text):
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(InputError, match="recipe"):
        load_recipe(path)


def test_settings_that_xgboost_refuses_raise_an_input_error(history):
    rows = np.flatnonzero(history.split.train(history.dataset.columns.event_time))[:2000]
    with pytest.raises(InputError, match="booster"):
        fit_booster(history.X[rows], rows % 7 == 0, default_spec(), Recipe(booster={"eta": -1}), 1, None)


def test_monotone_constraints_keep_known_frauds_from_lowering_a_score(history):
    """With monotone constraints, raising a merchant's known frauds never lowers a score."""
    spec, rows = default_spec(), np.flatnonzero(history.split.train(history.dataset.columns.event_time) & history.usable)
    y = history.dataset.known.fraud(history.split.calibration_begin)[rows]
    X = history.X[rows[:20_000]]
    column = spec.feature_names.index("merchant_fraud_reports_30d")
    free, bound = (
        fit_booster(history.X[rows], y, spec, Recipe(monotone=monotone, rounds=100), 1, None) for monotone in (False, True)
    )
    drops = []
    for booster in (free, bound):
        raised = X.copy()
        raised[:, column] += 1
        drops.append(int((margins_by_xgboost(booster, raised) < margins_by_xgboost(booster, X) - 1e-6).sum()))
    assert drops[1] == 0
    assert drops[0] > 0, "no score drops without the constraint either, so the test proves nothing"


def test_different_margins_have_different_probabilities():
    margin = np.linspace(-4, 4, 1000).astype(np.float32)
    fraud = np.arange(1000) % 7 == 0
    p = fit_calibration(margin, fraud, CalibrationMethod.ISOTONIC).probability(margin)
    assert (np.diff(p) > 0).all(), "budget thresholds need strictly ordered probabilities"


@pytest.mark.parametrize("typology", ["account_takeover", "card_testing"])
def test_novelty_finds_a_typology_that_was_withheld_from_training(world, typology):
    """A forest fitted without one kind of fraud ranks more than 10 % of it above 98 % of honest transactions."""
    spec = default_spec()
    dataset = load_dataset(transactions_file(world), spec, world / "labels.parquet", Privacy(), lambda n: None)
    X, duplicate = features_of(dataset, spec, lambda n: None)
    kinds = dict(
        zip(*(pq.read_table(world / "truth.parquet")[name].to_pylist() for name in ("transaction_id", "typology")), strict=True)
    )
    kind = np.array([kinds[identity] for identity in dataset.identities["transaction_id"].to_pylist()])
    day = (dataset.columns.event_time - dataset.columns.event_time[0]) // DAY
    train_rows = np.flatnonzero((day < 30) & (kind != typology) & ~duplicate)
    later = (day >= 30) & ~duplicate
    scores = novelty(fit_forest(X[np.random.default_rng(0).choice(train_rows, 20_000)], 0), X[later])
    withheld = kind[later] == typology
    assert withheld.sum() >= 20
    threshold = np.quantile(scores[kind[later] == "honest"], 0.98)
    found = float((scores[withheld] > threshold).mean())
    assert found > 5 * 0.02, f"{found:.2f} of {withheld.sum()} within 2 % of the honest"


def test_novelty_has_a_share_of_the_budget(world, tmp_path):
    def outcome(share):
        _, metrics, _ = train(
            transactions_file(world), default_spec(), labels=world / "labels.parquet", alerts_per_day=30, label_delay_ms=5 * DAY,
            out=tmp_path / str(share), seed=1, privacy=Privacy(), progress=QUIET, recipe=Recipe(rounds=30, novel_share=share),
        )  # fmt: skip
        return metrics

    none, some = outcome(0.0), outcome(0.3)
    assert none.novel.alerts == 0
    assert 0.1 < some.novel.alerts / some.test.alerts < 0.6
    assert abs(some.test.alerts - none.test.alerts) < 0.6 * none.test.alerts
