"""The queue's pages and claims, on SQLite and PostgreSQL, against a plain Python list of the same alerts."""

import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from sqlalchemy import insert, update

from analyst.assignments import Assignments
from analyst.listing import AlertFilter, AlertRow, Listing, Order, Section, filter_of
from analyst.policy import QueuePolicy, Severity
from analyst.queue import AlertState, Queue, common_loss, search_terms
from analyst.tables import alert_rules, alert_search, alerts
from core.clock import MS_PER_HOUR
from core.errors import AccessError, ConflictError, InputError, NotFoundError
from core.messages import Finding, Outcome
from tests.analyst.conftest import ANN, AUDREY, BOB, LEA, HandClock, decide, ids_of
from tests.strategies import examples

NOW = 1_760_000_000_000


def made_row(rng, number):
    """A random row of the alerts table; many values repeat, so that orders have ties."""
    state = rng.choice(["open"] * 6 + ["escalated", "closed"])
    claimed = rng.random() < 0.2
    return {
        "alert_id": f"al_{number:04d}", "transaction_id": f"t{rng.randrange(40)}", "card_id": f"card-{rng.randrange(8)}", "merchant_id": f"m_{rng.randrange(5)}%",
        "device_id": rng.choice([None, "d1", "d2"]), "merchant_name": rng.choice([None, "Corner Shop", "ÉPICERIE"]), "event_time": NOW - rng.randrange(50) * 60_000,
        "amount": rng.randrange(1, 60) * 100, "currency": rng.choice(["EUR", "EUR", "JPY"]), "outcome": rng.choice(["review", "decline"]),
        "probability": rng.choice([None, 0.25, 0.5]), "expected_loss": 1, "loss": rng.randrange(10) * 1_000, "loss_currency": "EUR", "bundle": rng.choice("ab"),
        "theme": rng.choice([None, "place", "amount"]), "typology": rng.choice([None, "stolen card"]), "top_fact": None, "raised_at": NOW - rng.randrange(72) * MS_PER_HOUR,
        "severity": rng.randrange(3), "deadline": NOW + rng.randrange(-5, 5) * 60_000, "state": state,
        "finding": {"open": None, "escalated": "escalate", "closed": rng.choice(["fraud", "legitimate"])}[state], "version": 0,
        "claimed_by": rng.choice(["ann", "bob"]) if claimed else None, "claimed_until": NOW + rng.choice([-60_000, 10**9]) if claimed else None,
        "snoozed_until": rng.choice([None, None, NOW - 60_000, NOW + 10**9]) if state != "closed" else None, "closed_at": NOW if state == "closed" else None,
        "closed_by": "ann" if state == "closed" else None, "changed_at": NOW,
    }  # fmt: skip


class Rows(list):
    def __repr__(self):
        return f"{len(self)} rows"


@pytest.fixture(scope="module")
def rows():
    rng = random.Random(3)
    return Rows(made_row(rng, number) for number in range(300))


def fill(queue, rows):
    with queue.engine.begin() as connection:
        connection.execute(insert(alerts), rows)
        connection.execute(insert(alert_search), [term for row in rows for term in search_terms(row)])
        held = [{"alert_id": row["alert_id"], "rule": "velocity"} for row in rows[::7]]
        connection.execute(insert(alert_rules), held)


@pytest.fixture
def filled(empty_queue, rows):
    fill(empty_queue, rows)
    return empty_queue


@pytest.fixture(scope="module")
def shared(tmp_path_factory, rows):
    """One listing on SQLite for many generated filters."""
    opened = Queue(f"sqlite:///{tmp_path_factory.mktemp('listing')}/queue.db", HandClock(NOW))
    fill(opened, rows)
    yield Listing(opened)
    opened.close()


