"""Narratives are checked sentence by sentence: what is faithful passes, what is corrupted does not, kind by kind."""

import json
import random
import re
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.messages import EvidenceItem
from explain.narrator import BUDGET, PARTS, TEMPLATE, Claim, Facts, Narrative, TemplateNarrator, parse, template_claims
from explain.prompting import NARRATIVE, prompt
from explain.verification import fault, verified
from tests import narratives
from tests.narratives import CORPORA, CORRUPTIONS, added, answers, faithful, made_up, turned

FACTS = Facts(
    (
        EvidenceItem(evidence_id="T1", kind="timeline", code="TIMELINE", text="EUR 1,031.16 on 2026-11-24 at 03:09 UTC, online, in FR."),
        EvidenceItem(evidence_id="S1", kind="score", code="SCORE_REVIEW", text="The calibrated probability of fraud is 71.0 %."),
        EvidenceItem(evidence_id="E1", kind="contribution", code="CARD_NEW_DEVICE", text="This card had not been used from this device.", value=1.0, contribution=2.4),
        EvidenceItem(evidence_id="E2", kind="contribution", code="CARD_SPEND", text="This card spent EUR 1,514.77 within 7 days.", value=1514.77, contribution=-0.4),
        EvidenceItem(evidence_id="C1", kind="cases", code="SIMILAR_CASES", text="Of the 5 most similar closed cases, 3 were fraud and 2 legitimate."),
    ),
    "Ask the customer to confirm the transaction.",
)  # fmt: skip


@pytest.mark.parametrize(
    ("part", "text", "ids"),
    [
        ("what_happened", "The card paid EUR 1,031.16 online in FR at 03:09 UTC.", ("T1",)),
        ("what_happened", "The model puts the probability of fraud at 71 %.", ("S1",)),
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
        ("what_happened", "The card paid EUR 1,013.16 online.", ("T1",), "1,013.16"),
        ("what_happened", "It happened on 2026-11-25.", ("T1",), "2026-11-25"),
        ("what_happened", "It happened at 03:19 UTC.", ("T1",), "03:19"),
        ("what_happened", "The amount of EUR 1,031.16 was twice the usual.", ("T1",), "2 times"),
        ("what_happened", "The card paid USD 1,031.16 online.", ("T1",), "USD"),
        ("what_happened", "The card paid EUR 1,031.16 online in DE.", ("T1",), "DE"),
        ("what_happened", "Somebody stole the card and paid EUR 1,031.16.", ("T1",), "stole"),
        ("what_happened", "The transaction is fraud.", ("S1",), "judgement"),
        ("similar_cases", "Four of the five nearest cases were fraud.", ("C1",), "4"),
        ("similar_cases", "3 of the 5 nearest cases were legitimate.", ("C1",), "3"),
        ("similar_cases", "All of the nearest cases were fraud.", ("C1",), "not all"),
        ("similar_cases", "Case al_0123456789ab was fraud.", ("C1",), "al_0123456789ab"),
        ("why_unusual", "The spend of EUR 1,514.77 within 7 days raises the risk of fraud.", ("E2",), "against fraud told as one for"),
        ("speaks_against", "The new device speaks against fraud.", ("E1",), "for fraud told as one against"),
        ("why_unusual", "The new device lowers the fraud score.", ("E1",), "for fraud told as one against"),
        ("why_unusual", "This card had been used from this device.", ("E1",), "opposite"),
        ("why_unusual", "The strongest reason is the spend of EUR 1,514.77 within 7 days, which speaks against fraud; the device is new to the card.", ("E1", "E2"), ""),
        ("why_unusual", "The device is new to the merchant.", ("E1",), "merchant"),
        ("why_unusual", "A new device.", ("E9",), "evidence"),
        ("why_unusual", "A new device.", (), "evidence"),
        ("why_unusual", "A <b>new</b> device.", ("E1",), "plain text"),
        ("why_unusual", "See https://example.com for the device.", ("E1",), "plain text"),
        ("why_unusual", "A new\x07 device.", ("E1",), "plain text"),
        ("why_unusual", "A n\u0435w device.", ("E1",), "plain text"),
        ("why_unusual", "x" * 401, ("E1",), "plain text"),
        ("why_unusual", "This is definitely fraud.", ("E1",), "judgement"),
        ("why_unusual", "Das Gerät ist neu für diese Karte.", ("E1",), "plain text"),
        ("why_unusual", "Dieses Ger\u0061t ist neu.", ("E1",), "more than"),
        ("next_step", "Release the payment.", ("T1",), "suggested next step"),
        ("verdict", "Fraud.", ("T1",), "part"),
    ],
)  # fmt: skip
def test_unfaithful_sentences_are_refused(part, text, ids, found):
    if found:
        assert found in (fault(Claim(part, text, ids), FACTS) or "")


