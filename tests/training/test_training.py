import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from msgspec import structs
from sklearn.metrics import average_precision_score

from cli.main import whyflag
from cli.options import rates_of, spec_of
from core.errors import InputError, WhyflagError
from core.messages import Alert, Label, LabelSource, Outcome, Transaction, decode_alert, decode_decision
from core.privacy.masking import Privacy
from models.bundles.bundle import CARD, CASES, load_bundle
from models.features.columns import label_columns, transaction_columns
from models.features.spec import default_spec, handbook_spec
from tests.conftest import DAY, HANDBOOK, transactions_file
from training.data.dataset import LabelledReplay, known_labels, load_dataset
from training.data.mapping import LabelColumn, load_mapping
from training.data.readers import TransactionFile
from training.evaluation.measures import evaluate
from training.progress import NoProgress
from training.replay import replay
from training.splits import split_by_time
from training.train import budget_missed, budget_too_large, train

QUIET = NoProgress()


def test_the_periods_are_in_order_and_separated_by_the_label_delay():
    time = np.arange(0, 60 * DAY, DAY // 10) + 1_700_000_000_000
    split = split_by_time(time, 7 * DAY)
    assert time.min() < split.train_begin < split.train_end
    assert split.calibration_begin - split.train_end == 7 * DAY
    assert split.test_begin - split.calibration_end == 7 * DAY
    assert split.test_end == time.max() + 1
    masks = [split.train(time), split.calibration(time), split.test(time)]
    assert sum(mask.astype(int) for mask in masks).max() == 1
    assert all(mask.any() for mask in masks)


def test_a_history_that_is_too_short_raises_an_input_error():
    with pytest.raises(InputError, match="give more history or a shorter --label-delay"):
        split_by_time(np.array([1_700_000_000_000, 1_700_000_000_000 + 10 * DAY]), 7 * DAY)


def test_labels_are_known_from_their_time_on_until_retracted(world):
    dataset = load_dataset(transactions_file(world), default_spec(), world / "labels.parquet", Privacy(), lambda n: None)
    rows = pq.read_table(world / "labels.parquet").to_pylist()
    ids = {name: i for i, name in enumerate(dataset.identities["transaction_id"].to_pylist())}
    moment = int(np.median([row["label_time"] for row in rows]))
    expected = np.zeros(len(ids), np.bool_)
    for row in rows:  # sorted by label time
        if row["label_time"] <= moment:
            expected[ids[row["transaction_id"]]] = row["fraud"]
    np.testing.assert_array_equal(dataset.known.fraud(moment), expected)
    assert not dataset.known.fraud(0).any()


def test_training_never_sees_a_label_that_was_not_known_yet(world, tmp_path, monkeypatch):
    """Frauds that are reported only after calibration began count as legitimate for the booster."""
    import training.train as module

    seen = {}

    def spy(X, y, *rest):
        seen["y"] = y
        raise InputError("enough")

    monkeypatch.setattr(module, "fit_booster", spy)
    dataset = load_dataset(transactions_file(world), default_spec(), world / "labels.parquet", Privacy(), lambda n: None)
    split = split_by_time(dataset.columns.event_time, 5 * DAY)
    with pytest.raises(InputError, match="enough"):
        train(
            transactions_file(world), default_spec(), labels=world / "labels.parquet", alerts_per_day=10, label_delay_ms=5 * DAY,
            out=tmp_path / "b", seed=1, privacy=Privacy(), progress=QUIET,
        )  # fmt: skip
    rows = split.train(dataset.columns.event_time)
    np.testing.assert_array_equal(seen["y"], dataset.known.fraud(split.calibration_begin)[rows])
    assert seen["y"].sum() < dataset.known.final[rows].sum()


def test_the_bundle_finds_fraud_it_has_not_seen(bundle):
    test = bundle.metrics.test
    assert test.auc > 0.75
    assert test.average_precision > 8 * test.frauds / test.transactions
    assert test.alerts_per_day < 3 * bundle.policy.alerts_per_day


def test_the_model_card_has_the_usual_headings(bundle_dir):
    card = (bundle_dir / CARD).read_text()
    for heading in (
        "Model details", "Intended use", "Factors", "Metrics", "Training data", "Evaluation data", "Ethical considerations", "Caveats",
    ):  # fmt: skip
        assert f"## {heading}" in card


def test_cases_were_closed_after_they_happened_and_have_both_outcomes(bundle_dir):
    cases = pq.read_table(bundle_dir / CASES).to_pylist()
    assert {case["outcome"] for case in cases} == {"fraud", "legitimate"}
    assert all(case["closed_time"] > case["event_time"] for case in cases)


def test_a_bundle_is_never_overwritten(world, bundle_dir):
    with pytest.raises(InputError, match="never overwritten"):
        train(
            transactions_file(world), default_spec(), labels=world / "labels.parquet", alerts_per_day=10, label_delay_ms=5 * DAY,
            out=bundle_dir, seed=1, privacy=Privacy(), progress=QUIET,
        )  # fmt: skip


def test_the_error_for_training_without_labels_names_the_option(world, tmp_path):
    with pytest.raises(InputError, match="give --labels FILE"):
        train(
            transactions_file(world), default_spec(), labels=None, alerts_per_day=10, label_delay_ms=5 * DAY, out=tmp_path / "b",
            seed=1, privacy=Privacy(), progress=QUIET,
        )  # fmt: skip


def test_training_on_an_unsorted_file_is_refused(world, tmp_path):
    table = pq.read_table(world / "transactions.parquet")
    pq.write_table(table.take(list(range(len(table)))[::-1]), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="not sorted by event time"):
        train(
            TransactionFile(tmp_path / "t.parquet", load_mapping("whyflag")), default_spec(), labels=world / "labels.parquet",
            alerts_per_day=10, label_delay_ms=5 * DAY, out=tmp_path / "b", seed=1, privacy=Privacy(), progress=QUIET,
        )  # fmt: skip


def test_training_is_reproducible_by_seed(world, bundle, tmp_path):
    version, _, _ = train(
        transactions_file(world), default_spec(), labels=world / "labels.parquet", alerts_per_day=30, label_delay_ms=5 * DAY,
        out=tmp_path / "b", seed=1, privacy=Privacy(), progress=QUIET,
    )  # fmt: skip
    assert version == bundle.version


def test_a_replay_decides_every_transaction_once(world, replayed):
    out, summary = replayed
    decisions = [decode_decision(line) for line in (out / "decisions.jsonl").read_bytes().splitlines()]
    ids = pq.read_table(world / "transactions.parquet")["transaction_id"].to_pylist()
    assert [d.transaction_id for d in decisions] == ids
    counts = {o.value: sum(d.outcome is o for d in decisions) for o in Outcome}
    assert {name: summary[name] for name in counts} == counts
    assert summary["decided"] == summary["read"] == len(ids)


def test_a_replay_raises_an_alert_for_every_flagged_decision(replayed):
    out, _ = replayed
    flagged = [
        d for line in (out / "decisions.jsonl").read_bytes().splitlines() if (d := decode_decision(line)).outcome != "approve"
    ]
    alerts = [decode_alert(line) for line in (out / "alerts.jsonl").read_bytes().splitlines()]
    assert [a.decision for a in alerts] == flagged
    for alert in alerts[:50]:
        assert set(alert.features) == set(default_spec().feature_names)
        assert [r.event_time for r in alert.recent] == sorted(r.event_time for r in alert.recent)
        assert all(r.event_time <= alert.transaction.event_time for r in alert.recent)


def test_the_summary_matches_the_decisions(world, replayed):
    out, summary = replayed
    p, flagged = [], []
    for line in (out / "decisions.jsonl").read_bytes().splitlines():
        d = decode_decision(line)
        p.append(d.probability)
        flagged.append(d.outcome != "approve")
    final = {}
    for row in pq.read_table(world / "labels.parquet").to_pylist():
        final[row["transaction_id"]] = row["fraud"]
    fraud = np.array([final.get(i, False) for i in pq.read_table(world / "transactions.parquet")["transaction_id"].to_pylist()])
    flagged = np.array(flagged)
    assert summary["recall"] == pytest.approx((flagged & fraud).sum() / fraud.sum(), abs=1e-4)
    assert summary["precision"] == pytest.approx((flagged & fraud).sum() / flagged.sum(), abs=1e-4)
    assert summary["average_precision"] == pytest.approx(average_precision_score(fraud, p), abs=1e-4)


@pytest.mark.parametrize("batch", [257, 4096])
def test_batch_size_and_format_do_not_change_a_decision(world, bundle, replayed, tmp_path, batch):
    out, summary = replayed
    again = replay(
        transactions_file(world), bundle, labels=world / "labels.parquet", out=tmp_path, form="parquet", privacy=Privacy(),
        progress=lambda n: None, batch=batch,
    )  # fmt: skip
    assert again.shown() == summary
    rows = pq.read_table(tmp_path / "decisions.parquet").to_pylist()
    lines = [decode_decision(line) for line in (out / "decisions.jsonl").read_bytes().splitlines()]
    for row, decided in zip(rows, lines, strict=True):
        assert row == {**msgspec.to_builtins(decided), **{n: getattr(decided, n) for n in row if n in type(decided).__struct_fields__},
                       "reason_codes": list(decided.reason_codes), "rule_hits": []}  # fmt: skip
    raised = [msgspec.convert(_given(row), Alert) for row in pq.read_table(tmp_path / "alerts.parquet").to_pylist()]
    assert raised == [decode_alert(line) for line in (out / "alerts.jsonl").read_bytes().splitlines()]


def _given(row):
    """Convert a row of nested columns back to the fields of its message, where null columns are absent."""
    if isinstance(row, list):
        return [_given(one) for one in row]
    if not isinstance(row, dict):
        return row
    return {name: value if name == "features" else _given(value) for name, value in row.items() if value is not None}


def test_a_failed_replay_keeps_existing_files(world, bundle, tmp_path):
    (tmp_path / "decisions.parquet").write_bytes(b"of an earlier replay")
    (tmp_path / "few.csv").write_text("transaction_id,event_time\nt1,2025-01-01T00:00:00\n")
    with pytest.raises(WhyflagError):
        replay(
            TransactionFile(tmp_path / "few.csv", load_mapping("whyflag")), bundle, labels=None, out=tmp_path, form="parquet",
            privacy=Privacy(), progress=lambda n: None,
        )  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decisions.parquet", "few.csv"]
    assert (tmp_path / "decisions.parquet").read_bytes() == b"of an earlier replay"


def test_labels_without_their_delay_would_change_past_features(world, bundle):
    """If labels are known at once instead of late, features of the past change: the delay keeps the future out."""
    from models.features.engine import FeatureEngine

    dataset = load_dataset(transactions_file(world), bundle.spec, world / "labels.parquet", Privacy(), lambda n: None)
    leaked = dataset.labels._replace(label_time=dataset.labels.event_time)
    names = list(bundle.spec.feature_names)
    told, honest = (
        LabelledReplay(FeatureEngine(bundle.spec), labels).update(dataset.columns)[0] for labels in (leaked, dataset.labels)
    )
    reports = names.index("merchant_fraud_reports_30d")
    assert (told[:, reports] > honest[:, reports]).any()
    early = dataset.columns.event_time < dataset.labels.label_time.min()
    assert early.any()
    assert (honest[early, reports] == 0).all()
    others = [i for i, name in enumerate(names) if "fraud" not in name]
    np.testing.assert_array_equal(told[:, others], honest[:, others])


def test_measures_of_a_worked_example():
    p = np.array([0.9, 0.8, 0.3, 0.1])
    fraud = np.array([True, False, True, False])
    got = evaluate(p, p > 0.5, fraud, np.array([100, 50, 300, 10]), days=2)
    assert got.precision == 0.5
    assert got.recall == 0.5
    assert got.amount_caught == 0.25
    assert got.alerts_per_day == 1.0
    assert got.auc == 0.75


def test_measures_without_fraud_are_none():
    got = evaluate(np.array([0.1, 0.2]), np.array([False, False]), np.array([False, False]), np.array([1, 1]), days=1)
    assert got.precision is None
    assert got.recall is None
    assert got.auc is None


@pytest.mark.slow
def test_the_handbook_file_goes_from_training_to_alerts(tmp_path):
    if not HANDBOOK.exists():
        pytest.skip(f"the handbook's data is not in {HANDBOOK}")
    source = TransactionFile(HANDBOOK / "transactions.parquet", load_mapping("handbook"))
    from models.bundles.bundle import load_bundle

    train(
        source, handbook_spec(), labels=None, alerts_per_day=300, label_delay_ms=7 * DAY, out=tmp_path / "b", seed=1, privacy=Privacy(),
        progress=QUIET,
    )  # fmt: skip
    bundle = load_bundle(tmp_path / "b")
    summary = replay(
        TransactionFile(HANDBOOK / "transactions.parquet", load_mapping("handbook")), bundle, labels=None, out=tmp_path / "r",
        form="parquet", privacy=Privacy(), progress=lambda n: None,
    )  # fmt: skip
    assert summary.decided == 1_600_653
    assert summary.quality.frauds == 13_339
    assert bundle.metrics.test.auc > 0.8
    assert pq.read_table(tmp_path / "r" / "alerts.parquet").num_rows == summary.outcomes["review"] + summary.outcomes["decline"]


def _shuffled(world, tmp_path, **changes):
    table = pq.read_table(world / "transactions.parquet")
    rows = np.random.default_rng(1).permutation(len(table)) if not changes else np.arange(len(table))
    table = table.take(pa.array(rows))
    for name, value in changes.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array([value] * len(table)))
    pq.write_table(table, tmp_path / "t.parquet")
    return TransactionFile(tmp_path / "t.parquet", load_mapping("whyflag"))