def matches(row, wanted, reader, now):
    """The same filter in plain Python."""
    asleep = bool(row["snoozed_until"]) and row["snoozed_until"] > now
    in_section = {
        Section.OPEN: row["state"] == "open" and not asleep,
        Section.SNOOZED: row["state"] != "closed" and asleep,
        Section.MINE: row["claimed_by"] == reader.name and row["claimed_until"] > now,
        Section.ESCALATED: row["state"] == "escalated" and not asleep, Section.CLOSED: row["state"] == "closed", Section.ALL: True,
    }[wanted.section]  # fmt: skip
    if not in_section:
        return False
    for name, column in (("card", "card_id"), ("merchant", "merchant_id"), ("device", "device_id"), ("theme", "theme"), ("typology", "typology"), ("bundle", "bundle")):  # fmt: skip
        if getattr(wanted, name) and row[column] != getattr(wanted, name):
            return False
    if wanted.severity is not None and row["severity"] != wanted.severity:
        return False
    if (wanted.outcome and row["outcome"] != wanted.outcome) or (wanted.finding and row["finding"] != wanted.finding):
        return False
    if wanted.assignee and not (row["claimed_by"] == wanted.assignee and row["claimed_until"] > now):
        return False
    if wanted.rule and (wanted.rule != "velocity" or int(row["alert_id"][3:]) % 7):
        return False
    major = row["amount"] / {"EUR": 100, "JPY": 1}[row["currency"]]
    age = (now - row["raised_at"]) / MS_PER_HOUR
    if (wanted.amount_from is not None and major < wanted.amount_from) or (
        wanted.amount_to is not None and major > wanted.amount_to
    ):
        return False
    if (wanted.age_from is not None and age < wanted.age_from) or (wanted.age_to is not None and age > wanted.age_to):
        return False
    ids = [row[name] for name in ("alert_id", "transaction_id", "card_id", "merchant_id")]
    return (
        not wanted.search
        or any(one.startswith((wanted.search, wanted.search.lower())) for one in ids)
        or (row["merchant_name"] or "").lower().startswith(wanted.search.lower())
    )


def in_order(rows, order):
    keys = {
        Order.PRIORITY: lambda row: (row["severity"], row["deadline"], row["alert_id"]), Order.LOSS: lambda row: (row["loss"], row["alert_id"]),
        Order.DEADLINE: lambda row: (row["deadline"], row["alert_id"]), Order.TIME: lambda row: (row["event_time"], row["alert_id"]),
    }  # fmt: skip
    return sorted(rows, key=keys[order], reverse=order in (Order.LOSS, Order.TIME))


def walked(listing, wanted, reader, size):
    """All pages, forward and then backward."""
    page, pages = listing.page(wanted, reader, size=size), []
    while True:
        pages.append([row.alert_id for row in page.rows])
        if page.after is None:
            break
        page = listing.page(wanted, reader, after=page.after, size=size)
    back = [pages[-1]]
    while page.before is not None:
        page = listing.page(wanted, reader, before=page.before, size=size)
        back.append([row.alert_id for row in page.rows])
    return [one for page in pages for one in page], [one for page in reversed(back) for one in page]


FILTERS = st.builds(
    AlertFilter,
    section=st.sampled_from(Section), order=st.sampled_from(Order), search=st.sampled_from(["", "", "t1", "card-", "m_1", "m_1%", "corner", "COR", "CARD-", "al_00", "%", "_"]),
    outcome=st.sampled_from([None, None, *Outcome]), severity=st.sampled_from([None, None, 0, 1, 2]), theme=st.sampled_from(["", "", "place"]),
    typology=st.sampled_from(["", "", "stolen card"]), rule=st.sampled_from(["", "", "velocity", "none"]), bundle=st.sampled_from(["", "", "a"]),
    card=st.sampled_from(["", "", "card-3"]), merchant=st.sampled_from(["", "", "m_1%"]), device=st.sampled_from(["", "", "d1"]),
    finding=st.sampled_from([None, None, *Finding]), assignee=st.sampled_from(["", "", "ann"]), amount_from=st.sampled_from([None, None, 10.0]),
    amount_to=st.sampled_from([None, None, 30.0]), age_from=st.sampled_from([None, None, 24.5]), age_to=st.sampled_from([None, None, 48.5]),
)  # fmt: skip