_ITEMS = {
    "S1": EvidenceItem(evidence_id="S1", kind="score", code="SCORE_REVIEW", text="The calibrated probability of fraud is 13.8 %; review starts at 10.0 %. Of 100 transactions scored like this in calibration, about 51 were fraud (134 of 262)."),
    "T1": EvidenceItem(evidence_id="T1", kind="timeline", code="TIMELINE", text="EUR 3,025.66 on 2026-07-13 at 23:51 UTC, card present, in GB. 2 of the card's last 5 transactions were in the hour before."),
    "B1": EvidenceItem(evidence_id="B1", kind="baseline", code="CARD_NORMAL", text="In 30 days this card made 89 transactions, this one included, of EUR 41.32 on average and at most EUR 402.76. 42.3 % of those before were online."),
    "C1": EvidenceItem(evidence_id="C1", kind="cases", code="SIMILAR_CASES", text="Of the 5 most similar closed cases, 4 were fraud and 1 legitimate."),
    "K1": EvidenceItem(evidence_id="K1", kind="case", code="SIMILAR_CASE", text="Case al_1a2b3c4d was fraud, closed on 2026-10-26, similarity 0.84.", value=0.84),
    "E1": EvidenceItem(evidence_id="E1", kind="contribution", code="MERCHANT_LAST_FRAUD", text="The last known fraud of this merchant in 42 days was 23.9 days ago.", value=23.9, contribution=1.0),
    "E2": EvidenceItem(evidence_id="E2", kind="contribution", code="CARD_UNUSUAL_SINCE", text="The first unusual amount of this card in the 30 days before was 20.8 days ago.", value=20.8, contribution=0.9),
    "E3": EvidenceItem(evidence_id="E3", kind="contribution", code="CARD_RECENT_TO_NORMAL", text="The mean of the last three amounts of this card is 24.4 times its normal amount.", value=24.4, contribution=-0.8),
    "E4": EvidenceItem(evidence_id="E4", kind="contribution", code="MERCHANT_PAST_FRAUD_SHARE", text="74.1 % of the transactions of this merchant in 42 days are known to be fraud.", value=0.741, contribution=0.7),
    "E5": EvidenceItem(evidence_id="E5", kind="contribution", code="CARD_VELOCITY", text="This card had 1 transactions within 90 days. Usual for it: 4.", value=1.0, normal=4.0, contribution=0.6),
}  # fmt: skip


@pytest.mark.parametrize(
    ("id", "text"),
    [
        ("S1", "The probability that this is legitimate is 13.8 %."), ("S1", "There is a 13.8 % chance that the payment is genuine."),
        ("S1", "The likelihood of a genuine transaction is 13.8 %."), ("S1", "About 51 of 100 transactions of this card were fraud."),
        ("S1", "The customer made 262 transactions, 134 were fraud."),
        ("T1", "The 2 transactions in the hour before came to EUR 3,025.66."), ("T1", "The card's last transaction was EUR 3,025.66 on 2026-07-13."),
        ("T1", "2 of the card's last 5 transactions were in GB."), ("T1", "The card's last 5 transactions were in the hour before."),
        ("T1", "2 of the card's last 5 transactions were in the hour after."), ("T1", "2 of the card's last 5 transactions were card present."),
        ("E1", "The first known fraud of this merchant in 42 days was 23.9 days ago."),
        ("E2", "The last unusual amount of this card in the 30 days before was 20.8 days ago."), ("E2", "The first usual amount of this card was 20.8 days ago."),
        ("E2", "The card was first used 20.8 days ago."), ("E3", "This amount is 24.4 times the card's normal amount."),
        ("E3", "A concerning and risky mean of 24.4 times the card's normal amount."),
        ("E4", "74.1 % of the cards of this merchant in 42 days are known to be fraud."),
        ("B1", "42.3 % of the card's transactions were card present."), ("B1", "In 30 days this card made 89 transactions, all online."),
        ("E5", "This card had 1 transactions within 90 days, usually 4, so activity was higher."),
        ("K1", "Case al_1a2b3c4d was fraud with probability 0.84."), ("K1", "The least similar case, al_1a2b3c4d, was fraud."),
        ("K1", "Case al_1a2b3c4d was fraud and happened on 2026-10-26."), ("C1", "4 of this card's 5 closed cases were fraud."),
    ],
)  # fmt: skip
def test_false_sentences_that_a_reviewer_got_past_the_checker_once(id, text):
    facts = Facts(tuple(_ITEMS.values()), "")
    part = "similar_cases" if id[0] in "CK" else "speaks_against" if id == "E3" else "why_unusual"
    assert fault(Claim(part, text, (id,)), facts) is not None


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz ,.'%0123456789-()EUR", max_size=400), st.sampled_from(sorted(_ITEMS)))
@settings(max_examples=300, deadline=2000)
def test_any_text_is_read_or_refused(text, id):
    fault(Claim("why_unusual", text, (id,)), Facts(tuple(_ITEMS.values()), ""))


