"""Investigation of an alert by a language model over the real protocol: read-only, within budgets, checked and stored."""

import asyncio
import json
import time
from contextlib import contextmanager

import msgspec
import pytest
from click.testing import CliRunner

from analyst.assistant import Assistant
from analyst.queue import Queue
from analyst.tables import metadata
from cli.main import whyflag
from cli.operations.console import _investigating
from core.clock import SystemClock
from core.errors import QueueError, ThrottledError
from core.messages import Finding
from core.settings import Settings
from explain.facts.history import DeviceHistory, MerchantHistory, Payment
from explain.investigation import Investigation, run
from explain.narrators.client import language_model
from explain.words import writer
from tests.analyst.conftest import ANN, console, decide
from tests.openai_server import OpenAIServer

TOOLS = {"card_history", "merchant_history", "device_history", "linked_cards", "similar_cases", "rule_definition"}


def _report(*sentences):
    return json.dumps({"sentences": [{"part": part, "facts": facts} for part, facts in sentences]})


@pytest.fixture
def queue(tmp_path):
    opened = Queue(f"sqlite:///{tmp_path}/queue.db", SystemClock())
    yield opened
    opened.close()


@pytest.fixture
def case(queue, alerts, explainer):
    """The newest alert of a card that was flagged before, queued with all alerts of the card, one of them found to be fraud."""
    by_card = {}
    for alert in alerts:
        by_card.setdefault(alert.transaction.card_id, []).append(alert)
    own = max(by_card.values(), key=len)
    chosen = own[-1]
    for alert in alerts[-60:] + own:
        queue.put(alert, explainer.explain(alert))
    decide(queue, own[0].alert_id, Finding.FRAUD, typology="stolen card")
    return queue.get(chosen.alert_id)


@contextmanager
def looking(script, queue, case, **budget):
    with OpenAIServer(script) as server:
        llm = language_model(Settings(llm_url=server.url, llm_model="local"))
        yield server, run(case.alert, case.explanation, queue, llm, lambda rule: f"Rule {rule} of ops.", **budget)


def test_a_model_investigates_with_tools_and_its_report_is_checked(queue, case):
    others = len(queue.of_card(case.alert.transaction.card_id, 50)) - 1
    script = [
        [("card_history", {}), ("merchant_history", {})],
        [("linked_cards", {}), ("similar_cases", {}), ("device_history", {})],
        lambda: None,
    ]

    def answers(body):
        number = sum(message["role"] == "assistant" for message in body["messages"])
        if number < 2:
            return script[number]
        told = [json.loads(m["content"]) for m in body["messages"] if m["role"] == "tool" and m["content"].startswith("[")]
        by_text = {item["clause"]: item for answer in told for item in answer}
        (history,) = [item for text, item in by_text.items() if text.startswith("this card had") and "alert" in text]
        return _report(
            (history["part"], [f"{history['id']}.clause"]),
            (history["part"], ["I999.clause"]),
            (history["part"], ["The cardholder is in prison."]),
        )

    with looking(answers, queue, case) as (server, found):
        pass
    assert found.ended == "finished"
    assert found.steps == 3
    assert found.tokens == 3 * 790
    (claim,) = found.report
    assert writer("en").claim(claim, found.facts_by_id()) == (
        f"This card had {others} other alerts: 1 found to be fraud, 0 legitimate, {others - 1} not closed."
    )
    assert (found.verification.checked, found.verification.replaced) == (3, 2)
    assert {tool["function"]["name"] for tool in server.requests[0][1]["tools"]} == TOOLS
    assert [entry.who for entry in found.transcript].count("tool") == 5
    assert found.transcript[0].who == "us"
    assert {mention.fact_id for claim in found.report for mention in claim.mentions} <= found.facts_by_id().keys()


def test_no_tool_reveals_an_identifier_or_free_text(queue, case):
    script = [[(name, {}) for name in ("card_history", "merchant_history", "linked_cards", "similar_cases")], "done"]
    with looking(script, queue, case) as (server, _):
        sent = json.dumps(server.requests)
    transaction = case.alert.transaction
    for private in (
        transaction.card_id,
        transaction.merchant_id,
        transaction.transaction_id,
        transaction.device_id,
        transaction.merchant_name,
    ):
        assert not private or private not in sent


def test_tools_read_habits_and_histories_from_an_archive(queue, case):
    class FakeHistory:
        def oldest_written_at(self):
            return 0

        def contains(self, transaction):
            return True

        def payments_of_card(self, card_id, since, before):
            return [Payment("t", before - 3_600_000, "m", 500, case.alert.transaction.currency)]

        def merchant(self, merchant_id, since, before):
            return MerchantHistory(40, 30, 3, 2)

        def device(self, device_id, since, before):
            return DeviceHistory(9, 4)

    script = [[("card_history", {}), ("merchant_history", {}), ("device_history", {})], _report()]
    with looking(script, queue, case, history=FakeHistory()) as (_, found):
        pass
    kinds = {fact.kind for fact in found.facts}
    assert {"habit-amount", "merchant-history"} <= kinds
    assert "archive-missing" not in kinds


