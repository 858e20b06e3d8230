import json
import threading
import time
from html import escape, unescape

import msgspec
import pytest
import uvicorn
from analyst.console import create_app
from fastapi.testclient import TestClient
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from analyst.archive import Archive, Source
from analyst.pictures import timeline, waterfall
from analyst.queue import Queue
from analyst.tables import alerts
from cli.supervisor import free_ports
from core.clock import FixedClock, SystemClock
from core.decoding import decode_label
from core.errors import DatabaseError
from core.messages import Finding, LikelyTypology, Side, alert_id, decode_alert, decode_verdict
from core.privacy.masking import Privacy
from core.settings import Settings
from core.topics import LABELS, VERDICTS
from explain.casebook import Casebook, CasesInMemory, bundle_cases
from explain.explainer import Explainer
from explain.facts.cases import case_facts
from explain.facts.history import card_history
from explain.facts.values import money
from explain.words import LANGUAGES, writer
from streams.kafka.embedded import API_VERSION, EmbeddedBroker
from streams.relay import Relay
from tests.conftest import needs, transactions_file
from tests.workers import collect
from training.data.readers import read_labels
from training.replay import transactions_of


@pytest.fixture(scope="module")
def explainer(bundle):
    return Explainer(bundle, Casebook(bundle, CasesInMemory(bundle_cases(bundle))))


@pytest.fixture
def queue(tmp_path, replayed, explainer):
    """A queue with 20 alerts."""
    out, _ = replayed
    opened = Queue(f"sqlite:///{tmp_path}/queue.db", SystemClock())
    for line in (out / "alerts.jsonl").read_bytes().splitlines()[-20:]:
        alert = decode_alert(line)
        opened.put(alert, explainer.explain(alert))
    yield opened
    opened.close()


@pytest.fixture
def client(queue):
    with TestClient(create_app(queue, Settings(analyst="ann")), base_url="http://127.0.0.1") as client:
        yield client


def test_the_queue_page_is_ordered_and_states_the_order(client, queue):
    page = client.get("/").text
    ids = [queued.alert.alert_id for queued in queue.open_alerts(50)]
    places = [page.index(f"/alerts/{alert_id}") for alert_id in ids]
    assert places == sorted(places)
    assert "Ordered by expected loss: probability of fraud times amount." in page
    rows = client.get("/", headers={"hx-request": "true"}).text
    assert "<html" not in rows
    assert "table" in rows


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_an_alert_page_shows_its_facts_themes_narrative_and_cases(client, queue, language):
    words = writer(language)
    for queued in queue.open_alerts(5):
        page = unescape(client.get(f"/alerts/{queued.alert.alert_id}?language={language}").text)
        explanation = queued.explanation
        facts = {fact.fact_id: fact for fact in explanation.facts}
        for fact in explanation.facts:
            assert page.count(f'id="{fact.fact_id}"') == 1, fact
            assert words.sentence(fact) in page
        for reason in explanation.themes:
            assert words.theme(reason) in page
        for claim in explanation.narrative:
            assert words.claim(claim, facts) in page
        assert page.count("<svg") == 2
        for case in explanation.similar_cases:
            assert case.case_id in page


def test_the_reader_chooses_the_language(client, queue):
    page = f"/alerts/{queue.open_alerts(1)[0].alert.alert_id}"
    assert '<html lang="en">' in client.get(page).text
    assert '<html lang="de">' in client.get(page, headers={"accept-language": "de-AT,de;q=0.9,en;q=0.8"}).text
    assert '<html lang="es">' in client.get(f"{page}?language=es").text
    assert '<html lang="es">' in client.get(page).text, "the chosen language is remembered"
    assert "Alertas" in client.get("/").text
    assert '<html lang="en">' in client.get(f"{page}?language=en").text
    assert '<html lang="en">' in client.get(f"{page}?language=xx").text