@pytest.mark.parametrize("word", ["thirtyfold", "hundredfold", "dozenfold", "twofold", "tenfold"])
def test_every_multiple_is_read(word):
    assert fault(
        Claim("speaks_against", f"The mean of the last three amounts rose {word}.", ("E3",)), Facts(tuple(_ITEMS.values()), "")
    )


@given(st.integers(0, 10**9), st.integers(0, 99))
@settings(deadline=None)
def test_no_amount_gets_past_that_is_not_in_the_evidence(whole, cents):
    found = fault(Claim("what_happened", f"The amount was EUR {whole}.{cents:02d}.", ("T1",)), FACTS)
    assert (found is None) == ((whole, cents) == (1031, 16))


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        ("EUR 1,031", True), ("about EUR 1,000", True), ("about EUR 1,050", True), ("about EUR 1,200", False), ("EUR 1,030", False),
        ("more than EUR 1,000", True), ("more than EUR 1,100", False), ("nearly EUR 1,100", True), ("nearly EUR 1,000", False),
        ("less than EUR 1,100", True), ("EUR 1032", False), ("1,031.16 euros", True),
    ],
)  # fmt: skip
def test_rounding_is_by_digits_and_hedges(said, passes):
    found = fault(Claim("what_happened", f"The amount was {said}.", ("T1",)), FACTS)
    assert (found is None) == passes, found


def test_a_failed_sentence_is_shown_in_the_templates_words():
    narrative = Narrative(
        (
            Claim("what_happened", "The card paid EUR 1,031.16.", ("T1",)),
            Claim("why_unusual", "The card was used 99 times.", ("E1",)),
            Claim("next_step", FACTS.suggestion, ("T1",)),
        )
    )
    words, checked = verified(narrative, FACTS, "model", TEMPLATE)
    by = {s.text: s.written_by for s in words}
    assert by["The card paid EUR 1,031.16."] == "model"
    assert by["This card had not been used from this device."] == TEMPLATE
    assert not any("99" in text for text in by)
    assert checked.checked == 3
    assert checked.replaced == 3  # one failed, two parts were missing
    assert {s.part for s in words} == set(PARTS)


def test_what_an_analyst_must_read_is_there_whatever_the_narrator_leaves_out():
    narrative = Narrative((Claim("what_happened", "The model puts the probability of fraud at 71 %.", ("S1",)),))
    words, _ = verified(narrative, FACTS, "model", TEMPLATE)
    assert {id for s in words for id in s.evidence_ids} >= {"T1", "S1", "E1", "E2", "C1"}


def test_the_budget_of_words_holds_and_what_is_needed_stays():
    long = "This card had not been used from this device, and this card had not been used from this device before."
    narrative = Narrative(tuple(Claim("why_unusual", long, ("E1",)) for _ in range(12)))
    words, _ = verified(narrative, FACTS, "model", TEMPLATE)
    assert sum(len(s.text.split()) for s in words) <= BUDGET
    assert {id for s in words for id in s.evidence_ids} >= {"T1", "S1", "E1", "E2", "C1"}


def test_the_template_speaks_through_the_language_model_interface():
    narrative = parse(TemplateNarrator().complete(prompt(NARRATIVE).filled(FACTS)).text)
    assert narrative == template_claims(FACTS)
    assert [c.part for c in narrative.sentences] == sorted((c.part for c in narrative.sentences), key=PARTS.index)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "no",
        "{}",
        "[1]",
        '{"sentences": 3}',
        '{"sentences": [{"part": 1}]}',
        "{" * 30_000,
        "}{",
        '{"sentences": [], "x": ' + "[" * 9000 + "]" * 9000 + "}",
    ],
)
def test_what_is_no_narrative_is_told(answer):
    with pytest.raises(ValueError, match="answer"):
        parse(answer)


# -- the corruption suite ------------------------------------------------------------------------------------------------------------


def measured(worlds: int):
    """Faithful sentences passed and refused, and corruptions caught and missed by kind, over made-up evidence of every kind."""
    passed, refused, caught, missed, examples = Counter(), Counter(), Counter(), Counter(), {}
    for number, (templates, claims) in enumerate(CORPORA):
        for seed in range(worlds):
            facts, slots = made_up(1000 * number + seed)
            rng = random.Random(seed)
            for told in faithful(facts, slots, templates):
                if found := fault(told.claim, facts):
                    refused[number] += 1
                    examples.setdefault(("refused", found), told.claim.text)
                    continue
                passed[number] += 1
                for kind, corrupt in CORRUPTIONS.items():
                    corrupted = added(told, rng, claims) if kind == "claim added" else corrupt(told, rng)
                    if corrupted is None:
                        continue
                    (caught if fault(corrupted, facts) else missed)[kind] += 1
            for kind, told in turned(facts, slots, templates):
                (caught if fault(told.claim, facts) else missed)[kind] += 1
    return passed, refused, caught, missed, examples


