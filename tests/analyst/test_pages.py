import json
from html import escape, unescape
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from msgspec import structs
from sqlalchemy import update

from analyst.archive import Archive, Source
from analyst.pictures import timeline, waterfall
from analyst.tables import alert_documents
from analyst.verdicts import Verdicts
from analyst.web.rendering import HERE, console_writer
from core.clock import FixedClock, SystemClock
from core.errors import DatabaseError
from core.messages import Finding, LikelyTypology, Opinion, Side, alert_id
from core.privacy.masking import Privacy
from explain.facts.cases import case_facts
from explain.facts.history import card_history
from explain.facts.values import money
from explain.words import LANGUAGES, writer
from tests.analyst.conftest import ANN, console, ids_of
from tests.conftest import transactions_file
from training.data.readers import read_labels
from training.replay import transactions_of


def test_the_queue_page_is_ordered_by_severity_and_deadline_and_states_the_order(site, sqlite_queue):
    page = site().get("/").text
    waiting = sorted(sqlite_queue.open_alerts(50), key=lambda queued: (queued.severity, queued.deadline, queued.alert.alert_id))
    places = [page.index(f"/alerts/{queued.alert.alert_id}") for queued in waiting]
    assert places == sorted(places)
    assert "Ordered by severity, then by deadline." in page
    rows = site().get("/", **{"hx-request": "true"}).text
    assert "<html" not in rows
    assert "<table" in rows


def test_a_filter_is_in_the_address_and_shows_only_what_matches(site, sqlite_queue):
    queued = sqlite_queue.open_alerts(1)[0]
    page = site().get(f"/?card={queued.alert.transaction.card_id}&order=loss").text
    assert f"/alerts/{queued.alert.alert_id}?" in page
    assert page.count("data-alert=") == sum(
        one.alert.transaction.card_id == queued.alert.transaction.card_id for one in sqlite_queue.open_alerts(50)
    )
    assert "No alert matches." in site().get("/?card=nobody").text


@pytest.mark.parametrize(
    "query",
    [
        "severity=9",
        "outcome=maybe",
        "amount_from=-1",
        "age_to=x",
        "after=~~",
        "after=1~2",
        "order=upwards",
        f"search={'x' * 200}",
    ],
)
def test_an_invalid_filter_shows_an_error_page(site, query):
    answer = site().get(f"/?{query}")
    assert answer.status_code == 422
    assert "<html" in answer.text


def test_a_page_groups_alerts_by_card_without_hiding_any(site, sqlite_queue):
    page = site().get("/?by_card=true").text
    assert page.count("data-alert=") == 20
    cards = {queued.alert.transaction.card_id for queued in sqlite_queue.open_alerts(50)}
    assert page.count('class="group"') == len(cards)


def test_a_saved_view_is_a_link_that_others_see_if_it_is_shared(site):
    site("ann").post("/views", {"name": "mine", "query": "outcome=decline"})
    site("ann").post("/views", {"name": "ours", "query": "order=loss", "shared": "true"})
    assert 'href="/?outcome=decline"' in site("ann").get("/").text
    seen = site("bob").get("/").text
    assert ('href="/?outcome=decline"' in seen, 'href="/?order=loss"' in seen) == (False, True)
    mine, ours = (view.number for view in site.services.views.all(ANN))
    assert site("bob").post(f"/views/{mine}/delete").status_code == 404
    assert site("ann").post(f"/views/{ours}/delete").status_code == 303


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_an_alert_page_shows_its_facts_themes_narrative_and_cases(site, sqlite_queue, language):
    words, ann = writer(language), site()
    for queued in sqlite_queue.open_alerts(5):
        page = unescape(ann.get(f"/alerts/{queued.alert.alert_id}?language={language}").text)
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


@pytest.mark.parametrize("language", sorted(LANGUAGES))
@pytest.mark.parametrize(
    "path", ["/", "/?by_card=true&outcome=decline", "/lists", "/leads", "/users", "/webhooks", "/audit", "/account", "/bulk"]
)
def test_every_page_is_written_in_the_readers_language(site, path, language, caplog):
    sign = "&" if "?" in path else "?"
    answer = site("ada").get(f"{path}{sign}language={language}")
    assert answer.status_code == 200
    assert f'<html lang="{language}">' in answer.text
    assert "lacks" not in caplog.text, "a message is missing in a catalogue"


