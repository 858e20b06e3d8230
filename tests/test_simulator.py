import json

import numpy as np
import pyarrow.compute as pc
import pytest

from core.errors import InputError
from core.messages import Transaction
from models.features.columns import table_columns
from training.mapping import FIELDS
from training.simulator import SimulationSpec, simulate
from training.simulator.fraud import TYPOLOGIES


@pytest.fixture(scope="module")
def made():
    return simulate(SimulationSpec(transactions=60_000, days=40, fraud_share=0.02, seed=11))


def test_the_same_seed_makes_the_same_world_and_another_does_not():
    spec = SimulationSpec(transactions=3_000, days=10, seed=5)
    one, two = simulate(spec), simulate(spec)
    assert one.transactions.equals(two.transactions)
    assert one.labels.equals(two.labels)
    assert one.truth.equals(two.truth)
    other = simulate(SimulationSpec(transactions=3_000, days=10, seed=6))
    assert not other.transactions["amount"].equals(one.transactions["amount"])


def test_the_world_is_as_large_as_asked_and_in_order(made):
    time = made.transactions["event_time"].to_numpy()
    assert abs(len(time) - 60_000) < 1_200
    assert (np.diff(time) >= 0).all()
    assert len(set(made.transactions["transaction_id"].to_pylist())) == len(time)


def test_every_typology_happens_in_about_its_share(made):
    counts = {row["values"]: row["counts"] for row in made.truth["typology"].value_counts().to_pylist()}
    frauds = sum(count for name, count in counts.items() if name != "honest")
    assert abs(frauds / len(made.truth) - 0.02) < 0.006
    for typology in TYPOLOGIES:
        assert 0.3 * typology.share < counts[typology.name] / frauds < 2 * typology.share, typology.name


def test_what_a_model_may_see_does_not_hold_the_truth(made):
    assert set(made.transactions.column_names) <= set(FIELDS)
    assert not {"typology", "fraud"} & set(made.transactions.column_names)
    assert set(made.truth.column_names) == {"transaction_id", "typology"}


def test_labels_come_later_by_source_and_some_are_missing_or_wrong(made):
    typology = dict(zip(made.truth["transaction_id"].to_pylist(), made.truth["typology"].to_pylist(), strict=True))
    labels = made.labels.to_pylist()
    assert all(label["label_time"] > label["event_time"] for label in labels)
    delay = {
        source: np.median([label["label_time"] - label["event_time"] for label in labels if label["source"] == source])
        / 86_400_000
        for source in ("chargeback", "customer", "analyst")
    }
    assert delay["analyst"] < delay["customer"] < delay["chargeback"]
    reported = {label["transaction_id"] for label in labels if label["fraud"]}
    frauds = {name for name, kind in typology.items() if kind != "honest"}
    assert 0.7 < len(frauds & reported) / len(frauds) < 0.97
    assert reported - frauds, "no honest transaction was reported"
    assert {label["transaction_id"] for label in labels if not label["fraud"]} <= reported


def _auc(score, positive):
    order = np.argsort(score, kind="stable")
    ranks = np.empty(len(score))
    ranks[order] = np.arange(1, len(score) + 1)
    n = positive.sum()
    return (ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n))


def test_no_single_column_gives_fraud_away(made):
    """Fraud overlaps with honest behaviour: no field alone separates the two well."""
    fraud = np.array([kind != "honest" for kind in made.truth["typology"].to_pylist()])
    columns = table_columns(_complete(made.transactions), "EUR", {}, 500, 5)
    hour = columns.event_time // 3_600_000 % 24
    online = pc.equal(made.transactions["channel"], "online").to_numpy()
    for score in (columns.amount, hour, online.astype(float), columns.lat):
        auc = _auc(np.nan_to_num(score.astype(float)), fraud)
        assert max(auc, 1 - auc) < 0.8


def _complete(table):
    import pyarrow as pa

    from training.readers import SCHEMA

    return pa.table(
        [table[f] if f in table.column_names else pa.nulls(len(table), SCHEMA.field(f).type) for f in FIELDS], names=list(FIELDS)
    )


def test_drift_changes_amounts_and_typologies():
    spec = {"transactions": 60_000, "days": 40, "fraud_share": 0.02, "seed": 2}
    still, drifting = simulate(SimulationSpec(**spec)), simulate(SimulationSpec(**spec, drift=True))

    def growth(made):
        amount = made.transactions["amount"].to_numpy()
        return np.median(amount[-20_000:]) / np.median(amount[:20_000])

    assert abs(growth(still) - 1) < 0.05
    assert growth(drifting) > 1.1

    def late_testing(made):
        kinds = made.truth["typology"].to_pylist()
        return kinds[len(kinds) // 2 :].count("card_testing") / max(kinds.count("card_testing"), 1)

    assert late_testing(drifting) < late_testing(still)


def test_simulated_transactions_are_valid_messages(made):
    import msgspec

    for row in made.transactions.slice(0, 200).to_pylist():
        values = {k: v for k, v in row.items() if v is not None}
        assert msgspec.json.decode(json.dumps(values).encode(), type=Transaction)


def test_nonsense_is_refused():
    with pytest.raises(InputError, match="days 2 to"):
        simulate(SimulationSpec(days=0))