def test_corruptions_are_caught_and_faithful_sentences_pass():
    passed, refused, caught, missed, examples = measured(worlds=25)
    assert sum(passed.values()) > 5000
    for kind in (*CORRUPTIONS, "comparison", "rank"):
        total = caught[kind] + missed[kind]
        assert total >= 20, kind
        assert caught[kind] >= 0.99 * total or missed[kind] <= 2, (kind, caught[kind], missed[kind])
    assert sum(caught.values()) >= 0.995 * (sum(caught.values()) + sum(missed.values()))
    assert sum(refused.values()) <= 0.02 * (sum(passed.values()) + sum(refused.values())), sorted(examples.items())[:20]


@pytest.mark.parametrize("number", range(len(answers.slipped_through())))
def test_what_slipped_through_once_is_caught(number):
    facts, claim = answers.slipped_through()[number]
    assert fault(claim, facts) is not None, claim.text


def test_a_language_models_sentences_about_several_items_pass_and_their_corruptions_do_not():
    passed, refused, caught, missed, examples = 0, [], Counter(), Counter(), []
    for seed in range(2):
        rng = random.Random(seed)
        for facts, sentences in answers.answers():
            for claim in sentences:
                if found := fault(claim, facts):
                    refused.append((claim.text, found))
                    continue
                passed += 1
                for kind, corrupted in answers.corrupted(claim, facts, rng):
                    (caught if fault(corrupted, facts) else missed)[kind] += 1
                    examples += [] if fault(corrupted, facts) else [(kind, corrupted.text)]
    assert passed > 1300
    assert len(refused) <= 0.01 * passed, refused
    for kind in answers.CORRUPTIONS:
        assert caught[kind] >= 40, kind
        assert caught[kind] >= 0.99 * (caught[kind] + missed[kind]), (kind, examples)


def test_the_suite_sees_a_checker_that_checks_nothing(monkeypatch):
    monkeypatch.setattr("tests.test_verification.fault", lambda claim, facts: None)
    _, _, caught, missed, _ = measured(worlds=1)
    assert not caught
    assert len(missed) > 12


def test_everything_shown_of_real_alerts_has_the_rank_sign_and_value_of_the_evidence(explained):
    """Rank, sign and value accuracy as arXiv 2412.10220 measures them: of what a narrative says of features, all is so."""
    seen = 0
    for _, explanation in explained:
        by_id = {item.evidence_id: item for item in explanation.evidence}
        ranked = [item for item in explanation.evidence if item.kind == "contribution"]
        assert ranked == sorted(ranked, key=lambda item: -abs(item.contribution))
        for part, sign in (("why_unusual", 1), ("speaks_against", -1)):
            told = [s for s in explanation.narrative if s.part == part and by_id[s.evidence_ids[0]].kind == "contribution"]
            own = [item for item in ranked if sign * item.contribution > 0]
            items = [by_id[s.evidence_ids[0]] for s in told]
            assert items == own[: len(items)]  # rank and sign
            for sentence, item in zip(told, items, strict=True):
                seen += 1
                assert sentence.text.removeprefix("Against fraud: ") == item.text  # value
    assert seen > 300


@pytest.mark.parametrize("number", range(len(CORPORA)))
def test_inverted_attributions_are_not_told_by_their_usual_sign(number):
    """A narrator that tells what a feature usually means, whatever its contribution's sign, is refused every time."""
    templates, _ = CORPORA[number]
    told = 0
    for seed in range(30):
        facts, slots = made_up(seed)
        items = [msgspec.structs.replace(i, contribution=-i.contribution) if i.contribution else i for i in facts.evidence]
        inverted = Facts(tuple(items), facts.suggestion)
        for sentence in faithful(facts, slots, templates):
            if sentence.item.kind == "contribution" and {"for", "against"} & set(narratives.conditions(sentence.template)):
                told += 1
                assert fault(sentence.claim, inverted) is not None, sentence.claim.text
    assert told > 100


def test_corpora_are_of_different_texts():
    texts = [template["text"] for templates, _ in CORPORA for template in templates]
    assert len(set(texts)) > 0.95 * len(texts) > 1000
    assert len({claim for _, claims in CORPORA for claim in claims}) > 450
    assert all(re.search(r"[a-z]", text) for text in texts)
    assert json.dumps(texts)