def test_a_version_1_explanation_is_shown_as_it_was_written(client, queue):
    alert = queue.open_alerts(1)[0].alert
    old = {
        "alert_id": alert.alert_id, "transaction_id": alert.transaction.transaction_id,
        "evidence": [{"evidence_id": "E1", "kind": "contribution", "code": "C", "text": "It was <b>old</b>.", "contribution": 1.5}],
        "reasons": ["C"],
        "similar_cases": [
            {"case_id": "al_old", "outcome": "fraud", "closed_time": 1_750_000_000_000, "similarity": 0.5, "differences": ["a 1 there, 2 here"]}
        ],
        "narrative": [{"text": "An old sentence.", "evidence_ids": ["E1"], "written_by": "template-2", "part": "why_unusual"}],
        "verification": {"checked": 1, "replaced": 0}, "suggestion": "Call.", "bundle": "b", "narrator": "template-2", "prompt": "p", "index": "i", "v": 1,
    }  # fmt: skip
    with queue.engine.begin() as connection:
        connection.execute(update(alerts).where(alerts.c.alert_id == alert.alert_id).values(explanation=json.dumps(old)))
    explanation = queue.get(alert.alert_id).explanation
    assert explanation.fact("E1").side is Side.FRAUD
    page = client.get(f"/alerts/{alert.alert_id}").text
    for text in ("An old sentence.", "It was &lt;b&gt;old&lt;/b&gt;.", "al_old"):
        assert text in page
    assert client.get("/").status_code == 200


def test_hostile_text_is_escaped(queue, client, replayed, explainer):
    out, _ = replayed
    alert = decode_alert((out / "alerts.jsonl").read_bytes().splitlines()[0])
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
    alert = msgspec.structs.replace(alert, transaction=msgspec.structs.replace(alert.transaction, merchant_name=evil, memo=evil))
    queue.put(alert, explainer.explain(alert))
    queue.decide(alert.alert_id, Finding.ESCALATE, "ann", None, evil)
    page = client.get(f"/alerts/{alert.alert_id}").text
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]


def test_a_verdict_is_recorded_under_the_analysts_name_and_redirects_to_the_next_alert(client, queue):
    first, second = (queued.alert.alert_id for queued in queue.open_alerts(2))
    answer = client.post(
        f"/alerts/{first}/verdict", data={"finding": "fraud", "typology": "stolen card", "note": "x"}, follow_redirects=False
    )
    assert (answer.status_code, answer.headers["location"]) == (303, f"/alerts/{second}")
    (verdict,) = queue.verdicts_of(first)
    assert (verdict.finding, verdict.typology, verdict.note, verdict.analyst) == (Finding.FRAUD, "stolen card", "x", "ann")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ({"finding": "perhaps"}, 422),
        ({}, 422),
        ({"finding": "fraud", "typology": "magic"}, 422),
        ({"finding": "fraud", "note": "x" * 2001}, 422),
    ],
)
def test_a_wrong_verdict_is_refused(client, queue, data, status):
    alert_id = queue.open_alerts(1)[0].alert.alert_id
    assert client.post(f"/alerts/{alert_id}/verdict", data=data).status_code == status
    assert queue.verdicts_of(alert_id) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 400),
    ],
)
def test_other_sites_cannot_give_verdicts(client, queue, headers, status):
    alert_id = queue.open_alerts(1)[0].alert.alert_id
    answer = client.post(f"/alerts/{alert_id}/verdict", data={"finding": "fraud"}, headers=headers)
    assert answer.status_code == status
    assert queue.verdicts_of(alert_id) == []


def test_a_card_number_in_a_note_is_masked_to_its_last_four_digits(client, queue):
    alert_id = queue.open_alerts(1)[0].alert.alert_id
    client.post(f"/alerts/{alert_id}/verdict", data={"finding": "fraud", "note": "called, card 4111 1111 1111 1111 12/25"})
    (verdict,) = queue.verdicts_of(alert_id)
    assert verdict.note == "called, card [card ending 1111] 12/25"


