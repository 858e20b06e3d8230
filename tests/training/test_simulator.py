import json

import numpy as np
import pyarrow.compute as pc
import pytest

from core.errors import InputError
from core.messages import Transaction
from models.features.columns import table_columns
from training.data.mapping import FIELDS
from training.simulator import SimulationSpec, simulate
from training.simulator.fraud import TYPOLOGIES
from training.simulator.population import CATEGORIES


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


def test_transactions_do_not_contain_the_truth(made):
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

    from training.data.conform import SCHEMA

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


def test_an_invalid_simulation_spec_is_refused():
    with pytest.raises(InputError, match="days 2 to"):
        simulate(SimulationSpec(days=0))


def _rows(made, *names):
    return {name: made.transactions[name].to_numpy(zero_copy_only=False) for name in names}


def test_the_gaps_between_the_frauds_of_an_incident_are_irregular(made):
    kinds = np.array(made.truth["typology"].to_pylist())
    rows = _rows(made, "event_time", "card_id")
    variation = []
    for card in set(rows["card_id"][kinds == "card_testing"]):
        times = rows["event_time"][(kinds == "card_testing") & (rows["card_id"] == card)]
        gaps = np.diff(times)
        gaps = gaps[gaps < 3_600_000]
        if len(gaps) > 3:
            variation.append(gaps.std() / gaps.mean())
    assert len(variation) > 10
    assert 0.5 < np.median(variation) < 1.2, "variation is 0 for evenly spaced frauds, about 1 for exponential gaps"


def test_devices_are_shared_by_thieves_and_by_households(made):
    kinds = np.array(made.truth["typology"].to_pylist())
    rows = _rows(made, "device_id", "card_id")
    used = np.array([device is not None for device in rows["device_id"]])

    def cards_of_a_device(which):
        cards = {}
        for device, card in zip(rows["device_id"][used & which], rows["card_id"][used & which], strict=True):
            cards.setdefault(device, set()).add(card)
        return np.array([len(one) for one in cards.values()])

    takeovers, honest = cards_of_a_device(kinds == "account_takeover"), cards_of_a_device(kinds == "honest")
    assert (takeovers > 1).mean() > 0.3
    assert 0.03 < (honest > 1).mean() < 0.2, "a shared device alone must not prove fraud"


def test_channels_fit_the_kind_of_shop(made):
    rows = _rows(made, "mcc", "channel")
    for category in CATEGORIES:
        online = rows["channel"][rows["mcc"] == category.mcc] == "online"
        if category.online in (0.0, 1.0):
            assert set(online) == {bool(category.online)}, category.name
        else:
            assert 0 < online.mean() < 1, category.name


def test_honest_payments_follow_the_local_time(made):
    rows, kinds = _rows(made, "event_time", "country", "channel"), np.array(made.truth["typology"].to_pylist())
    hours = rows["event_time"] // 3_600_000 % 24
    at_home = (kinds == "honest") & (rows["channel"] == "card_present")

    def share_of(country, begin, end):
        own = hours[at_home & (rows["country"] == country)]
        return ((own >= begin) & (own < end)).mean()

    assert share_of("US", 13, 24) > 0.65, "day in New York"
    assert share_of("FR", 0, 5) < 0.15
    assert share_of("TH", 0, 14) > 0.65, "day in Bangkok"


def test_people_shop_near_their_homes():
    from training.simulator.population import make_customers, make_merchants

    rng = np.random.default_rng(1)
    merchants, customers = make_merchants(rng, 2_000), make_customers(rng, 400, 1.0, 0, 30)
    one, other = (rng.integers(0, len(merchants.category), 400) for _ in range(2))

    def distance(m):
        return np.hypot(merchants.lat[m] - customers.lat, merchants.lon[m] - customers.lon)

    chosen = merchants.nearer(one, other, customers.lat, customers.lon)
    assert (distance(chosen) == np.minimum(distance(one), distance(other))).all()
