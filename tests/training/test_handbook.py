"""The handbook's protocol: its measures on worked examples, its guard against leaks, and its published numbers."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from core.errors import InputError
from core.privacy.masking import Privacy
from models.features.spec import compromise_spec, default_spec
from tests.conftest import ROOT, transactions_file
from training.data.dataset import features_of, load_dataset
from training.evaluation import handbook
from training.progress import NoProgress
from training.train import BOOSTER

DATA = ROOT.parent / "shared/data/handbook"
QUIET = NoProgress()

needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"the handbook's data is not in {DATA}")


def test_card_precision_of_a_worked_example(monkeypatch):
    monkeypatch.setattr(handbook, "CARDS_A_DAY", 2)
    day = np.array([0, 0, 0, 0, 1, 1, 1])
    card = np.array([1, 1, 2, 3, 1, 2, 3])
    score = np.array([0.1, 0.9, 0.8, 0.7, 0.99, 0.5, 0.4])
    fraud = np.array([True, False, False, True, True, False, True])
    # day 0: cards 1 (its other transaction is fraud) and 2; day 1: cards 2 and 3, because card 1 was found on day 0
    assert handbook.card_precision(day, card, score, fraud) == (1 / 2 + 1 / 2) / 2


@pytest.mark.parametrize("spec", [default_spec(), compromise_spec()], ids=lambda spec: spec.name)
def test_a_planted_leak_is_caught(world, spec):
    dataset = load_dataset(transactions_file(world), spec, world / "labels.parquet", Privacy(), lambda n: None)
    X, _ = features_of(dataset, spec, lambda n: None)
    time = dataset.columns.event_time
    at = int(np.quantile(time, 0.7))
    handbook.check_causal(dataset, spec, X, at)

    # a feature that contains the label
    name = spec.feature_names[-1]
    leaky = X.copy()
    leaky[:, -1] += dataset.known.final
    with pytest.raises(InputError, match=name):
        handbook.check_causal(dataset, spec, leaky, at)

    # features computed as if labels were known at the event time
    early = dataset.labels._replace(label_time=dataset.labels.event_time)
    told = dataset.__class__(dataset.columns, dataset.identities, dataset.amounts, dataset.known, early)
    leaky, _ = features_of(told, spec, lambda n: None)
    with pytest.raises(InputError, match="not yet known"):
        handbook.check_causal(dataset, spec, leaky, at)

    # a statistic over the whole file
    leaky = X.copy()
    leaky[:, 0] /= X[:, 0].mean()
    with pytest.raises(InputError, match="amount"):
        handbook.check_causal(dataset, spec, leaky, at)


def test_missing_data_is_refused(tmp_path):
    with pytest.raises(InputError, match="no file"):
        handbook.load_handbook(tmp_path, QUIET)


@needs_data
@pytest.mark.slow
def test_the_protocol_reproduces_the_published_results_and_is_deterministic():
    book = handbook.load_handbook(DATA, QUIET)
    fold = book.fold("07-25")
    # the book's own counts (chapter 5)
    assert (len(fold.train), int(book.fraud[fold.train].sum())) == (67_240, 598)
    assert (len(fold.test), int(book.fraud[fold.test].sum())) == (58_264, 385)
    X, _ = features_of(book.dataset, handbook.handbook_spec(), lambda n: None)
    defaults = {"objective": "binary:logistic", "tree_method": "exact", "base_score": 0.5}
    score = handbook.xgb.train(defaults, handbook.xgb.DMatrix(X[fold.train], book.fraud[fold.train]), 100).inplace_predict(
        X[fold.test], predict_type="margin"
    )
    published = handbook.PUBLISHED_CHAPTER_3["XGBoost, defaults"]
    assert book.measures(fold.test, score) == pytest.approx(published, abs=0.004)
    one, two = (book.week(X, fold, BOOSTER, [3]) for _ in range(2))
    assert np.array_equal(one, two)


@needs_data
@pytest.mark.slow
def test_the_command_beats_the_published_table(tmp_path):
    from cli.main import whyflag

    done = CliRunner().invoke(whyflag, ["benchmark", "handbook", "--data", str(DATA), "--out", str(tmp_path / "r.json")])
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "r.json").read_text())
    week, history = report["prequential"][1:3]
    for name in ("XGBoost, selected on validation", "balanced bagging"):
        published = report["published"][name]
        assert all(week[measure] > published[measure] for measure in ("average_precision", "card_precision_100"))
    assert history["average_precision"] > 0.729
    assert "balanced bagging" in done.output