@pytest.mark.parametrize(
    ("changes", "told"), [({}, "not sorted by event time"), ({"currency": "USD"}, "in a currency other than EUR")]
)
def test_a_file_that_would_give_a_silently_wrong_result_is_refused(world, bundle, tmp_path, changes, told):
    """The average precision of a shuffled file once fell from .498 to .124 without an error."""
    from models.scorer import Decider
    from training.evaluation.backtest import run_policy

    with pytest.raises(InputError, match=told):
        replay(
            _shuffled(world, tmp_path, **changes),
            bundle,
            labels=world / "labels.parquet",
            out=tmp_path,
            form="parquet",
            privacy=Privacy(),
            progress=lambda n: None,
        )
    with pytest.raises(InputError, match=told):
        run_policy("p", _shuffled(world, tmp_path, **changes), world / "labels.parquet", Decider(bundle), None, Privacy(), QUIET)
    with pytest.raises(InputError, match=told):
        train(
            _shuffled(world, tmp_path, **changes), default_spec(), labels=world / "labels.parquet", alerts_per_day=10,
            label_delay_ms=5 * DAY, out=tmp_path / "b", seed=1, privacy=Privacy(), progress=QUIET,
        )  # fmt: skip


def test_a_budget_that_the_test_period_misses_is_reported():
    assert budget_missed(300, 300) is None
    assert budget_missed(151, 300) is None
    assert "1,040 alerts a day, the budget is 300" in budget_missed(1040, 300)
    assert budget_missed(100, 300)