def test_tools_only_read(queue, case):
    def content():
        with queue.reading() as connection:
            return {name: sorted(map(repr, connection.execute(table.select()))) for name, table in metadata.tables.items()}

    before = content()
    with looking([[(name, {}) for name in sorted(TOOLS)], "done"], queue, case):
        pass
    assert content() == before


@pytest.mark.parametrize(
    ("calls", "told"),
    [
        ([("drop_tables", {})], "not found"),
        ([("rule_definition", {"rule": 7})], "must be strings"),
        ([("rule_definition", {"rule": "x" * 100})], "must be strings"),
        ([("rule_definition", {"rule": "no_such_rule"})], "No such rule"),
        ([("rule_definition", "{not json")], "argument"),
        ([("card_history", {"card_id": "another"})], "argument"),
    ],
)
def test_an_invalid_tool_call_is_reported_to_the_model_and_does_not_end_the_investigation(queue, case, calls, told):
    with looking([calls, _report()], queue, case) as (_, found):
        pass
    assert found.ended == "finished"
    assert any(told in entry.what for entry in found.transcript if entry.who == "tool")


def test_an_investigation_ends_when_it_runs_out_of_steps(queue, case):
    with looking([[("card_history", {})]], queue, case, steps=3) as (server, found):
        pass
    assert found.ended == "out of steps"
    assert len(server.requests) <= 4
    assert found.report == ()


def test_the_last_step_may_be_the_report(queue, case):
    with looking([[("card_history", {})], _report()], queue, case, steps=2) as (_, found):
        pass
    assert found.ended == "finished"


def test_an_investigation_ends_when_it_runs_out_of_tokens(queue, case):
    with looking([[("card_history", {})]], queue, case, tokens=1_500) as (server, found):
        pass
    assert found.ended == "out of tokens"
    assert len(server.requests) == 2
    assert found.tokens == 1_580


def test_an_investigation_ends_at_its_time_limit(queue, case):
    begin = time.monotonic()
    with looking(["slow"], queue, case, limit=1.5) as (_, found):
        pass
    assert found.ended in ("late", "failed: APITimeoutError")
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("fault", ["429", "500", "cut", "malformed", "no choices", "empty", "wrong schema", "wrong language"])
def test_server_faults_end_an_investigation_without_a_report(queue, case, fault):
    with looking([fault], queue, case) as (_, found):
        pass
    assert found.ended == "finished" if fault in ("empty", "wrong language") else found.ended.startswith("failed")
    assert found.report == ()


def test_a_model_without_tool_calling_can_investigate_too(queue, case):
    script = [
        "Thought: I need the card.\nAction: card_history\nAction Input: {}",
        f"Thought: I can answer without using any more tools. I'll use the user's language to answer\nAnswer: {_report()}",
    ]
    with OpenAIServer(script) as server:
        llm = language_model(Settings(llm_url=server.url, llm_model="local"))
        llm.is_function_calling_model = False
        found = run(case.alert, case.explanation, queue, llm)
    assert found.ended == "finished"
    assert "tools" not in server.requests[0][1]
    assert any(entry.who == "tool" for entry in found.transcript)


def test_an_alert_has_one_investigation_at_a_time_and_keeps_all_of_them(queue, case):
    alert_id = case.alert.alert_id
    number = queue.begin_investigation(alert_id, "ann")
    with pytest.raises(QueueError, match="under way"):
        queue.begin_investigation(alert_id, "bob")
    queue.end_investigation(number, "{}")
    queue.begin_investigation(alert_id, "bob")
    assert [(one.asked_by, one.state) for one in queue.investigations_of(alert_id)] == [("bob", "under way"), ("ann", "ended")]
    with pytest.raises(QueueError, match="al_none"):
        queue.begin_investigation("al_none", "ann")


def test_an_investigation_whose_process_died_does_not_block_new_ones(queue, case, monkeypatch):
    alert_id = case.alert.alert_id
    queue.begin_investigation(alert_id, "ann")
    later = queue.clock.now_ms() + 11 * 60_000
    monkeypatch.setattr(queue.clock, "now_ms", lambda: later)
    assert queue.investigations_of(alert_id) == []
    queue.begin_investigation(alert_id, "bob")