@examples(200)
@given(wanted=FILTERS, size=st.integers(1, 120))
def test_the_pages_of_any_filter_hold_exactly_the_matching_alerts_in_order(shared, rows, wanted, size):
    expected = [row["alert_id"] for row in in_order([row for row in rows if matches(row, wanted, ANN, NOW)], wanted.order)]
    forward, backward = walked(shared, wanted, ANN, size)
    assert forward == expected
    assert backward == expected
    assert shared.count(wanted, ANN) == len(expected)
    assert (
        filter_of(
            {
                name: value
                for name, _, value in (
                    part.partition("=") for part in wanted.query().replace("+", " ").replace("%25", "%").split("&")
                )
            }
        )
        == wanted
    )


@pytest.mark.parametrize("order", Order)
def test_pages_on_each_database(filled, rows, order):
    listing, wanted = Listing(filled), AlertFilter(order=order, search="card-", amount_from=5)
    expected = [row["alert_id"] for row in in_order([row for row in rows if matches(row, wanted, ANN, NOW)], order)]
    assert walked(listing, wanted, ANN, 17) == (expected, expected)


def test_a_page_stays_in_place_when_alerts_before_it_are_closed(filled):
    listing, wanted = Listing(filled), AlertFilter(order=Order.LOSS)
    first = listing.page(wanted, ANN, size=20)
    second = listing.page(wanted, ANN, after=first.after, size=20)
    with filled.engine.begin() as connection:
        ids = [row.alert_id for row in first.rows]
        connection.execute(update(alerts).where(alerts.c.alert_id.in_(ids)).values(state=AlertState.CLOSED.value))
    assert listing.page(wanted, ANN, after=first.after, size=20).rows == second.rows


def test_a_row_of_the_page_is_the_stored_alert(queue):
    for row in Listing(queue).page(AlertFilter(), ANN).rows:
        queued = queue.get(row.alert_id)
        loss, currency = common_loss(queued.alert)
        assert (row.loss, row.loss_currency, row.severity) == (loss, currency, QueuePolicy().severity(loss, currency))
        assert (row.amount, row.probability) == (queued.alert.decision.amount, queued.alert.decision.probability)
        assert row.top_fact is None or row.top_fact in queued.explanation.facts
        assert isinstance(row, AlertRow)


def test_losses_of_all_currencies_are_in_the_specs_currency(explained):
    alert = explained[-1][0]
    foreign = structs.replace(
        alert, currency="EUR", features=alert.features | {"amount": 250.0}, decision=structs.replace(alert.decision, currency="JPY", amount=40_000, expected_loss=20_000, probability=0.5)
    )  # fmt: skip
    assert common_loss(foreign) == (12_500, "EUR")
    unpriced = structs.replace(foreign, features=foreign.features | {"amount": None})
    assert common_loss(unpriced) == (20_000, "JPY")


def test_the_expected_loss_sets_the_severity_and_the_severity_the_deadline():
    policy = QueuePolicy(losses=(500, 50), deadlines_ms=(1, 2, 3))
    assert [policy.severity(minor, "EUR") for minor in (50_000, 49_999, 5_000, 4_999)] == [
        Severity.CRITICAL,
        Severity.HIGH,
        Severity.HIGH,
        Severity.NORMAL,
    ]
    assert policy.severity(500, "JPY") is Severity.CRITICAL
    assert [policy.deadline(100, severity) for severity in Severity] == [101, 102, 103]


@pytest.mark.parametrize(
    "query",
    [
        {"severity": "7"},
        {"outcome": "maybe"},
        {"amount_to": "1e9"},
        {"age_from": "-3"},
        {"order": "up"},
        {"card": "x" * 129},
        {"search": "a\0"},
    ],
)
def test_an_invalid_filter_is_an_input_error(query):
    with pytest.raises(InputError):
        filter_of(query)


def test_a_search_treats_wildcards_as_letters(filled):
    assert Listing(filled).page(AlertFilter(section=Section.ALL, search="_"), ANN).rows == []


# -- claims --------------------------------------------------------------------------------------------------------------------


def test_next_gives_two_people_different_alerts_in_the_filters_order(queue):
    assignments, expected = Assignments(queue), ids_of(queue)
    wanted = AlertFilter(order=Order.LOSS)
    got = [assignments.claim_next(wanted, actor) for actor in (ANN, BOB, ANN, BOB)]
    assert got == expected[:4]
    assert [row.alert_id for row in Listing(queue).page(AlertFilter(section=Section.MINE, order=Order.LOSS), ANN).rows] == [
        expected[0],
        expected[2],
    ]