@pytest.mark.parametrize("offset", ["-1", "abc", "9" * 25])
def test_an_invalid_offset_shows_an_error_page(client, offset):
    answer = client.get(f"/?offset={offset}")
    assert answer.status_code == 422
    assert "offset" in answer.text
    assert "<html" in answer.text


def test_the_console_is_not_ready_while_verdicts_are_not_published(queue):
    with TestClient(create_app(queue, Settings(), publishing=lambda: False), base_url="http://127.0.0.1") as client:
        answer = client.get("/ready")
        assert (answer.status_code, answer.text) == (200, "ready; verdicts wait until Kafka answers\n")
    with TestClient(create_app(queue, Settings(), lambda: False), base_url="http://127.0.0.1") as client:
        assert client.get("/ready").status_code == 503


def test_amounts_have_the_decimals_of_their_currency():
    written = [writer("de").value(money(100_050, currency)) for currency in ("EUR", "JPY", "KWD")]
    assert [one.replace("\u00a0", " ") for one in written] == ["1.000,50 €", "100.050 ¥", "100,050 KWD"]


def test_an_unknown_alert_shows_a_not_found_page(client):
    answer = client.get("/alerts/al_none")
    assert answer.status_code == 404
    assert "no alert al_none" in answer.text
    assert client.post("/alerts/al_none/verdict", data={"finding": "fraud"}).status_code == 404


def test_the_trusted_proxy_names_the_analyst(queue):
    with TestClient(create_app(queue, Settings(analyst_header="x-user")), base_url="http://127.0.0.1") as client:
        assert client.get("/").status_code == 401
        assert "carol" in client.get("/", headers={"x-user": "carol"}).text


def test_probes_and_metrics_answer(client):
    assert client.get("/live").text == "live\n"
    assert client.get("/ready").text == "ready\n"
    names = {family.name for family in text_string_to_metric_families(client.get("/metrics").text)}
    assert "whyflag_verdicts" in names


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_charts_show_every_theme_and_every_recent_payment(queue, language):
    words = writer(language)
    for queued in queue.open_alerts(20):
        drawn = waterfall(queued.explanation, words)
        assert len(queued.explanation.themes) == 9
        for reason in queued.explanation.themes:
            assert f"{reason.contribution:+.2f}</text>" in drawn
            assert escape(words.theme(reason)) in drawn
        assert timeline(queued.alert, words).count("<circle") == 1 + sum(r.amount is not None for r in queued.alert.recent)


def test_charts_are_empty_without_themes_or_recent_payments(queue):
    (queued,) = queue.open_alerts(1)
    assert waterfall(structs.replace(queued.explanation, themes=()), writer("en")) == ""
    assert timeline(structs.replace(queued.alert, recent=()), writer("en")) == ""


def test_the_relay_publishes_every_verdict_and_its_label_once_kafka_answers(queue):
    ids = [queued.alert.alert_id for queued in queue.open_alerts(3)]
    for one, finding in zip(ids, Finding, strict=True):
        queue.decide(one, finding, "ann", None, None)
    with EmbeddedBroker() as broker:
        kafka = Settings(kafka_bootstrap=broker.bootstrap, kafka_api_version=API_VERSION)
        relay = Relay(queue, kafka)
        relay.start()
        try:
            got = collect(kafka, {VERDICTS: 3, LABELS: 2})
        finally:
            relay.stop()
    assert {(v := decode_verdict(record.value)).alert_id: v.finding for record in got[VERDICTS]} == dict(
        zip(ids, Finding, strict=True)
    )
    assert sorted(decode_label(record.value, Privacy()).fraud for record in got[LABELS]) == [False, True]
    assert queue.unpublished() == []


