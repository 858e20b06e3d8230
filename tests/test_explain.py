"""From an alert to its explanation: evidence, the template's narrative, and the last hop of the stream."""

import asyncio
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from analyst.cases import Cases
from analyst.queue import Queue
from core.clock import SystemClock
from core.messages import decode_dead_letter, encode
from core.topics import ALERTS, DEAD_LETTERS, EXPLANATIONS, VERDICTS
from explain.evidence import gather
from explain.narrator import BUDGET, PARTS
from explain.reasons import REASONS, label, sentence, shown
from models.features.spec import SPECS, Op
from streams.explain import ExplainStage


def test_contributions_add_up_to_the_score(alerts, bundle):
    for alert in alerts[:60]:
        evidence = gather(alert, bundle)
        margin = sum(item.contribution or 0 for item in evidence.items)
        probability = bundle.calibration.probability(np.array([margin], np.float32))[0]
        assert probability == pytest.approx(alert.decision.probability, rel=2e-3)


def test_every_alert_is_explained_completely_and_every_sentence_passes(explained):
    for _, explanation in explained:
        ids = [item.evidence_id for item in explanation.evidence]
        assert len(set(ids)) == len(ids)
        assert {"S1", "T1", "C1", "E1"} <= set(ids)
        assert explanation.verification.replaced == 0, explanation.verification.reasons
        assert {id for s in explanation.narrative for id in s.evidence_ids} <= set(ids)
        assert explanation.reasons
        assert explanation.suggestion
        assert sum(len(s.text.split()) for s in explanation.narrative) <= BUDGET
        assert list(dict.fromkeys(s.part for s in explanation.narrative)) == list(PARTS)


def test_evidence_holds_this_cards_normal_beside_today(explained):
    items = [item for _, explanation in explained for item in explanation.evidence]
    assert any(item.normal is not None and "Usual for it" in item.text for item in items)
    assert any(item.code == "CARD_NORMAL" for item in items)


def test_an_alert_of_another_bundle_gets_no_contributions_and_says_so(alerts, explainer):
    decided = msgspec.structs.replace(alerts[0].decision, bundle="0123456789ab")
    explanation = explainer.explain(msgspec.structs.replace(alerts[0], decision=decided))
    assert not [item for item in explanation.evidence if item.kind == "contribution"]
    assert any("raised by bundle 0123456789ab" in item.text for item in explanation.evidence)
    assert explanation.similar_cases == ()


def test_an_alert_without_a_score_is_explained_too(alerts, explainer):
    decided = msgspec.structs.replace(
        alerts[0].decision, bundle="none", probability=None, novelty=None, reason_codes=("model_unavailable",)
    )
    explanation = explainer.explain(msgspec.structs.replace(alerts[0], decision=decided))
    assert "No model could score" in explanation.narrative[1].text
    assert explanation.verification.replaced == 0


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_feature_has_words_in_both_directions(name):
    spec = SPECS[name]()
    for entity in spec.entities:
        for feature in entity.features:
            assert label(feature)
            for value in (0.0, 1.0, 3.7, None):
                text = sentence(entity, feature, value, "EUR")
                assert text.endswith(".")
                assert "{" not in text
                assert "nan" not in text


def test_the_catalogue_covers_every_operation():
    assert set(REASONS) == set(Op)
    codes = [reason.code for reason in REASONS.values()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (1234.5, "money", "EUR 1,234.50"), (3.0, "count", "3"), (0.5, "count", "0.5"), (0.125, "share", "12.5 %"), (90.0, "duration", "90 s"),
        (7200.0, "duration", "2.0 h"), (5.75, "clock", "05:45"), (2.0, "weekday", "Wednesday"), (None, "count", "unknown"),
        (float("nan"), "money", "unknown"), (812.4, "km/h", "812 km/h"),
    ],
)  # fmt: skip
def test_values_are_shown_with_their_units(value, unit, words):
    assert shown(value, unit, "EUR") == words


def _damaged(alert, kind):
    name = next(iter(alert.features))
    return {
        "a feature is missing": msgspec.structs.replace(alert, features={k: v for k, v in alert.features.items() if k != name}),
        "a feature is huge": msgspec.structs.replace(alert, features=alert.features | {name: 1e308}),
        "a feature is of another spec": msgspec.structs.replace(alert, features={"other": 1.0}),
    }[kind]


@pytest.mark.parametrize("kind", ["a feature is missing", "a feature is huge", "a feature is of another spec"])
def test_an_alert_that_cannot_be_explained_is_a_dead_letter_and_stops_nothing(explainer, alerts, kind, tmp_path):
    queue = Queue(f"sqlite:///{tmp_path}/queue.db", SystemClock())
    stage = ExplainStage(explainer, queue, Cases(queue, SystemClock()))
    values = [encode(_damaged(alerts[0], kind)), encode(alerts[1]), b"\xff", b'{"alert_id": 1}', encode(alerts[2])[:-9]]
    records = [SimpleNamespace(topic=ALERTS, partition=0, offset=i, key=b"k", value=value) for i, value in enumerate(values)]
    outputs = asyncio.run(stage.process(ALERTS, 0, records))
    assert [output.topic for output in outputs].count(EXPLANATIONS) == 1
    letters = [decode_dead_letter(value) for output in outputs if output.topic == DEAD_LETTERS for value in output.values]
    assert [letter.offset for letter in letters] == [0, 2, 3, 4]
    assert all(letter.stage == "explain" and letter.message for letter in letters)
    queue.close()


@given(st.lists(st.binary(max_size=100), max_size=6))
@settings(max_examples=50, deadline=None)
def test_the_last_hop_survives_any_bytes(explainer, values):
    stage = ExplainStage(explainer, None, None)
    for topic in (ALERTS, VERDICTS):
        records = [SimpleNamespace(topic=topic, partition=0, offset=i, key=b"k", value=value) for i, value in enumerate(values)]
        outputs = asyncio.run(stage.process(topic, 0, records))
        assert [output.topic for output in outputs] == [DEAD_LETTERS] * len(values)


def test_without_the_casebooks_database_nothing_is_acknowledged(explainer, alerts, tmp_path, monkeypatch):
    """An alert that could not be looked up is no dead letter: the worker stops, and reads it again."""
    queue = Queue(f"sqlite:///{tmp_path}/queue.db", SystemClock())
    stage = ExplainStage(explainer, queue, Cases(queue, SystemClock()))

    def gone(*arguments):
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(explainer.casebook, "similar", gone)
    record = SimpleNamespace(topic=ALERTS, partition=0, offset=0, key=b"k", value=encode(alerts[0]))
    with pytest.raises(OperationalError):
        asyncio.run(stage.process(ALERTS, 0, [record]))
    queue.close()
