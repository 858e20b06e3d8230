import asyncio
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyst.queue import Queue
from core.clock import SystemClock
from core.errors import SettingsError
from core.messages import EvidenceItem, Finding, decode_alert, decode_dead_letter, encode
from core.settings import Settings
from core.topics import ALERTS, DEAD_LETTERS, EXPLANATIONS, VERDICTS
from explain.casebook import SIMILAR, Case, Casebook, bundle_cases
from explain.evidence import gather
from explain.explainer import Explainer
from explain.narrator import (
    PARTS,
    TEMPLATE,
    Claim,
    Facts,
    Narrative,
    TemplateNarrator,
    language_model,
    parse,
    prompt_for,
    template_claims,
)
from explain.reasons import REASONS, label, sentence, shown
from explain.verification import fault, verified
from models.features.spec import SPECS, Op
from streams.explain import ExplainStage


@pytest.fixture(scope="module")
def alerts(replayed):
    out, _ = replayed
    return [decode_alert(line) for line in (out / "alerts.jsonl").read_bytes().splitlines()]


@pytest.fixture(scope="module")
def casebook(bundle):
    return Casebook(bundle, bundle_cases(bundle))


@pytest.fixture(scope="module")
def explainer(bundle, casebook):
    return Explainer(bundle, casebook, None, 5)


@pytest.fixture(scope="module")
def explained(alerts, explainer):
    """The newest alerts with their explanations."""
    return [(alert, explainer.explain(alert)) for alert in alerts[-250:]]


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
        assert sum(len(s.text.split()) for s in explanation.narrative) <= 170


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


# -- similar cases ----------------------------------------------------------------------------------------------------------------


def test_similar_cases_are_the_nearest_by_exact_search(alerts, bundle, casebook):
    cases = bundle_cases(bundle)
    vectors = np.stack([casebook.vector(case.features, case.contributions) for case in cases])
    for alert in alerts[-30:]:
        evidence = gather(alert, bundle)
        own = casebook.vector(evidence.x, evidence.shap)
        before = alert.transaction.event_time
        allowed = [i for i, c in enumerate(cases) if c.closed_time < before and c.case_id != alert.alert_id]
        best = sorted((float(vectors[i] @ own) for i in allowed), reverse=True)[:5]
        found = casebook.similar(evidence.x, evidence.shap, before, alert.alert_id)
        np.testing.assert_allclose([case.similarity for case in found], best, atol=2e-4)


def test_only_cases_closed_before_the_alert_are_shown(explained):
    seen = 0
    for alert, explanation in explained:
        for case in explanation.similar_cases:
            assert case.closed_time < alert.transaction.event_time
            assert case.case_id != alert.alert_id
            seen += 1
    assert seen > 20


def test_similar_cases_tell_fraud_from_honest_better_than_chance(explained, world):
    truth = pq.read_table(world / "truth.parquet").to_pydict()
    kinds = dict(zip(truth["transaction_id"], truth["typology"], strict=True))
    share: dict[bool, list[float]] = {True: [], False: []}
    for alert, explanation in explained:
        cases = explanation.similar_cases
        if len(cases) == SIMILAR:
            frauds = sum(case.outcome is Finding.FRAUD for case in cases) / SIMILAR
            share[kinds[alert.transaction.transaction_id] != "honest"].append(frauds)
    assert min(len(found) for found in share.values()) > 20
    pairs = [(fraud > honest) + 0.5 * (fraud == honest) for fraud in share[True] for honest in share[False]]
    assert np.mean(pairs) > 0.65  # the area under the ROC curve of the neighbours' fraud share


def test_a_new_case_is_found_at_once_and_never_twice(alerts, bundle):
    casebook = Casebook(bundle, [])
    evidence = gather(alerts[0], bundle)
    assert casebook.similar(evidence.x, evidence.shap, 2**60, "other") == []
    case = Case("al_1", Finding.FRAUD, 1_700_000_000_000, evidence.x, evidence.shap)
    casebook.add_all([case, case])
    casebook.add_all([case])
    (found,) = casebook.similar(evidence.x, evidence.shap, 2**60, "other")
    assert (found.case_id, found.outcome, found.differences) == ("al_1", Finding.FRAUD, ())
    assert found.similarity == pytest.approx(1, abs=1e-3)


# -- narrator and verification ----------------------------------------------------------------------------------------------------

FACTS = Facts(
    (
        EvidenceItem(evidence_id="T1", kind="timeline", code="TIMELINE", text="EUR 1,031.16 on 2026-11-24 at 03:09 UTC, online, in FR."),
        EvidenceItem(evidence_id="S1", kind="score", code="SCORE_REVIEW", text="The calibrated probability of fraud is 71.0 %."),
        EvidenceItem(evidence_id="E1", kind="contribution", code="CARD_NEW_DEVICE", text="This card had not been used from this device.", contribution=2.4),
        EvidenceItem(evidence_id="E2", kind="contribution", code="CARD_SPEND", text="This card spent EUR 1,514.77 within 7 days.", contribution=-0.4),
        EvidenceItem(evidence_id="C1", kind="cases", code="SIMILAR_CASES", text="Of the 5 most similar closed cases, 3 were fraud and 2 legitimate."),
    ),
    "Ask the customer to confirm the transaction.",
)  # fmt: skip