def test_the_command_prints_the_report_and_keeps_the_transcript(case, queue, tmp_path, monkeypatch):
    score = writer("en").sentence(case.explanation.fact("S1"))
    with OpenAIServer([[("card_history", {})], _report(("what_happened", ["S1.clause"]))]) as server:
        monkeypatch.setenv("WHYFLAG_LLM_URL", server.url)
        monkeypatch.setenv("WHYFLAG_LLM_MODEL", "local")
        monkeypatch.setenv("WHYFLAG_DATABASE", str(queue.engine.url))
        out = tmp_path / "transcript.md"
        done = CliRunner().invoke(whyflag, ["investigate", case.alert.alert_id, "--transcript", str(out)])
    assert done.exit_code == 0, done.output
    assert f"{score}  [S1]" in done.output
    assert "finished: 2 answers, 1,580 tokens" in done.output
    assert "card_history answered" in out.read_text()
    (kept,) = queue.investigations_of(case.alert.alert_id)
    assert msgspec.json.decode(kept.message, type=Investigation).ended == "finished"


def test_the_command_without_a_model_says_what_to_set(case, queue, monkeypatch):
    monkeypatch.setenv("WHYFLAG_DATABASE", str(queue.engine.url))
    done = CliRunner().invoke(whyflag, ["investigate", case.alert.alert_id])
    assert "WHYFLAG_LLM_URL" in str(done.exception)


def answered(site, alert_id, data):
    """Ask the assistant on an alert's page and return the page with the answer."""
    ann, page = site("ann"), f"/alerts/{alert_id}"
    assert ann.post(f"{page}/ask", data).status_code == 303
    deadline = time.monotonic() + 20
    while "Transcript" not in (text := ann.get(page).text) and time.monotonic() < deadline:
        time.sleep(0.1)
    return text


@pytest.mark.parametrize("question", ["", "Did this card pay here before? My number is 4111 1111 1111 1111"])
def test_the_page_asks_the_assistant_and_shows_its_answer(case, queue, question):
    with OpenAIServer([[("card_history", {})], _report(("what_happened", ["S1.clause"]))]) as server:
        settings = Settings(llm_url=server.url, llm_model="local")
        with console(queue, settings, investigate=_investigating(queue, settings, None)) as site:
            text = answered(site, case.alert.alert_id, {"question": question})
        prompt = server.requests[0][1]["messages"][-1]["content"]
    assert "local · 2 model replies" in text
    assert "ann ·" in text
    assert 'title="local"' in text
    assert ("Did this card pay here before?" in prompt) == bool(question)
    assert "4111" not in prompt
    assert ("asks a question about it" in prompt) == bool(question)


def test_each_person_has_a_quota_and_all_share_a_limit(case, queue):
    with OpenAIServer([_report(("what_happened", ["S1.clause"]))]) as server:
        settings = Settings(llm_url=server.url, llm_model="local", assistant_daily_questions=2)
        with console(queue, settings, investigate=_investigating(queue, settings, None)) as site:
            for _ in range(2):
                number = site.services.queue.begin_investigation(case.alert.alert_id, "ann", "?", 2)
                site.services.queue.end_investigation(number, None)
            refused = site("ann").post(f"/alerts/{case.alert.alert_id}/ask", {"question": "and now?"})
            assert refused.status_code == 429
            assert "2 times in 24 hours" in refused.text
            assert site("bob").post(f"/alerts/{case.alert.alert_id}/ask", {"question": "and now?"}).status_code == 303
            assert site("audrey").post(f"/alerts/{case.alert.alert_id}/ask", {}).status_code == 403


def test_many_questions_at_once_start_only_a_few_agents(case, queue):
    running, most, waiting = 0, 0, asyncio.Event()

    async def slow(queued, question):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await waiting.wait()
        running -= 1
        raise ValueError("enough")

    async def ask_all():
        ids = [f"al_{number}" for number in range(60)]
        for one in ids:
            queue.put(msgspec.structs.replace(case.alert, alert_id=one), msgspec.structs.replace(case.explanation, alert_id=one))
        assistant = Assistant(queue, Settings(assistant_concurrency=2), slow)
        results = await asyncio.gather(*(assistant.ask(one, ANN, "why?") for one in ids), return_exceptions=True)
        await asyncio.sleep(0.1)
        waiting.set()
        while assistant.busy:
            await asyncio.sleep(0.01)
        return results

    results = asyncio.run(ask_all())
    assert most == 2
    assert sum(isinstance(one, ThrottledError) for one in results) == 60 - 8


def test_without_a_model_nobody_is_offered_the_assistant(case, queue):
    with console(queue) as site:
        assert "Ask about this alert" not in site().get(f"/alerts/{case.alert.alert_id}").text
        refused = site().post(f"/alerts/{case.alert.alert_id}/ask", {"question": "?"})
    assert refused.status_code == 409
    assert "WHYFLAG_LLM_URL" in refused.text