def test_the_reader_chooses_the_language(site, sqlite_queue):
    page, ann = f"/alerts/{ids_of(sqlite_queue)[0]}", site()
    assert '<html lang="en">' in ann.get(page).text
    assert '<html lang="de">' in ann.get(page, **{"accept-language": "de-AT,de;q=0.9,en;q=0.8"}).text
    chosen = ann.get(f"{page}?language=es")
    assert '<html lang="es">' in chosen.text
    assert "language=es" in chosen.headers["set-cookie"]
    assert '<html lang="en">' in ann.get(f"{page}?language=xx").text


def test_a_version_1_explanation_is_shown_as_it_was_written(site, sqlite_queue):
    alert = sqlite_queue.open_alerts(1)[0].alert
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
    with sqlite_queue.engine.begin() as connection:
        here = alert_documents.c.alert_id == alert.alert_id
        connection.execute(update(alert_documents).where(here).values(explanation=json.dumps(old)))
    explanation = sqlite_queue.get(alert.alert_id).explanation
    assert explanation.fact("E1").side is Side.FRAUD
    page = site().get(f"/alerts/{alert.alert_id}").text
    for text in ("An old sentence.", "It was &lt;b&gt;old&lt;/b&gt;.", "al_old"):
        assert text in page


def test_hostile_text_is_escaped(site, sqlite_queue, explained, explainer):
    alert = explained[0][0]
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
    transaction = structs.replace(alert.transaction, merchant_name=evil, memo=evil)
    alert = structs.replace(alert, transaction=transaction)
    sqlite_queue.put(alert, explainer.explain(alert))
    Verdicts(sqlite_queue).give(alert.alert_id, Opinion(Finding.ESCALATE, note=evil), ANN, 0)
    for path in (
        f"/alerts/{alert.alert_id}",
        "/?section=escalated",
        f"/cards/{alert.transaction.card_id}",
        "/audit",
        f"/?search={escape(evil)}",
    ):
        page = site("lea").get(path).text
        assert "<script>alert" not in page
        assert "<img" not in page
    assert "&lt;script&gt;" in site().get(f"/alerts/{alert.alert_id}").text


def test_pages_hold_neither_inline_styles_nor_inline_scripts():
    for path in sorted((HERE / "templates").glob("*.html")):
        text = path.read_text()
        assert " style=" not in text, path
        assert "<style" not in text, path
        assert text.count("<script") == text.count("<script src="), path
        assert " on" not in "".join(part.split(">")[0] for part in text.split("<")[1:]).replace(" one", ""), path


def test_a_verdict_opens_the_next_alert_and_can_be_undone_from_there(site, sqlite_queue):
    ann, verdicts = site(), Verdicts(sqlite_queue)
    first = ids_of(sqlite_queue)[0]
    data = {
        "finding": "fraud",
        "typology": "stolen card",
        "closing_reason": "customer_denied",
        "note": "x",
        "version": "0",
        "query": "order=loss",
    }
    answer = ann.post(f"/alerts/{first}/verdict", data)
    assert answer.status_code == 303
    target = urlsplit(answer.headers["location"])
    assert target.path != f"/alerts/{first}"
    assert dict(parse_qsl(target.query)) == {"order": "loss", "given": first}
    (given,) = verdicts.of(first)
    assert (given.verdict.finding, given.verdict.typology, given.verdict.closing_reason, given.verdict.note, given.verdict.analyst) == (
        Finding.FRAUD, "stolen card", "customer_denied", "x", "ann",
    )  # fmt: skip
    page = ann.get(answer.headers["location"]).text
    assert "Verdict “fraud” recorded." in page
    assert f'action="/alerts/{first}/undo"' in page
    assert (
        ann.post(f"/alerts/{first}/undo", {"query": "order=loss", "number": str(given.number)}).headers["location"]
        == f"/alerts/{first}?order=loss"
    )
    assert sqlite_queue.get(first).finding is None