@pytest.mark.parametrize(
    ("part", "text", "ids"),
    [
        ("what_happened", "Somebody paid EUR 1,031.16 online from FR at 03:09 UTC.", ("T1",)),
        ("what_happened", "The model puts fraud at 71 %.", ("S1",)),
        ("why_unusual", "The device is new to this card, which raises the risk score.", ("E1",)),
        ("similar_cases", "Three of the five nearest cases were fraud.", ("C1",)),
        ("speaks_against", "Spending EUR 1514.77 in 7 days speaks against fraud.", ("E2",)),
        ("next_step", "Ask the customer to confirm the transaction.", ("T1",)),
    ],
)
def test_faithful_sentences_pass(part, text, ids):
    assert fault(Claim(part, text, ids), FACTS) is None


@pytest.mark.parametrize(
    ("part", "text", "ids", "found"),
    [
        ("what_happened", "Somebody paid EUR 1,013.16 online.", ("T1",), "number"),
        ("what_happened", "It happened on 2026-11-25.", ("T1",), "number"),
        ("what_happened", "It happened at 03:90 UTC.", ("T1",), "number"),
        ("what_happened", "It was twice the usual amount.", ("T1",), "number"),
        ("similar_cases", "Four of the five nearest cases were fraud.", ("C1",), "number"),
        ("similar_cases", "Case al_0123456789ab was fraud.", ("C1",), "case"),
        ("why_unusual", "The 7 day spend raises the risk of fraud.", ("E2",), "against fraud told as one for"),
        ("speaks_against", "The new device speaks against fraud.", ("E1",), "for fraud told as one against"),
        ("why_unusual", "The new device lowers the fraud score.", ("E1",), "for fraud told as one against"),
        ("why_unusual", "A new device.", ("E9",), "evidence"),
        ("why_unusual", "A new device.", (), "evidence"),
        ("why_unusual", "A <b>new</b> device.", ("E1",), "plain text"),
        ("why_unusual", "See https://example.com for the device.", ("E1",), "plain text"),
        ("why_unusual", "A new\x07 device.", ("E1",), "plain text"),
        ("why_unusual", "x" * 401, ("E1",), "plain text"),
        ("why_unusual", "This is definitely fraud.", ("E1",), "judgement"),
        ("next_step", "Release the payment.", ("T1",), "suggested next step"),
        ("verdict", "Fraud.", ("T1",), "part"),
    ],
)
def test_unfaithful_sentences_are_refused(part, text, ids, found):
    assert found in (fault(Claim(part, text, ids), FACTS) or "")


@given(st.integers(0, 10**9), st.integers(0, 99))
@settings(deadline=None)
def test_no_number_gets_past_that_is_not_in_the_evidence(whole, cents):
    text = f"{whole}.{cents:02d}"
    allowed = {f"{float(n.replace(',', '')):.6g}" for n in re.findall(r"[\d,]+\.?\d*", "1,031.16 2026 11 24 03 09")}
    found = fault(Claim("what_happened", f"The amount was {text}.", ("T1",)), FACTS)
    assert (found is None) == (f"{float(text):.6g}" in allowed and float(text) == 1031.16)


def test_a_failed_part_is_shown_in_the_templates_words():
    narrative = Narrative(
        (
            Claim("what_happened", "Somebody paid EUR 1,031.16.", ("T1",)),
            Claim("why_unusual", "The card was used 99 times.", ("E1",)),
            Claim("next_step", FACTS.suggestion, ("T1",)),
        )
    )
    words, checked = verified(narrative, FACTS, "model", TEMPLATE)
    by = {s.text: s.written_by for s in words}
    assert by["Somebody paid EUR 1,031.16."] == "model"
    assert by["This card had not been used from this device."] == TEMPLATE
    assert not any("99" in text for text in by)
    assert checked.checked == 3
    assert checked.replaced == 3  # one failed, two were missing


def test_the_template_speaks_through_the_language_model_interface():
    narrative = parse(TemplateNarrator().complete(prompt_for(FACTS)).text)
    assert narrative == template_claims(FACTS)
    assert [c.part for c in narrative.sentences] == sorted((c.part for c in narrative.sentences), key=PARTS.index)


def test_prompts_fence_their_facts_with_a_new_marker_each_time():
    one, two = prompt_for(FACTS), prompt_for(FACTS)
    assert one != two
    marker = one.rstrip("\n").split("\n")[-1]
    assert one.count(marker) == 3


