"""Comparison of models and prompts over the real protocol, judged explanations, and the draft of a report."""

import json
import math
import re
import time

import msgspec
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

from analyst.queue import Queue
from analyst.verdicts import Verdicts
from cli.main import whyflag
from core.clock import SystemClock
from core.errors import InputError
from core.messages import Claim, Finding, Form, Mention, Part
from core.settings import Settings
from explain.claims import TEMPLATE, Fault
from explain.evaluation import coverage, evaluate, page, reading_ease
from explain.judging import Case, Condition, judge, judge_sheet
from explain.narrators.client import language_model
from explain.sar import draft
from explain.words import writer
from tests.analyst.conftest import decide
from tests.openai_server import OpenAIServer


def _told(body):
    """Answer like a model that is careful with one prompt and invents facts with the other."""
    asked = body["messages"][0]["content"]
    lines = asked.rstrip("\n").split("\n")
    facts = json.loads("\n".join(lines[lines.index(lines[-1], len(lines) // 2) + 1 : -1]))
    first = {
        part: next(fact["id"] for fact in facts if fact["part"] == part)
        for part in ("what_happened", "similar_cases", "next_step")
    }
    strongest = next(fact["id"] for fact in facts if fact.get("strongest") and fact["side"] == "fraud")
    sentences = [{"part": part, "facts": [f"{fact}.clause"]} for part, fact in first.items()]
    sentences.append({"part": "why_unusual", "facts": [f"{strongest}.clause"], "opening": "strongest_for_fraud"})
    if "invent" in asked:
        sentences[0]["facts"] = ["The card was stolen yesterday."]
        sentences[-1]["part"] = "speaks_against"
    return json.dumps({"sentences": sentences})


def test_evaluation_distinguishes_models_and_prompts(alerts, explainer, tmp_path):
    (tmp_path / "wild.txt").write_text("invent\nfreely\n{marker}\n{facts}\n{marker}\n")
    with OpenAIServer(_told) as server, OpenAIServer(["500"]) as broken:
        models = [
            Settings(llm_url=server.url, llm_model="careful", llm_prompt_price=1.0, llm_answer_price=2.0),
            Settings(llm_url=broken.url, llm_model="broken", llm_timeout=2),
        ]
        results = evaluate(explainer, alerts[-20:], models, ["narrative-3", str(tmp_path / "wild.txt")])
    template, careful, inventing, *failing = results
    assert (template.model, template.accepted, template.fallback_sentences, template.over_budget) == (TEMPLATE, 1.0, 0.0, 0.0)
    assert 0.3 < careful.coverage < template.coverage < 1
    assert (careful.accepted, careful.fallback_alerts, careful.answered) == (1.0, 0.0, 20)
    assert (careful.prompt_tokens, careful.answer_tokens) == (20 * 700, 20 * 90)
    assert careful.cost == pytest.approx(20 * (700 * 1 + 90 * 2) / 1e6)
    assert inventing.prompt.startswith("wild-")
    assert inventing.faults == {Fault.UNKNOWN_FACT: 20, Fault.WRONG_PART: 20}
    assert inventing.accepted == 0.5
    assert 0 < inventing.fallback_sentences < 1
    for result in failing:
        assert (result.answered, result.fallback_alerts, result.fallback_sentences) == (0, 1.0, 1.0)
    whole = page(results, "made & tested")
    assert "made &amp; tested" in whole
    assert "The card was stolen yesterday." in whole
    assert not re.search(r"(?:src|href)=", whole)


def test_coverage_is_the_share_of_the_score_that_claims_mention(explained):
    for _, explanation in explained[:20]:
        every = [Claim(Part.WHY_UNUSUAL, (Mention(fact.fact_id, Form.CLAUSE),)) for fact in explanation.facts if fact.theme]
        assert coverage(explanation, every) == pytest.approx(1)
        assert coverage(explanation, []) == 0
        first = explanation.themes[0]
        fact = next(fact for fact in explanation.facts if fact.theme == first.theme)
        whole = sum(abs(reason.contribution) for reason in explanation.themes)
        one = Claim(Part.WHY_UNUSUAL, (Mention(fact.fact_id, Form.SHORT),))
        assert coverage(explanation, [one]) == pytest.approx(abs(first.contribution) / whole)


def test_waiting_for_a_concurrency_slot_does_not_count_towards_the_timeout(alerts, explainer):
    def slow(body):
        time.sleep(0.3)
        return _told(body)

    with OpenAIServer(slow) as server:
        told = Settings(llm_url=server.url, llm_model="slow", llm_timeout=3.0, llm_concurrency=2)
        _, result = evaluate(explainer, alerts[-30:], [told], ["narrative-3"])
    assert result.answered == 30, "fifteen rounds of 0.3 s exceed the 3 s timeout, but each answer is in time"
    assert result.p95_seconds < 3


def test_reading_ease_is_higher_for_plain_words():
    plain = reading_ease(["The card was used two times. It was not new."])
    hard = reading_ease(["Extraordinarily disproportionate transactional irregularities materialised."])
    assert plain > 80 > 30 > hard


def test_the_command_writes_a_page_and_figures(replayed, bundle_dir, tmp_path):
    out, figures = tmp_path / "page.html", tmp_path / "figures.json"
    alerts = str(replayed[0] / "alerts.jsonl")
    with OpenAIServer(_told) as server:
        asked = ["--model", f"local={server.url}", "--count", "5", "--out", str(out), "--json", str(figures)]
        done = CliRunner().invoke(whyflag, ["evaluate", "explanations", "--bundle", str(bundle_dir), "--alerts", alerts, *asked])
    assert done.exit_code == 0, done.output
    assert "accepted" in done.output
    assert out.read_text().startswith("<!doctype html>")
    assert [one["model"] for one in json.loads(figures.read_text())] == [TEMPLATE, "local"]


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--alerts", "/no/file"], "alerts.jsonl"), (["--alerts", __file__], "alerts.jsonl"), (["--model", "m", "--alerts", ""], "name its server")],
)  # fmt: skip
def test_wrong_options_raise_an_input_error(options, told, replayed, bundle_dir):
    options = [str(replayed[0] / "alerts.jsonl") if option == "" else option for option in options]
    done = CliRunner().invoke(whyflag, ["evaluate", "explanations", "--bundle", str(bundle_dir), *options])
    assert isinstance(done.exception, InputError)
    assert told in str(done.exception)


# -- a model in the analyst's place ----------------------------------------------------------------------------------------------------


def _judges(body):
    """Answer like a judge that repeats the stated probability of fraud if it sees an explanation, else 0.5."""
    text = body["messages"][0]["content"]
    assert "analyst" in text
    found = re.search(r"probability of fraud is ([\d.]+)%", text)
    explained = "Why the model gave this score" in text
    return json.dumps({"probability": float(found.group(1)) / 100 if explained else 0.5})


def test_a_judge_with_the_explanation_is_compared_with_one_without(alerts, explainer, world):
    truth = dict(
        zip(*(pq.read_table(world / "truth.parquet")[name].to_pylist() for name in ("transaction_id", "typology")), strict=True)
    )
    cases = [Case(a, explainer.explain(a), truth[a.transaction.transaction_id] != "honest") for a in alerts[-60:]]
    with OpenAIServer(_judges) as server:
        bare, explained = judge(language_model(Settings(llm_url=server.url, llm_model="local")), cases)
    assert (bare.condition, explained.condition) == (Condition.BARE, Condition.EXPLAINED)
    assert (bare.alerts, bare.answered, bare.auc) == (60, 60, 0.5)
    frauds, scores = [case.fraud for case in cases], [round(case.alert.decision.probability, 3) for case in cases]
    assert explained.auc == pytest.approx(roc_auc_score(frauds, scores))
    assert bare.brier == pytest.approx(0.25)
    with OpenAIServer(['{"probability": 7}']) as server:
        useless = judge(language_model(Settings(llm_url=server.url, llm_model="local")), cases[:3])
    assert [one.answered for one in useless] == [0, 0]
    assert all(math.isnan(one.auc) for one in useless)


def test_a_card_shows_the_explanation_but_no_identifiers_or_free_text(alerts, explainer):
    alert = alerts[-1]
    named = msgspec.structs.replace(
        alert, transaction=msgspec.structs.replace(alert.transaction, merchant_name="CANARY", memo="CANARY")
    )
    explanation = explainer.explain(named)
    bare, explained = judge_sheet(named, None), judge_sheet(named, explanation, others=alerts[:1])
    assert explained.startswith(bare.split("\n")[0])
    assert "Why the model gave this score" in explained
    assert "Why the model gave this score" not in bare
    for private in ("CANARY", alert.transaction.card_id, alert.transaction.merchant_id, alert.transaction.transaction_id):
        assert private not in explained
    for reason in explanation.themes:
        assert f"{reason.contribution:+.2f} {writer('en').theme(reason)}" in explained


def test_the_command_judges_alerts_if_given_the_truth(replayed, bundle_dir, world, tmp_path):
    def both(body):
        return (
            _judges(body)
            if "probability of fraud is" in body["messages"][0]["content"] and "judge" in body["messages"][0]["content"].lower()
            else _told(body)
        )

    with OpenAIServer(both) as server:
        asked = [
            "evaluate", "explanations", "--bundle", str(bundle_dir), "--alerts", str(replayed[0] / "alerts.jsonl"), "--model", f"local={server.url}",
            "--count", "20", "--out", str(tmp_path / "page.html"), "--judge",
        ]  # fmt: skip
        refused = CliRunner().invoke(whyflag, asked)
        assert "--judge needs --truth" in str(refused.exception)
        done = CliRunner().invoke(whyflag, [*asked, "--truth", str(world / "truth.parquet")])
    assert done.exit_code == 0, done.output
    assert "judged 20 of 20 alerts, transaction list only: AUC" in done.output
    assert "judged 20 of 20 alerts, with the explanation: AUC" in done.output


# -- the draft of a report -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def queue(tmp_path, alerts, explainer):
    opened = Queue(f"sqlite:///{tmp_path}/queue.db", SystemClock())
    by_card = {}
    for alert in alerts:
        by_card.setdefault(alert.transaction.card_id, []).append(alert)
    for alert in max(by_card.values(), key=len):
        opened.put(alert, explainer.explain(alert))
    yield opened
    opened.close()


def _drafted(queue, alert_id):
    queued = queue.get(alert_id)
    others = [one for one in queue.of_card(queued.alert.transaction.card_id, 200) if one.alert.alert_id != alert_id]
    return draft(
        queued.alert, queued.explanation, [one.verdict for one in Verdicts(queue).of(alert_id)], others, 1_790_000_000_000
    )


def test_a_draft_has_six_elements_a_chronological_list_and_its_gaps(queue):
    alert_id = queue.open_alerts(1)[0].alert.alert_id
    before = _drafted(queue, alert_id)
    decide(queue, alert_id, Finding.FRAUD, typology="stolen card", note="customer has <b>never</b> been there")
    after = _drafted(queue, alert_id)
    for text in (before.text, after.text):
        headings = re.findall(r"^## (.+)$", text, re.M)
        assert headings == ["Who", "What", "When", "Where", "Why it is suspicious", "How", "Completeness"]
        assert text.startswith("# DRAFT")
        assert "must complete, check and sign it" in text
        times = re.findall(r"^  \d+\. (\d{4}-\d{2}-\d{2} \d{2}:\d{2}) UTC", text, re.M)
        assert len(times) > 3
        assert times == sorted(times)
    assert "a verdict: no analyst has found this alert to be fraud" in before.missing
    assert not any(one.startswith("a verdict") for one in after.missing)
    assert {one.split(":")[0] for one in after.missing} == {"who", "how"}
    assert all(f"Missing: {one}" in after.text for one in after.missing)
    assert "an analyst found the alert to be fraud" in after.text
    assert "Typology: stolen card." in after.text
    assert r"customer has \<b\>never\</b\> been there" in after.text, "text written by others must be escaped"


def test_every_cited_sentence_of_a_draft_equals_its_fact(queue):
    queued = queue.open_alerts(1)[0]
    text = _drafted(queue, queued.alert.alert_id).text
    facts = {fact.fact_id: fact for fact in queued.explanation.facts}
    assert writer("en").sentence(facts["S1"]) in text
    told = re.findall(r"^- (.+) \[([A-Z]\d+)\]$", text, re.M)
    assert told
    for sentence, fact_id in told:
        assert sentence == writer("en").sentence(facts[fact_id])


def test_missing_transaction_fields_are_listed_as_gaps(queue):
    queued = queue.open_alerts(1)[0]
    bare = msgspec.structs.replace(
        queued.alert, transaction=msgspec.structs.replace(queued.alert.transaction, country=None, mcc=None)
    )
    made = draft(bare, None, [], [], 0)
    assert {one.split(":")[0] for one in made.missing} >= {"who", "where", "why", "how", "a verdict"}


def test_the_command_writes_a_draft_once(queue, tmp_path, monkeypatch):
    monkeypatch.setenv("WHYFLAG_DATABASE", str(queue.engine.url))
    alert_id, out = queue.open_alerts(1)[0].alert.alert_id, tmp_path / "sar.md"
    done = CliRunner().invoke(whyflag, ["sar", alert_id, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "gaps" in done.output
    again = CliRunner().invoke(whyflag, ["sar", alert_id, "--out", str(out)])
    assert isinstance(again.exception, InputError)
    assert "# DRAFT" in CliRunner().invoke(whyflag, ["sar", alert_id]).output
    assert "al_none" in str(CliRunner().invoke(whyflag, ["sar", "al_none"]).exception)


def test_the_casebook_is_maintained_from_the_command_line(queue, bundle, bundle_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("WHYFLAG_DATABASE", str(queue.engine.url))
    monkeypatch.setenv("WHYFLAG_CASEBOOK", str(tmp_path / "casebook"))

    def whyflag_cases(*arguments):
        done = CliRunner().invoke(whyflag, ["cases", *arguments])
        return done.output + str(done.exception or "")

    assert "the casebook is empty" in whyflag_cases("list")
    assert "cases in" in whyflag_cases("rebuild", "--bundle", str(bundle_dir))
    assert (tmp_path / "casebook" / bundle.version / "manifest.json").exists()
    assert bundle.version in whyflag_cases("list")
    from analyst.cases import Cases

    case = Cases(queue).changes(bundle.version, 0, 1)[0].case
    assert str(case.outcome) in whyflag_cases("show", case.case_id)
    assert "is now fraud" in whyflag_cases("correct", case.case_id, "--outcome", "fraud", "--reason", "a test")
    assert "deleted from 1 casebook" in whyflag_cases("delete", case.case_id, "--reason", "a test")
    assert "no case" in whyflag_cases("show", case.case_id)