def test_labels_join_by_card_and_id():
    """Public data repeats ids across cards."""
    transactions = [
        Transaction(transaction_id="1", event_time=10**12, card_id=card, merchant_id="m", amount=1, currency="EUR")
        for card in "ab"
    ]
    label = Label(
        transaction_id="1",
        card_id="b",
        merchant_id="m",
        event_time=10**12,
        label_time=10**12 + 1,
        fraud=True,
        source=LabelSource.CHARGEBACK,
    )
    columns = transaction_columns(transactions, "EUR", {}, 500, 5)
    assert known_labels(columns.transaction, label_columns([label])).final.tolist() == [False, True]


def _with_currency(world, path, share, currency="CHF"):
    table = pq.read_table(world / "transactions.parquet")
    every = round(1 / share)
    values = [currency if number % every == 0 else "EUR" for number in range(len(table))]
    pq.write_table(table.set_column(table.schema.get_field_index("currency"), "currency", pa.array(values)), path)
    return ["--transactions", str(path), "--labels", str(world / "labels.parquet"), "--label-delay", "5d"]


def rates_between(currency, text):
    return spec_of("default", currency, rates_of((text,))).rates


def test_another_currency_goes_to_review_with_a_warning_or_has_a_rate(world, tmp_path):
    (tmp_path / "recipe.json").write_text('{"rounds": 20}')
    files = [
        *_with_currency(world, tmp_path / "t.parquet", 0.05),
        "--currency",
        "EUR",
        "--recipe",
        str(tmp_path / "recipe.json"),
        "--review-budget",
        "30/day",
    ]
    unpriced = CliRunner().invoke(whyflag, ["train", *files, "--out", str(tmp_path / "unpriced")])
    assert unpriced.exit_code == 0, unpriced.output
    assert "have no exchange rate" in unpriced.output
    first = load_bundle(tmp_path / "unpriced").metrics.test
    assert first.alerts > 0.04 * first.transactions, "what has no price is reviewed, in the test period too"
    priced = CliRunner().invoke(whyflag, ["train", *files, "--rate", "CHF=1.05", "--out", str(tmp_path / "priced")])
    assert priced.exit_code == 0, priced.output
    assert "exchange rate" not in priced.output
    bundle = load_bundle(tmp_path / "priced")
    assert bundle.spec.rates == {"CHF": 1.05}
    assert bundle.metrics.test.alerts < first.alerts
    assert rates_between("EUR", "JPY=0.0062") == {"JPY": pytest.approx(0.62)}, "1,000 JPY are 620 cents"
    assert rates_between("JPY", "EUR=160") == {"EUR": pytest.approx(1.6)}
    wrong = CliRunner().invoke(whyflag, ["train", *files, "--rate", "CHF", "--out", str(tmp_path / "wrong")])
    assert "write for example CHF=1.05" in str(wrong.exception)