def test_two_verdicts_on_one_version_show_both_and_the_second_can_be_given_knowingly(site, sqlite_queue):
    alert = ids_of(sqlite_queue)[0]
    site("ann").post(f"/alerts/{alert}/verdict", {"finding": "fraud", "version": "0"})
    refused = site("bob").post(
        f"/alerts/{alert}/verdict", {"finding": "legitimate", "version": "0", "note": "the customer called"}
    )
    assert refused.status_code == 409
    for text in ("Two verdicts on one alert", "ann", "the customer called", 'name="version" value="1"'):
        assert text in refused.text
    assert sqlite_queue.get(alert).finding is Finding.FRAUD
    assert site("bob").post(f"/alerts/{alert}/verdict", {"finding": "legitimate", "version": "1"}).status_code == 303
    assert sqlite_queue.get(alert).finding is Finding.LEGITIMATE


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ({"finding": "perhaps", "version": "0"}, 422),
        ({"version": "0"}, 422),
        ({"finding": "fraud"}, 422),
        ({"finding": "fraud", "typology": "magic", "version": "0"}, 422),
        ({"finding": "fraud", "closing_reason": "mood", "version": "0"}, 422),
        ({"finding": "fraud", "note": "x" * 2001, "version": "0"}, 422),
        ({"finding": "fraud", "version": "0", "query": "severity=9"}, 422),
    ],
)
def test_a_wrong_verdict_is_refused(site, sqlite_queue, data, status):
    alert = ids_of(sqlite_queue)[0]
    assert site().post(f"/alerts/{alert}/verdict", data).status_code == status


def test_a_card_number_in_a_note_is_masked_to_its_last_four_digits(site, sqlite_queue):
    alert = ids_of(sqlite_queue)[0]
    site().post(
        f"/alerts/{alert}/verdict", {"finding": "fraud", "note": "called, card 4111 1111 1111 1111 12/25", "version": "0"}
    )
    (given,) = Verdicts(sqlite_queue).of(alert)
    assert given.verdict.note == "called, card [card ending 1111] 12/25"


def test_an_unknown_alert_shows_a_not_found_page(site):
    answer = site().get("/alerts/al_none")
    assert answer.status_code == 404
    assert "no alert al_none" in answer.text
    assert site().post("/alerts/al_none/verdict", {"finding": "fraud", "version": "0"}).status_code == 404


def test_claims_and_snoozes_are_shown_to_others(site, sqlite_queue):
    first, second = ids_of(sqlite_queue)[:2]
    assert site("ann").post(f"/alerts/{first}/claim").status_code == 303
    assert "ann works on it" in site("bob").get(f"/alerts/{first}").text
    assert site("bob").post(f"/alerts/{first}/claim").status_code == 409
    assert site("ann").post(f"/alerts/{first}/release").status_code == 303
    assert site("ann").post(f"/alerts/{second}/snooze", {"minutes": "30"}).status_code == 303
    assert f"/alerts/{second}" not in site("bob").get("/").text
    assert f"/alerts/{second}" in site("bob").get("/?section=snoozed").text


def test_escalated_alerts_form_the_leads_queue(site, sqlite_queue):
    alert = ids_of(sqlite_queue)[0]
    site("ann").post(f"/alerts/{alert}/verdict", {"finding": "escalate", "version": "0"})
    assert f"/alerts/{alert}" in site("lea").get("/?section=escalated").text
    assert site("ann").post(f"/alerts/{alert}/verdict", {"finding": "fraud", "version": "1"}).status_code == 403
    assert site("lea").post(f"/alerts/{alert}/verdict", {"finding": "fraud", "version": "1"}).status_code == 303
    assert f"/alerts/{alert}" in site("ann").get("/?section=closed").text


