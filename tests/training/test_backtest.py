"""Backtests: what a policy would have decided, compared with another, with amounts in a currency."""

import json

import numpy as np
import pyarrow.csv
import pytest
from click.testing import CliRunner

from cli.main import whyflag
from core.messages import decode_decision
from core.privacy.masking import Privacy
from models.scorer import Decider
from tests.conftest import transactions_file
from training.evaluation import backtest
from training.progress import NoProgress


@pytest.fixture(scope="module")
def played(world, bundle):
    begin = bundle.metrics.split.test_begin_ms
    return backtest.run_policy(
        "policy", transactions_file(world), world / "labels.parquet", Decider(bundle), begin, Privacy(), NoProgress()
    )


def test_a_policy_decides_as_the_replay_does(played, replayed):
    decided = {d.transaction_id: d for d in map(decode_decision, (replayed[0] / "decisions.jsonl").read_bytes().splitlines())}
    assert len(played.ids) > 1_000
    assert [decided[identity].probability for identity in played.ids] == played.probability.tolist()
    assert np.array_equal(np.array([decided[identity].outcome != "approve" for identity in played.ids]), played.outcome > 0)


def test_the_result_of_a_policy_adds_up(played):
    result = backtest.summary(played, "EUR", minutes_per_alert=3)
    flagged = played.outcome > 0
    assert result.currency == "EUR"
    assert result.money_caught == int(played.amount[flagged & played.fraud].sum()) > 0
    assert result.money_caught + result.money_lost == int(played.amount[played.fraud].sum())
    assert result.measures.alerts == int(flagged.sum())
    assert result.declined == int((played.outcome == 2).sum())
    days = (played.time.max() - played.time.min() + 1) / 86_400_000
    assert result.analyst_hours_per_day == pytest.approx(flagged.sum() / days * 3 / 60, rel=0.02)
    flat = result.flat()
    assert flat["precision"] == result.measures.precision
    assert "measures" not in flat


def test_two_policies_differ_where_their_thresholds_do(world, bundle, bundle_dir, tmp_path):
    files = ["--transactions", str(world / "transactions.parquet"), "--labels", str(world / "labels.parquet")]
    options = ["--bundle", str(bundle_dir), *files, "--review", str(bundle.policy.review), "--against-review", "0.6"]
    out = tmp_path / "differences.csv"
    done = CliRunner().invoke(whyflag, ["backtest", *options, "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    ours, theirs = report["policies"]
    assert (ours["policy"], theirs["policy"], ours["currency"]) == ("policy", "against", "EUR")
    assert ours["alerts"] > theirs["alerts"]
    rows = pyarrow.csv.read_csv(out).to_pylist()
    assert {(row["against_outcome"], row["outcome"]) for row in rows} == {
        (one["from"], one["to"]) for one in report["differences"]
    }
    for one in report["differences"]:
        own = [row for row in rows if (row["against_outcome"], row["outcome"]) == (one["from"], one["to"])]
        assert one["transactions"] == len(own)
        assert one["frauds"] == sum(row["fraud"] for row in own)
        assert one["fraud_amount"] == sum(row["amount"] for row in own if row["fraud"])
    caught = sum(one["fraud_amount"] for one in report["differences"] if one["from"] == "approve")
    assert ours["money_caught"] - theirs["money_caught"] == caught


def test_amounts_are_printed_with_their_currency(world, bundle_dir):
    files = ["--transactions", str(world / "transactions.parquet"), "--labels", str(world / "labels.parquet")]
    done = CliRunner().invoke(whyflag, ["backtest", "--bundle", str(bundle_dir), *files])
    assert done.exit_code == 0, done.output
    money = [line for line in done.stdout.splitlines() if line.startswith(("fraud caught", "fraud missed"))]
    assert len(money) == 2
    assert all("EUR " in line for line in money)