@pytest.mark.parametrize(
    "answer", ["", "no", "{}", "[1]", '{"sentences": 3}', '{"sentences": [{"part": 1}]}', "{" * 30_000, "}{"]
)
def test_what_is_no_narrative_is_told(answer):
    with pytest.raises(ValueError, match="answer"):
        parse(answer)


class _Server(BaseHTTPRequestHandler):
    """Speaks the OpenAI protocol; what it answers is set by the test."""

    answer = ""
    status = 200
    requests: list = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        type(self).requests.append((self.path, body))
        message = {"role": "assistant", "content": self.answer}
        reply = {
            "id": "1", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }  # fmt: skip
        raw = json.dumps(reply if self.status == 200 else {"error": {"message": "no"}}).encode()
        self.send_response(self.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("Handler", (_Server,), {"requests": []})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    handler.url = f"http://127.0.0.1:{http.server_port}/v1"
    yield handler
    http.shutdown()
    http.server_close()
    thread.join()


def _narrated(bundle, casebook, server, alert):
    import asyncio

    llm = language_model(Settings(llm_url=server.url, llm_model="local", llm_timeout=5))
    explainer = Explainer(bundle, casebook, llm, 5)
    explanation = explainer.explain(alert)
    return explanation, asyncio.run(explainer.narrate(explanation))


def test_any_openai_compatible_server_can_word_the_facts(bundle, casebook, server, alerts):
    server.answer = '{"sentences": [{"part": "what_happened", "text": "A transaction was flagged.", "evidence_ids": ["T1"]}]}'
    explanation, narrated = _narrated(bundle, casebook, server, alerts[0])
    assert narrated.narrator == "local"
    assert narrated.narrative[0].text == "A transaction was flagged."
    assert narrated.narrative[0].written_by == "local"
    assert narrated.narrative[-1].written_by == TEMPLATE
    assert (narrated.evidence, narrated.similar_cases, narrated.suggestion) == (
        explanation.evidence, explanation.similar_cases, explanation.suggestion,
    )  # fmt: skip
    ((path, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert body["response_format"]["json_schema"]["schema"]["properties"].keys() == {"sentences"}


def test_no_identifier_and_no_free_text_reaches_the_prompt(bundle, casebook, server, alerts):
    transaction = msgspec.structs.replace(
        alerts[0].transaction, merchant_name="CANARY-NAME", memo="CANARY-MEMO", ip="203.0.113.7"
    )
    _narrated(bundle, casebook, server, msgspec.structs.replace(alerts[0], transaction=transaction))
    sent = json.dumps(server.requests)
    for secret in ("CANARY", "203.0.113.7", transaction.card_id, transaction.merchant_id, transaction.transaction_id):
        assert secret not in sent


@pytest.mark.parametrize(
    "answer", ["", "I cannot.", '{"sentences": [{"part": "what_happened", "text": "It cost 7.", "evidence_ids": ["T1"]}]}']
)
def test_a_useless_answer_leaves_the_templates_words(bundle, casebook, server, alerts, answer):
    server.answer = answer
    assert _narrated(bundle, casebook, server, alerts[0])[1] is None


def test_a_failing_server_leaves_the_templates_words(bundle, casebook, server, alerts):
    server.status = 500
    explanation, narrated = _narrated(bundle, casebook, server, alerts[0])
    assert narrated is None
    assert explanation.narrator == TEMPLATE


def test_a_server_without_a_model_is_a_wrong_setting():
    with pytest.raises(SettingsError, match="WHYFLAG_LLM_MODEL"):
        language_model(Settings(llm_url="http://127.0.0.1:1/v1"))
    assert language_model(Settings()) is None


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
    stage = ExplainStage(explainer, queue, 1)
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
    stage = ExplainStage(explainer, None, 1)
    for topic in (ALERTS, VERDICTS):
        records = [SimpleNamespace(topic=topic, partition=0, offset=i, key=b"k", value=value) for i, value in enumerate(values)]
        outputs = asyncio.run(stage.process(topic, 0, records))
        assert [output.topic for output in outputs] == [DEAD_LETTERS] * len(values)


def test_a_new_verdict_changes_its_case(bundle):
    case, *others = bundle_cases(bundle)[:40]
    casebook = Casebook(bundle, [case, *others])
    mine = (case.features, case.contributions, 1 << 60, "another")
    assert casebook.similar(*mine)[0].outcome == case.outcome
    other = Finding.FRAUD if case.outcome is Finding.LEGITIMATE else Finding.LEGITIMATE
    casebook.add_all([msgspec.structs.replace(case, outcome=other)])
    assert casebook.similar(*mine)[0].outcome == other
    casebook.withdraw(case.case_id)
    assert case.case_id not in [similar.case_id for similar in casebook.similar(*mine)]