def test_many_people_at_once_never_get_the_same_alert(queue):
    assignments, got = Assignments(queue), []
    people = [structs.replace(ANN, name=f"analyst{number}") for number in range(8)]

    def work(person):
        while (alert := assignments.claim_next(AlertFilter(), person)) is not None:
            got.append(alert)

    threads = [threading.Thread(target=work, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(ids_of(queue))


def test_a_stale_claim_returns_to_the_queue(queue, clock):
    assignments, first = Assignments(queue), ids_of(queue)[0]
    assignments.claim(first, ANN)
    with pytest.raises(ConflictError, match="ann works on"):
        assignments.claim(first, BOB)
    clock.pass_by(16 * 60)
    assert assignments.claim_next(AlertFilter(order=Order.LOSS), BOB) == first


def test_a_lead_takes_over_a_claim_and_others_cannot_release_it(queue):
    assignments, first = Assignments(queue), ids_of(queue)[0]
    assignments.claim(first, ANN)
    with pytest.raises(ConflictError, match="not claimed"):
        assignments.release(first, BOB)
    assignments.claim(first, LEA)
    assert queue.get(first).claimed_by == "lea"
    assignments.release(first, LEA)
    assert queue.get(first).claimed_by is None


def test_a_snoozed_alert_comes_back_by_itself(queue, clock):
    assignments, first = Assignments(queue), ids_of(queue)[0]
    deadline = queue.get(first).deadline
    assignments.snooze(first, 30, ANN)
    sections = [
        Listing(queue).page(AlertFilter(section=section, card=queue.get(first).alert.transaction.card_id), ANN).rows
        for section in (Section.OPEN, Section.SNOOZED)
    ]
    assert [first in {row.alert_id for row in rows} for rows in sections] == [False, True]
    clock.pass_by(31 * 60)
    assert first in {row.alert_id for row in Listing(queue).page(AlertFilter(), ANN).rows}
    assert queue.get(first).deadline == deadline
    with pytest.raises(InputError, match="30 days"):
        assignments.snooze(first, 60 * 24 * 31, ANN)


def test_escalated_alerts_are_worked_on_by_leads_and_stay_hidden_while_they_are_snoozed(queue):
    assignments, first = Assignments(queue), ids_of(queue)[0]
    decide(queue, first, Finding.ESCALATE)
    for act in (lambda: assignments.claim(first, ANN), lambda: assignments.snooze(first, 5, ANN)):
        with pytest.raises(AccessError):
            act()
    escalated = AlertFilter(section=Section.ESCALATED)
    assert assignments.claim_next(escalated, LEA) == first
    assignments.snooze(first, 30, LEA)
    assert assignments.claim_next(escalated, LEA) is None
    assert assignments.claim_next(AlertFilter(section=Section.ALL), LEA) != first
    assert [row.alert_id for row in Listing(queue).page(AlertFilter(section=Section.SNOOZED), LEA).rows] == [first]


def test_numbers_in_an_address_survive_a_round_trip():
    for amount in (1_234_567.5, 12_345.67, 0.000001, 100.0):
        wanted = AlertFilter(amount_from=amount)
        assert filter_of(dict([part.split("=") for part in wanted.query().split("&")])) == wanted


def test_work_needs_the_permission_and_an_alert(queue):
    assignments, first = Assignments(queue), ids_of(queue)[0]
    for work in (
        lambda: assignments.claim(first, AUDREY),
        lambda: assignments.claim_next(AlertFilter(), AUDREY),
        lambda: assignments.snooze(first, 5, AUDREY),
    ):
        with pytest.raises(AccessError):
            work()
    with pytest.raises(NotFoundError):
        assignments.claim("al_none", ANN)


def test_breaches_count_open_alerts_past_their_deadline(queue, clock):
    assert Listing(queue).breaches() == 0
    clock.pass_by(25 * 3600)
    assert Listing(queue).breaches() == len(ids_of(queue))