@pytest.mark.system
def test_an_analyst_works_the_queue_in_a_real_browser(queue):
    chromium = needs("chromium")
    from playwright.sync_api import expect, sync_playwright

    (port,) = free_ports(1)
    server = uvicorn.Server(
        uvicorn.Config(create_app(queue, Settings(analyst="ann")), port=port, log_level="warning", access_log=False)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        with sync_playwright() as playwright:
            switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
            browser = playwright.chromium.launch(executable_path=chromium, args=switches)
            page = browser.new_page(viewport={"width": 1366, "height": 768})
            problems = []
            page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: problems.append(str(error)))
            first, second = (queued.alert.alert_id for queued in queue.open_alerts(2))
            page.goto(f"http://127.0.0.1:{port}/")
            assert page.locator("table.queue tbody tr").count() == 20
            page.keyboard.press("j")
            page.keyboard.press("k")
            page.keyboard.press("Enter")
            page.wait_for_url(f"**/alerts/{first}")
            assert page.locator("svg.waterfall rect").count() == 9
            assert page.locator("svg.waterfall").bounding_box()["height"] > 100
            page.select_option("select[name=typology]", "stolen card")
            page.fill("textarea", "the customer did not know the merchant")
            page.click("button.fraud")
            page.wait_for_url(f"**/alerts/{second}")
            page.keyboard.press("l")
            page.wait_for_url(lambda url: not url.endswith(second))
            page.keyboard.press("q")
            page.wait_for_url(f"http://127.0.0.1:{port}/")
            assert page.locator("table.queue tbody tr").count() == 18
            # an alert that someone else decides disappears from the page without a reload
            queue.decide(queue.open_alerts(1)[0].alert.alert_id, Finding.ESCALATE, "bob", None, None)
            expect(page.locator("table.queue tbody tr")).to_have_count(17, timeout=8000)
            browser.close()
        assert problems == []
    finally:
        server.should_exit = True
        thread.join()
    assert queue.verdicts_of(first)[0].finding is Finding.FRAUD
    assert queue.verdicts_of(second)[0].finding is Finding.LEGITIMATE


# -- the archive on the page ---------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path, world, queue):
    """Archive of the world's labels, and of its transactions up to the queue's last alert."""
    last = max(queued.alert.transaction.event_time for queued in queue.open_alerts(50))
    opened = Archive(f"sqlite:///{tmp_path}/archive.db", FixedClock(last), days=100)
    opened.migrate()
    past = [one for one in transactions_of(transactions_file(world)) if one.event_time <= last]
    opened.add_transactions([Source(one.event_time, 0, i) for i, one in enumerate(past)], past)
    labels = read_labels(world / "labels.parquet", Privacy())
    opened.add_labels([Source(one.label_time, 0, i) for i, one in enumerate(labels)], labels)
    yield opened
    opened.close()


def test_an_alert_shows_the_cards_habits_and_last_payments(queue, archive):
    with TestClient(create_app(queue, Settings(), history=archive), base_url="http://127.0.0.1") as client:
        for queued in queue.open_alerts(5):
            page = client.get(f"/alerts/{queued.alert.alert_id}").text
            told = card_history(queued.alert.transaction, archive)
            assert "does not hold this payment" not in page
            assert writer("en").value(money(told.habits.median, told.habits.currency)) in page
            assert f"{told.merchant.payments:,} payment" in page
            assert page.count('<td class="time">') == len(told.last)
            assert all(one.category in page for one in told.last)


def test_the_page_says_if_a_payment_is_not_archived(queue, tmp_path):
    empty = Archive(f"sqlite:///{tmp_path}/empty.db", SystemClock(), days=100)
    empty.migrate()
    with TestClient(create_app(queue, Settings(), history=empty), base_url="http://127.0.0.1") as client:
        page = client.get(f"/alerts/{queue.open_alerts(1)[0].alert.alert_id}").text
    empty.close()
    assert "The archive does not hold this payment" in page
    assert "The archive holds no earlier payment of this card." in page


