"""From an alert to its explanation: facts, the template's narrative, and the explain stage of the stream."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from analyst.cases import Cases
from analyst.queue import Queue
from core.clock import SystemClock, duration_ms
from core.errors import DatabaseError
from core.messages import Channel, Finding, Side, SimilarCase, Subject, decode_dead_letter, decode_explanation, encode
from core.topics import ALERTS, DEAD_LETTERS, EXPLANATIONS, VERDICTS
from explain.claims import TEMPLATE
from explain.explainer import Explainer
from explain.facts.cases import case_facts
from explain.facts.history import DeviceHistory, MerchantHistory, Payment
from explain.facts.kinds import usual_of
from models.scorer import CURRENCY_UNKNOWN, EVENT_LATE, ID_REUSED, NOVEL
from streams.stages.explain import ExplainStage
from streams.stages.stage import Chunk
from tests.strategies import examples


def test_every_alert_is_explained_completely(explained):
    for alert, explanation in explained:
        ids = [fact.fact_id for fact in explanation.facts]
        assert len(set(ids)) == len(ids)
        assert {"T1", "S1", "M1", "B1", "C1", "N1"} <= set(ids)
        assert explanation.reasons
        assert explanation.narrator == TEMPLATE
        assert {fact_id for theme in explanation.themes for fact_id in theme.facts} <= set(ids)
        (amount,) = [fact.values["amount"] for fact in explanation.facts if fact.kind == "payment"]
        assert (amount.number, amount.currency) == (alert.transaction.amount, alert.transaction.currency)
        assert decode_explanation(encode(explanation)) == explanation


def test_the_probability_and_its_frequency_agree(explained, bundle):
    kinds = set()
    for alert, explanation in explained:
        score = explanation.fact("S1")
        kinds.add(score.kind)
        probability = alert.decision.probability
        assert score.values["probability"].number == probability
        if score.kind == "score":
            assert score.values["hundred"].number == round(100 * probability)
        else:
            assert score.values["low"].number <= 100 * probability <= score.values["high"].number
            seen = bundle.calibration.bin_of(probability)
            assert seen is None or seen.count < 30
    assert kinds == {"score", "score-few"}


def test_feature_facts_carry_the_usual_value(explained):
    facts = [fact for _, explanation in explained for fact in explanation.facts]
    assert any(fact.usual is not None and fact.kind == "feature-amount-sum" for fact in facts)


def test_an_alert_of_another_bundle_gets_no_reasons_and_says_so(alerts, explainer):
    decided = msgspec.structs.replace(alerts[0].decision, bundle="0123456789ab")
    explanation = explainer.explain(msgspec.structs.replace(alerts[0], decision=decided))
    assert not explanation.themes
    assert explanation.start is None
    (other,) = [fact for fact in explanation.facts if fact.kind == "other-bundle"]
    assert other.values["raised"].text == "0123456789ab"
    assert explanation.fact("S1").kind == "score-elsewhere"
    assert explanation.fact("C1").kind == "cases-not-searched"
    assert explanation.similar_cases == ()


def test_an_alert_without_a_score_is_explained_too(alerts, explainer):
    decided = msgspec.structs.replace(
        alerts[0].decision, bundle="none", probability=None, novelty=None, reason_codes=("model_unavailable",)
    )
    explanation = explainer.explain(msgspec.structs.replace(alerts[0], decision=decided))
    assert explanation.fact("S1").kind == "unscored"
    assert any(mention.fact_id == "S1" for claim in explanation.narrative for mention in claim.mentions)
    assert explanation.reasons == ("model_unavailable",)


def test_doubts_novelty_rules_and_missing_fields_are_facts(alerts, explainer):
    decided = msgspec.structs.replace(
        alerts[0].decision, reason_codes=(EVENT_LATE, ID_REUSED, CURRENCY_UNKNOWN, NOVEL), rule_hits=("blocked", "fast")
    )
    bare = msgspec.structs.replace(alerts[0].transaction, channel=Channel.ONLINE, mcc=None, country=None, device_id=None)
    explanation = explainer.explain(msgspec.structs.replace(alerts[0], decision=decided, transaction=bare, recent=()))
    kinds = [fact.kind for fact in explanation.facts]
    assert {"doubt-late", "doubt-reused", "doubt-currency", "novel", "payment-first"} <= set(kinds)
    assert [fact.values["rule"].text for fact in explanation.facts if fact.kind == "rule"] == ["blocked", "fast"]
    assert [fact.values["field"].text for fact in explanation.facts if fact.kind == "missing"] == [
        "field-mcc",
        "field-country",
        "field-device",
    ]
    told = {mention.fact_id for claim in explanation.narrative for mention in claim.mentions}
    assert {"D1", "D2", "D8"} <= told, "the narrative must mention every doubt"


# -- the past ------------------------------------------------------------------------------------------------------------------------


class FakeHistory:
    """Fake store of past payments; if ``broken``, it raises DatabaseError."""

    def __init__(self, payments, begins=0, holds=True, broken=False):
        self.payments, self.begin, self.held, self.broken, self.asked = payments, begins, holds, broken, 0

    def oldest_written_at(self):
        return self.begin

    def contains(self, transaction):
        return self.held

    def payments_of_card(self, card_id, since, before):
        self.asked += 1
        if self.broken:
            raise DatabaseError("gone")
        return [one for one in self.payments if since <= one.event_time < before]

    def merchant(self, merchant_id, since, before):
        return MerchantHistory(40, 30, 3, 2)

    def device(self, device_id, since, before):
        return DeviceHistory(9, 4)


def with_past(alert, bundle, casebook, past, **changes):
    transaction = msgspec.structs.replace(
        alert.transaction, **({"channel": Channel.ONLINE, "device_id": "d1", "mcc": "5411"} | changes)
    )
    return Explainer(bundle, casebook, history=past).explain(msgspec.structs.replace(alert, transaction=transaction))


def payments(alert, count, **changes):
    own = {"channel": Channel.ONLINE, "device_id": "d1", "mcc": "5411", "merchant_id": alert.transaction.merchant_id} | changes
    step = 5 * 3_600_000
    return [
        Payment(
            f"t{i}",
            alert.transaction.event_time - (count - i) * step,
            amount=100 * (i + 1),
            currency=alert.transaction.currency,
            **own,
        )
        for i in range(count)
    ]


def kinds_of(explanation):
    return {fact.kind: fact for fact in explanation.facts if fact.fact_id.startswith("H")}


def test_habits_of_the_card_merchant_and_device_are_facts(alerts, bundle, casebook):
    alert = msgspec.structs.replace(alerts[0], transaction=msgspec.structs.replace(alerts[0].transaction, amount=450))
    found = kinds_of(with_past(alert, bundle, casebook, FakeHistory(payments(alert, 100))))
    assert {
        "habit-amount",
        "habit-hours",
        "habit-channel",
        "habit-category",
        "habit-merchant-largest",
        "device-known",
        "device-shared",
    } <= set(found)
    amounts = found["habit-amount"].values
    assert (amounts["median"].number, amounts["high"].number, amounts["rank"].number) == (5_000, 9_500, 0.04)
    assert found["habit-amount"].side is Side.LEGITIMATE
    assert found["habit-channel"].values["share"].number == 1
    assert found["habit-merchant-largest"].values["payments"].number == 100
    assert found["device-known"].values["payments"].number == 100
    assert found["device-shared"].values["cards"].number == 3
    assert (found["merchant-history"].values["frauds"].number, found["merchant-history"].side) == (3, Side.FRAUD)


def test_a_few_payments_support_neither_side(alerts, bundle, casebook):
    found = kinds_of(with_past(alerts[0], bundle, casebook, FakeHistory(payments(alerts[0], 5))))
    assert {fact.side for fact in found.values() if fact.subject is not Subject.MERCHANT} == {Side.NEITHER}


def test_many_small_payments_at_a_merchant_do_not_support_a_large_one(alerts, bundle, casebook):
    def side(amount):
        alert = msgspec.structs.replace(alerts[0], transaction=msgspec.structs.replace(alerts[0].transaction, amount=amount))
        return kinds_of(with_past(alert, bundle, casebook, FakeHistory(payments(alert, 100))))["habit-merchant-largest"].side

    assert (side(15_000), side(500_000)) == (Side.LEGITIMATE, Side.NEITHER)


def test_the_usual_value_excludes_the_payment_itself(bundle):
    spec = bundle.spec
    card = spec.entities[0]
    amount = next(f for f in card.features if f.name.endswith("amount")) if any(f.op == "amount" for f in card.features) else None
    total = next(f for f in card.features if f.op == "amount_sum" and f.window != card.windows[-1].length)
    longest = card.windows[-1].length
    features = {f.name: None for entity in spec.entities for f in entity.features}
    features |= {"amount": 1_000.0, f"card_amount_mean_{longest}": 190.0, f"card_count_{longest}": 10.0}
    features |= {total.name: 1_000.0, total.name.replace("amount_sum", "count"): 1.0}
    rest = 190.0 * 10 - 1_000.0
    if amount is not None:
        assert usual_of(amount, card, features) == pytest.approx(rest / 9)
    share = duration_ms(total.window) / (duration_ms(longest) - duration_ms(total.window))
    assert usual_of(total, card, features) == pytest.approx(rest * share)
    assert usual_of(total, card, features | {f"card_count_{longest}": 5.0}) is None, "only four other payments"


def test_merchants_and_devices_new_to_the_card_are_facts(alerts, bundle, casebook):
    past = FakeHistory(
        payments(alerts[0], 50, merchant_id="another", device_id="another", channel=Channel.CARD_PRESENT, mcc="4111")
    )
    found = kinds_of(with_past(alerts[0], bundle, casebook, past))
    assert {"habit-merchant-new", "device-new"} <= set(found)
    assert found["device-new"].side is Side.FRAUD
    assert (found["habit-channel"].values["share"].number, found["habit-channel"].side) == (0, Side.FRAUD)


def test_the_explanation_states_gaps_in_the_archive(alerts, bundle, casebook):
    assert "archive-missing" in kinds_of(with_past(alerts[0], bundle, casebook, None))
    late = kinds_of(with_past(alerts[0], bundle, casebook, FakeHistory(payments(alerts[0], 100), holds=False)))
    assert "archive-behind" in late
    assert {fact.side for fact in late.values() if fact.subject is not Subject.MERCHANT} == {Side.NEITHER}, (
        "a past with gaps supports neither side"
    )
    behind = kinds_of(with_past(alerts[0], bundle, casebook, FakeHistory([], holds=False)))
    assert {"archive-behind", "habit-none"} <= set(behind)
    young = alerts[0].transaction.event_time - 5 * 86_400_000
    assert (
        kinds_of(with_past(alerts[0], bundle, casebook, FakeHistory([], begins=young)))["archive-young"].values["days"].number
        == 5
    )


def test_an_unresponsive_archive_is_not_queried_again_for_a_while(alerts, bundle, casebook):
    past = FakeHistory([], broken=True)
    explainer = Explainer(bundle, casebook, history=past)
    for alert in alerts[:3]:
        assert "archive-missing" in kinds_of(explainer.explain(alert))
    assert past.asked == 1


def test_cases_that_contradict_the_score_are_a_fact():
    def case(outcome):
        return SimilarCase(case_id="c", outcome=outcome, closed_time=1_750_000_000_000, similarity=0.9, shared=("pace",))

    honest, fraud = case(Finding.LEGITIMATE), case(Finding.FRAUD)
    kinds = lambda cases, probability: [fact.kind for fact in case_facts(cases, probability, None)]  # noqa: E731
    assert "cases-contradict" in kinds([honest] * 5, 0.7)
    assert "cases-contradict" in kinds([fraud] * 5, 0.1)
    assert "cases-contradict" not in kinds([fraud] * 5, 0.7)
    assert kinds([], 0.7) == ["cases-none"]
    assert kinds([honest], None) == ["cases", "case-shared"]


def _damaged(alert, kind):
    name = next(iter(alert.features))
    return {
        "a feature is missing": msgspec.structs.replace(alert, features={k: v for k, v in alert.features.items() if k != name}),
        "a feature is huge": msgspec.structs.replace(alert, features=alert.features | {name: 1e308}),
        "a feature is of another spec": msgspec.structs.replace(alert, features={"other": 1.0}),
    }[kind]


@pytest.mark.parametrize("kind", ["a feature is missing", "a feature is huge", "a feature is of another spec"])
def test_an_alert_that_cannot_be_explained_becomes_a_dead_letter_and_does_not_stop_others(explainer, alerts, kind, tmp_path):
    queue = Queue(f"sqlite:///{tmp_path}/queue.db", SystemClock())
    stage = ExplainStage(explainer, queue, Cases(queue))
    values = [encode(_damaged(alerts[0], kind)), encode(alerts[1]), b"\xff", b'{"alert_id": 1}', encode(alerts[2])[:-9]]
    records = [
        SimpleNamespace(topic=ALERTS, partition=0, timestamp=0, offset=i, key=b"k", value=value) for i, value in enumerate(values)
    ]
    outputs = asyncio.run(stage.process([Chunk(ALERTS, 0, records)]))
    assert [output.topic for output in outputs].count(EXPLANATIONS) == 1
    letters = [decode_dead_letter(value) for output in outputs if output.topic == DEAD_LETTERS for value in output.values]
    assert [letter.offset for letter in letters] == [0, 2, 3, 4]
    assert all(letter.stage == "explain" and letter.message for letter in letters)
    queue.close()


@given(st.lists(st.binary(max_size=100), max_size=6))
@examples(50)
def test_the_explain_stage_turns_any_bytes_into_dead_letters(explainer, values):
    stage = ExplainStage(explainer, None, None)
    for topic in (ALERTS, VERDICTS):
        records = [
            SimpleNamespace(topic=topic, partition=0, timestamp=0, offset=i, key=b"k", value=value)
            for i, value in enumerate(values)
        ]
        outputs = asyncio.run(stage.process([Chunk(topic, 0, records)]))
        assert [output.topic for output in outputs] == [DEAD_LETTERS] * len(values)


def test_without_the_casebooks_database_nothing_is_acknowledged(explainer, alerts, tmp_path, monkeypatch):
    """A failed lookup does not make a dead letter: the error stops the worker, which later reads the alert again."""
    queue = Queue(f"sqlite:///{tmp_path}/queue.db", SystemClock())
    stage = ExplainStage(explainer, queue, Cases(queue))

    def gone(*arguments):
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(explainer.casebook, "similar", gone)
    record = SimpleNamespace(topic=ALERTS, partition=0, timestamp=0, offset=0, key=b"k", value=encode(alerts[0]))
    with pytest.raises(OperationalError):
        asyncio.run(stage.process([Chunk(ALERTS, 0, [record])]))
    queue.close()