def test_a_lead_judges_a_whole_filter_and_undoes_it(site, sqlite_queue):
    lea = site("lea")
    preview = lea.get("/bulk?order=loss").text
    number = preview.split('name="number" value="')[1].split('"')[0]
    assert 'data-key="l"' not in preview, "one key must not judge thousands of alerts"
    ids = ids_of(sqlite_queue)
    answer = lea.post("/bulk", {"finding": "legitimate", "number": number, "closing_reason": "usual_behaviour"})
    assert answer.status_code == 303
    page = lea.get(answer.headers["location"]).text
    assert page.count("<td>judged</td>") == 20
    assert "Verdict" in lea.get("/bulk?order=loss").text.split("Recent verdicts")[1]
    assert ids_of(sqlite_queue) == []
    assert lea.post(f"{answer.headers['location']}/undo").status_code == 303
    assert ids_of(sqlite_queue) == ids


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_charts_show_every_theme_and_every_recent_payment(sqlite_queue, language):
    words = console_writer(language)
    for queued in sqlite_queue.open_alerts(20):
        drawn = waterfall(queued.explanation, words)
        assert len(queued.explanation.themes) == 9
        for reason in queued.explanation.themes:
            assert f"{reason.contribution:+.2f}</text>" in drawn
            assert escape(words.theme(reason)) in drawn
        assert timeline(queued.alert, words).count("<circle") == 1 + sum(r.amount is not None for r in queued.alert.recent)


def test_charts_are_empty_without_themes_or_recent_payments(sqlite_queue):
    (queued,) = sqlite_queue.open_alerts(1)
    assert waterfall(structs.replace(queued.explanation, themes=()), console_writer("en")) == ""
    assert timeline(structs.replace(queued.alert, recent=()), console_writer("en")) == ""


def test_amounts_have_the_decimals_of_their_currency():
    written = [writer("de").value(money(100_050, currency)) for currency in ("EUR", "JPY", "KWD")]
    assert [one.replace("\u00a0", " ") for one in written] == ["1.000,50 €", "100.050 ¥", "100,050 KWD"]


# -- the archive on the pages --------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path, world, sqlite_queue, clock):
    """Archive of the world's labels, and of its transactions up to the queue's last alert."""
    last = max(queued.alert.transaction.event_time for queued in sqlite_queue.open_alerts(50))
    clock.now = last
    opened = Archive(f"sqlite:///{tmp_path}/archive.db", FixedClock(last), days=100)
    opened.migrate()
    past = [one for one in transactions_of(transactions_file(world)) if one.event_time <= last]
    opened.add_transactions([Source(one.event_time, 0, i) for i, one in enumerate(past)], past)
    labels = read_labels(world / "labels.parquet", Privacy())
    opened.add_labels([Source(one.label_time, 0, i) for i, one in enumerate(labels)], labels)
    yield opened
    opened.close()


def test_an_alert_shows_the_cards_habits_and_last_payments_and_so_does_the_cards_page(sqlite_queue, archive):
    with console(sqlite_queue, history=archive) as site:
        ann = site()
        for queued in sqlite_queue.open_alerts(5):
            page = unescape(ann.get(f"/alerts/{queued.alert.alert_id}").text)
            told = card_history(queued.alert.transaction, archive)
            assert "does not hold this payment" not in page
            assert writer("en").value(money(told.habits.median, told.habits.currency)) in page
            assert f"{told.merchant.payments:,} payment" in page
            assert page.split('class="recent"')[1].split("</table>")[0].count("<tr>") == 1 + len(told.last)
            assert all(one.category in page for one in told.last)
            transaction = queued.alert.transaction
            card = unescape(ann.get(f"/cards/{transaction.card_id}").text)
            assert f"/alerts/{queued.alert.alert_id}" in card
            assert "payments in 90 days" in card
            assert all(writer("en").value(money(one.payment.amount, one.payment.currency)) in card for one in told.last)
            merchant = ann.get(f"/merchants/{transaction.merchant_id}").text
            assert "reported frauds" in merchant
            if transaction.device_id:
                assert "cards in 90 days" in ann.get(f"/devices/{transaction.device_id}").text


def test_the_page_says_if_a_payment_is_not_archived(sqlite_queue, tmp_path):
    empty = Archive(f"sqlite:///{tmp_path}/empty.db", SystemClock(), days=100)
    empty.migrate()
    with console(sqlite_queue, history=empty) as site:
        page = site().get(f"/alerts/{ids_of(sqlite_queue)[0]}").text
    empty.close()
    assert "The archive does not hold this payment" in page
    assert "The archive holds no earlier payment of this card." in page


class _Away:
    """An archive whose database does not answer."""

    def payments_of_card(self, card_id, since, before):
        raise DatabaseError("the archive's database does not answer")

    merchant = device = payments_of_card