class _Away:
    """An archive whose database does not answer."""

    def payments_of_card(self, card_id, since, before):
        raise DatabaseError("the archive's database does not answer")


@pytest.mark.parametrize("history", [None, _Away()])
def test_an_alert_without_an_archive_is_shown_without_habits(queue, history):
    with TestClient(create_app(queue, Settings(), history=history), base_url="http://127.0.0.1") as client:
        page = client.get(f"/alerts/{queue.open_alerts(1)[0].alert.alert_id}").text
    assert "The archive is not there or does not answer" in page
    assert "Last payments of this card" in page
    assert page.count('<td class="number">') > 3


def test_related_alerts_show_what_they_share(queue, replayed, explainer):
    out, _ = replayed
    alert = decode_alert((out / "alerts.jsonl").read_bytes().splitlines()[-1])
    other = structs.replace(alert.transaction, transaction_id="other", card_id="another card", device_id=None)
    at_merchant = structs.replace(
        alert,
        transaction=other,
        alert_id=alert_id(other),
        decision=structs.replace(alert.decision, card_id="another card", merchant_id=other.merchant_id),
    )
    queue.put(at_merchant, explainer.explain(alert))
    with TestClient(create_app(queue, Settings()), base_url="http://127.0.0.1") as client:
        page = client.get(f"/alerts/{alert.alert_id}").text
    assert f'same merchant: <a href="/alerts/{at_merchant.alert_id}"' in page


def test_alerts_of_other_cards_on_the_same_device_are_shown_newest_first(queue, replayed, explainer):
    out, _ = replayed
    alert = decode_alert((out / "alerts.jsonl").read_bytes().splitlines()[-1])
    put = []
    for number in range(8):
        paid = structs.replace(
            alert.transaction, card_id=f"card {number}", merchant_id=f"m{number}", device_id="shared", event_time=alert.transaction.event_time + number,
        )  # fmt: skip
        decided = structs.replace(alert.decision, card_id=paid.card_id, merchant_id=paid.merchant_id, event_time=paid.event_time)
        put.append(structs.replace(alert, transaction=paid, decision=decided, alert_id=alert_id(paid)))
        queue.put(put[-1], explainer.explain(alert))
    with TestClient(create_app(queue, Settings()), base_url="http://127.0.0.1") as client:
        page = client.get(f"/alerts/{put[0].alert_id}").text
    places = [page.index(f'/alerts/{one.alert_id}"') for one in reversed(put[2:])]
    assert places == sorted(places)
    assert page.count("same device:") == 6


def test_a_likely_typology_is_shown_as_a_hint(queue, replayed, explainer):
    out, _ = replayed
    alert = decode_alert((out / "alerts.jsonl").read_bytes().splitlines()[-1])
    hint = LikelyTypology(name="card testing", support=3, cases=5)
    explanation = explainer.explain(alert)
    fact = case_facts(explanation.similar_cases, 0.5, hint)
    queue.put(
        alert,
        structs.replace(
            explanation, facts=(*explanation.facts, next(one for one in fact if one.kind == "typology")), typology=hint
        ),
    )
    with TestClient(create_app(queue, Settings()), base_url="http://127.0.0.1") as client:
        page = client.get(f"/alerts/{alert.alert_id}").text
    assert "3 of the 5 nearest cases were frauds of the type card testing." in page


def test_the_relay_is_not_publishing_once_kafka_is_silent_for_too_long(monkeypatch, tmp_path):
    queue = Queue(f"sqlite:///{tmp_path}/q.db", SystemClock())
    relay = Relay(queue, Settings(broker_silence_seconds=5.0))
    monkeypatch.setattr(Relay, "_publish", lambda self: 1 / 0)
    relay.start()
    try:
        deadline = time.monotonic() + 10
        while relay._failing_since is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert relay.publishing, "a short failure is none yet"
        relay._failing_since -= 5.0
        assert not relay.publishing
    finally:
        relay.stop()
    assert not relay.publishing
    queue.close()