def test_a_file_of_frauds_alone_is_an_error_that_names_the_likely_cause(world, tmp_path):
    """A file that marks its frauds and leaves the other labels blank has frauds alone once the blank ones are rejected."""
    table = pq.read_table(world / "transactions.parquet").slice(0, 40_000)
    label = pa.array(["1"] * len(table))
    pq.write_table(table.append_column("state", label), tmp_path / "t.parquet")
    mapping = structs.replace(load_mapping("whyflag"), label=LabelColumn("state", "5d"))
    source = TransactionFile(tmp_path / "t.parquet", mapping)
    with pytest.raises(InputError, match="are legitimate: are blank labels meant"):
        train(
            source, default_spec(), labels=None, alerts_per_day=10, label_delay_ms=5 * DAY, out=tmp_path / "b", seed=1,
            privacy=Privacy(), progress=QUIET,
        )  # fmt: skip


def test_a_budget_larger_than_a_tenth_of_the_transactions_is_a_warning(bundle):
    assert budget_too_large(bundle.metrics) is None
    large = structs.replace(bundle.metrics, budget=100_000.0)
    assert "Give a smaller --review-budget" in budget_too_large(large)


def test_an_unsorted_file_is_named_with_its_first_break(world, tmp_path):
    with pytest.raises(InputError, match=r"a transaction of \d{4}-\d\d-\d\d \d\d:\d\d comes after one of"):
        train(
            _shuffled(world, tmp_path), default_spec(), labels=world / "labels.parquet", alerts_per_day=10, label_delay_ms=5 * DAY,
            out=tmp_path / "b", seed=1, privacy=Privacy(), progress=QUIET,
        )  # fmt: skip


def test_a_replay_does_not_write_into_a_bundle(world, bundle, bundle_dir):
    with pytest.raises(InputError, match="already holds a bundle"):
        replay(
            transactions_file(world),
            bundle,
            labels=None,
            out=bundle_dir,
            form="parquet",
            privacy=Privacy(),
            progress=lambda n: None,
        )