@pytest.mark.parametrize("history", [None, _Away()])
def test_pages_are_shown_without_an_archive(sqlite_queue, history):
    with console(sqlite_queue, history=history) as site:
        (queued,) = sqlite_queue.open_alerts(1)
        page = site().get(f"/alerts/{queued.alert.alert_id}").text
        assert "The archive is not there or does not answer" in page
        assert "Last payments of this card" in page
        assert page.split('class="recent"')[1].split("</table>")[0].count("<tr>") == 1 + len(queued.alert.recent)
        for kind in ("card", "merchant"):
            page = site().get(f"/{kind}s/{getattr(queued.alert.transaction, f'{kind}_id')}").text
            assert "The archive is not there or does not answer" in page


def test_related_alerts_show_what_they_share(site, sqlite_queue, explained, explainer):
    alert = explained[-1][0]
    other = structs.replace(alert.transaction, transaction_id="other", card_id="another card", device_id=None)
    decision = structs.replace(alert.decision, card_id="another card", merchant_id=other.merchant_id)
    at_merchant = structs.replace(alert, transaction=other, alert_id=alert_id(other), decision=decision)
    sqlite_queue.put(at_merchant, explainer.explain(alert))
    page = site().get(f"/alerts/{alert.alert_id}").text
    assert f'same merchant: <a href="/alerts/{at_merchant.alert_id}"' in page


def shared_device_alerts(queue, alert, explanation, count=8):
    """Put alerts of several cards and merchants on one device into a queue."""
    put = []
    for number in range(count):
        paid = structs.replace(
            alert.transaction, card_id=f"card {number}", merchant_id=f"m{number}", device_id="shared", event_time=alert.transaction.event_time + number,
        )  # fmt: skip
        decided = structs.replace(alert.decision, card_id=paid.card_id, merchant_id=paid.merchant_id, event_time=paid.event_time)
        put.append(structs.replace(alert, transaction=paid, decision=decided, alert_id=alert_id(paid)))
        queue.put(put[-1], structs.replace(explanation, alert_id=put[-1].alert_id))
    return put


def test_alerts_of_other_cards_on_the_same_device_are_shown_newest_first(site, sqlite_queue, explained):
    put = shared_device_alerts(sqlite_queue, *explained[-1])
    page = site().get(f"/alerts/{put[0].alert_id}").text
    places = [page.index(f'/alerts/{one.alert_id}"') for one in reversed(put[2:])]
    assert places == sorted(places)
    assert page.count("same device:") == 6


def test_a_device_page_draws_its_links_and_has_them_as_a_table(site, sqlite_queue, explained):
    shared_device_alerts(sqlite_queue, *explained[-1])
    page = site().get("/devices/shared").text
    assert page.count('class="node card') == 8
    assert page.count('class="link"') == 8
    assert page.split("<details")[1].split("</table>")[0].count("<tr>") == 9
    assert 'href="/cards/card%203"' in page
    both = site().get("/devices/shared?hops=2").text
    assert both.count('class="node merchant') == 8


def test_a_likely_typology_is_shown_as_a_hint_and_preselected(site, sqlite_queue, explained, explainer):
    alert = explained[-1][0]
    hint = LikelyTypology(name="card testing", support=3, cases=5)
    explanation = explainer.explain(alert)
    fact = next(one for one in case_facts(explanation.similar_cases, 0.5, hint) if one.kind == "typology")
    kept = tuple(one for one in explanation.facts if one.fact_id != fact.fact_id)
    sqlite_queue.put(alert, structs.replace(explanation, facts=(*kept, fact), typology=hint))
    page = site().get(f"/alerts/{alert.alert_id}").text
    assert "3 of the 5 nearest cases were frauds of the type card testing." in page
    assert '<option value="card testing" selected>' in page
    assert f"/alerts/{alert.alert_id}" in site().get("/?typology=card+testing").text


def test_every_alert_message_still_decodes(sqlite_queue):
    with sqlite_queue.reading() as connection:
        rows = connection.execute(alert_documents.select()).all()
    assert len(rows) == 20
    assert all(msgspec.json.decode(row.message)["alert_id"] == row.alert_id for row in rows)
