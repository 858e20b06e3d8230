"""Verdicts, undoing, the outbox and bulk verdicts, on SQLite and PostgreSQL."""

import threading

import pytest
from sqlalchemy import func, select

from analyst.assignments import Assignments
from analyst.audit import entries
from analyst.bulk import Bulks, ItemResult
from analyst.leases import Lease
from analyst.listing import AlertFilter, Listing, Order, Section
from analyst.queue import AlertState
from analyst.tables import verdicts
from analyst.verdicts import Outbox, Verdicts, VerdictState
from core.errors import AccessError, ConflictError, InputError, NotFoundError, VerdictConflict
from core.messages import ClosingReason, Finding, LabelSource, Opinion, label_of
from tests.analyst.conftest import ANN, AUDREY, BOB, LEA, LEO, ids_of


def undo(given, alert, actor):
    """Undo the last standing verdict on an alert."""
    standing = [one for one in given.of(alert) if one.state is not VerdictState.UNDONE]
    given.undo(alert, standing[-1].number if standing else 0, actor)


FRAUD, LEGITIMATE, ESCALATE = (Opinion(finding) for finding in (Finding.FRAUD, Finding.LEGITIMATE, Finding.ESCALATE))


@pytest.fixture
def given(queue):
    return Verdicts(queue)


@pytest.fixture
def outbox(queue):
    return Outbox(queue.database, queue.clock)


def test_a_verdict_closes_the_alert_and_leaves_as_verdict_and_label_after_its_grace(queue, given, outbox, clock):
    alert = ids_of(queue)[0]
    opinion = Opinion(Finding.FRAUD, "stolen card", ClosingReason.CUSTOMER_DENIED, "customer called")
    stored = given.give(alert, opinion, ANN, 0)
    queued = queue.get(alert)
    assert (queued.finding, queued.state, queued.version) == (Finding.FRAUD, AlertState.CLOSED, 1)
    assert outbox.take() == [], "its author may still undo it"
    clock.pass_by(31)
    assert (outbox.backlog().verdicts, outbox.backlog().seconds > 0) == (1, True)
    (leaving,) = outbox.take()
    assert leaving.verdict == stored.verdict
    label, transaction = label_of(leaving.verdict), queued.alert.transaction
    assert (label.transaction_id, label.card_id, label.fraud, label.source) == (
        transaction.transaction_id, transaction.card_id, True, LabelSource.ANALYST,
    )  # fmt: skip
    assert [one.number for one in outbox.take()] == [leaving.number], "without an acknowledgement, it is sent again"
    outbox.acknowledged([leaving.number])
    assert (outbox.take(), outbox.backlog().verdicts) == ([], 0)


def test_an_escalation_makes_no_label_and_only_a_lead_judges_the_alert_then(queue, given):
    alert = ids_of(queue)[0]
    assert label_of(given.give(alert, ESCALATE, ANN, 0).verdict) is None
    assert queue.get(alert).state is AlertState.ESCALATED
    with pytest.raises(AccessError, match="needs the permission"):
        given.give(alert, FRAUD, ANN, 1)
    given.give(alert, FRAUD, LEA, 1)
    assert queue.get(alert).state is AlertState.CLOSED
    with pytest.raises(AccessError):
        given.give(alert, LEGITIMATE, ANN, 2)


def test_a_verdict_on_an_outdated_version_is_refused_and_names_both(queue, given):
    alert = ids_of(queue)[0]
    given.give(alert, LEGITIMATE, ANN, 0)
    with pytest.raises(VerdictConflict) as refused:
        given.give(alert, FRAUD, BOB, 0)
    conflict = refused.value
    assert (conflict.theirs.finding, conflict.theirs.analyst, conflict.mine, conflict.version) == (
        Finding.LEGITIMATE,
        "ann",
        FRAUD,
        1,
    )
    assert queue.get(alert).finding is Finding.LEGITIMATE
    given.give(alert, FRAUD, BOB, conflict.version)
    assert [one.verdict.analyst for one in given.of(alert)] == ["ann", "bob"]


def test_of_two_verdicts_at_once_one_wins_and_the_other_is_refused(queue, given):
    alert, results = ids_of(queue)[0], []

    def judge(actor, opinion):
        try:
            results.append(given.give(alert, opinion, actor, 0).verdict.analyst)
        except VerdictConflict as conflict:
            results.append(conflict.theirs.analyst)

    threads = [threading.Thread(target=judge, args=one) for one in ((ANN, FRAUD), (BOB, LEGITIMATE))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    assert len(given.of(alert)) == 1


def test_a_verdict_can_be_undone_until_it_leaves(queue, given, outbox, clock):
    first, second = ids_of(queue)[:2]
    given.give(first, FRAUD, ANN, 0)
    with pytest.raises(AccessError, match="ann's"):
        undo(given, first, BOB)
    undo(given, first, ANN)
    assert (queue.get(first).finding, queue.get(first).state, queue.get(first).version) == (None, AlertState.OPEN, 2)
    with pytest.raises(NotFoundError):
        undo(given, first, ANN)
    given.give(second, FRAUD, ANN, 0)
    clock.pass_by(31)
    with pytest.raises(ConflictError, match="cannot be undone"):
        undo(given, second, ANN)  # its grace is over, although nothing has sent it yet
    assert [one.verdict.alert_id for one in outbox.take()] == [second], "the undone verdict never leaves"
    with pytest.raises(ConflictError, match="leaves for Kafka"):
        undo(given, second, ANN)
    assert [one.state for one in given.of(first)] == [VerdictState.UNDONE]


def test_undoing_a_second_verdict_restores_the_first(queue, given):
    alert = ids_of(queue)[0]
    given.give(alert, ESCALATE, ANN, 0)
    given.give(alert, FRAUD, LEA, 1)
    undo(given, alert, LEA)
    assert (queue.get(alert).finding, queue.get(alert).state) == (Finding.ESCALATE, AlertState.ESCALATED)


def test_refused_verdicts(queue, given):
    alert = ids_of(queue)[0]
    for opinion, message in (
        (Opinion(Finding.FRAUD, "magic"), "unknown typology"),
        (Opinion(Finding.LEGITIMATE, "stolen card"), "no typology of fraud"),
        (Opinion(Finding.FRAUD, note="x" * 2_001), "too long"),
    ):
        with pytest.raises(InputError, match=message):
            given.give(alert, opinion, ANN, 0)
    with pytest.raises(NotFoundError, match="no alert al_x"):
        given.give("al_x", FRAUD, ANN, 0)
    with pytest.raises(AccessError):
        given.give(alert, FRAUD, AUDREY, 0)
    Assignments(queue).claim(alert, BOB)
    with pytest.raises(ConflictError, match="bob works on"):
        given.give(alert, FRAUD, ANN, 0)
    assert given.of(alert) == []


def test_a_crash_between_taking_and_acknowledging_loses_and_doubles_nothing(queue, given, clock):
    ids = ids_of(queue)
    for alert in ids:
        given.give(alert, FRAUD, ANN, 0)
    clock.pass_by(31)
    crashed, next_one = Outbox(queue.database, clock), Outbox(queue.database, clock)
    assert {one.verdict.alert_id for one in crashed.take()} == set(ids)
    again = next_one.take()
    assert [one.verdict.alert_id for one in again] == ids
    next_one.acknowledged([one.number for one in again])
    assert next_one.take() == []
    with queue.reading() as connection:
        assert connection.execute(select(func.count()).select_from(verdicts)).scalar_one() == len(ids)


def test_only_one_of_two_consoles_holds_a_lease_and_the_other_takes_over(queue, clock):
    one, other = (Lease(queue.database, clock, "relay") for _ in range(2))
    assert (one.acquire(), other.acquire(), one.acquire()) == (True, False, True)
    clock.pass_by(16)
    assert (other.acquire(), one.acquire()) == (True, False)
    other.release()
    assert one.acquire()


def test_undoing_names_its_verdict_so_that_a_repetition_undoes_no_other(queue, given):
    alert = ids_of(queue)[0]
    first = given.give(alert, LEGITIMATE, LEA, 0)
    second = given.give(alert, FRAUD, LEA, 1)
    with pytest.raises(ConflictError, match="another verdict"):
        given.undo(alert, first.number, LEA)
    given.undo(alert, second.number, LEA)
    with pytest.raises(ConflictError, match="another verdict"):
        given.undo(alert, second.number, LEA)
    assert queue.get(alert).finding is Finding.LEGITIMATE


def test_an_earlier_verdict_with_a_longer_grace_leaves_before_a_later_one(queue, bulks, given, outbox, clock):
    alert = ids_of(queue)[0]
    bulks.give(bulks.preview(AlertFilter(), LEA).number, FRAUD, LEA)
    given.give(alert, LEGITIMATE, ANN, 1)
    clock.pass_by(31)
    assert [(one.verdict.alert_id, one.verdict.finding) for one in outbox.take()] == [
        (alert, Finding.FRAUD),
        (alert, Finding.LEGITIMATE),
    ]


# -- bulk verdicts -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bulks(queue):
    return Bulks(queue, Listing(queue))


def test_a_bulk_verdict_judges_a_preview_item_by_item_and_can_be_undone(queue, bulks, given, outbox, clock):
    ids = ids_of(queue)
    Assignments(queue).claim(ids[0], BOB)
    preview = bulks.preview(AlertFilter(order=Order.LOSS), LEA)
    assert (preview.alerts, [row.alert_id for row in preview.rows]) == (len(ids), ids[:10])
    given.give(ids[1], ESCALATE, ANN, 0)  # after the preview: it has changed
    number = preview.number
    bulks.give(number, Opinion(Finding.LEGITIMATE, closing_reason=ClosingReason.DUPLICATE), LEA)
    results = {item.alert_id: item.result for item in bulks.items(number)}
    assert results == dict.fromkeys(ids, ItemResult.DONE) | {ids[0]: ItemResult.CLAIMED, ids[1]: ItemResult.CHANGED}
    assert {queue.get(alert).finding for alert in ids[2:]} == {Finding.LEGITIMATE}
    with queue.reading() as connection:
        assert len([one for one in entries(connection) if one.action == "verdict"]) == len(ids) - 1
    clock.pass_by(60)
    assert [one.verdict.alert_id for one in outbox.take()] == [ids[1]], "a bulk verdict waits longer"
    given.give(ids[2], FRAUD, BOB, 1)
    bulks.undo(number, LEA)
    results = {item.alert_id: item.result for item in bulks.items(number)}
    assert results[ids[2]] is ItemResult.LEFT
    assert {results[alert] for alert in ids[3:]} == {ItemResult.UNDONE}
    assert set(ids_of(queue)) == {*ids} - {ids[1], ids[2]}
    assert queue.get(ids[2]).finding is Finding.FRAUD
    with pytest.raises(ConflictError, match="nothing"):
        bulks.undo(number, LEA)
    assert [one.number for one in bulks.recent()] == [number]


def test_alerts_that_join_the_filter_after_the_preview_are_not_judged(queue, bulks, clock, explained):
    ids = ids_of(queue)
    Assignments(queue).snooze(ids[0], 5, ANN)
    preview = bulks.preview(AlertFilter(), LEA)
    clock.pass_by(360)  # the snooze ends
    queue.put(*explained[0])
    bulks.give(preview.number, FRAUD, LEA)
    assert queue.get(ids[0]).finding is None
    assert queue.get(explained[0][0].alert_id).finding is None


def test_an_interrupted_bulk_verdict_and_an_interrupted_undo_are_finished_later(queue, bulks, monkeypatch):
    monkeypatch.setattr("analyst.bulk._CHUNK", 5)
    ids, number = ids_of(queue), bulks.preview(AlertFilter(), LEA).number
    judge, restore, calls = Bulks._judge, Bulks._restore, []

    def breaking(original):
        def work(self, *arguments):
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("the process ended")
            return original(self, *arguments)

        return work

    for name, original, act in (
        ("_judge", judge, lambda: bulks.give(number, FRAUD, LEA)),
        ("_restore", restore, lambda: bulks.undo(number, LEA)),
    ):
        calls.clear()
        monkeypatch.setattr(Bulks, name, breaking(original))
        with pytest.raises(RuntimeError):
            act()
        assert 0 < len(ids_of(queue)) < len(ids)
        act()
    assert ids_of(queue) == ids
    with pytest.raises(ConflictError, match="given before"):
        bulks.give(number, FRAUD, LEA)


def test_a_bulk_verdict_that_has_left_is_not_undone(queue, bulks, outbox, clock):
    ids, number = ids_of(queue), bulks.preview(AlertFilter(), LEA).number
    bulks.give(number, FRAUD, LEA)
    clock.pass_by(601)
    assert len(outbox.take()) == len(ids)
    bulks.undo(number, LEA)
    assert bulks.get(number).results == {ItemResult.LEFT: len(ids)}
    assert ids_of(queue) == []


def test_a_bulk_verdict_never_judges_closed_alerts(queue, bulks, given):
    ids = ids_of(queue)
    given.give(ids[0], FRAUD, ANN, 0)
    number = bulks.preview(AlertFilter(section=Section.ALL), LEA).number
    bulks.give(number, LEGITIMATE, LEA)
    assert ids[0] not in {item.alert_id for item in bulks.items(number)}
    assert queue.get(ids[0]).finding is Finding.FRAUD


def test_refused_bulk_verdicts(bulks):
    with pytest.raises(AccessError):
        bulks.preview(AlertFilter(), ANN)
    number = bulks.preview(AlertFilter(), LEA).number
    for person in (ANN, LEO):
        with pytest.raises(AccessError):
            bulks.give(number, FRAUD, person)
    assert bulks.preview(AlertFilter(card="nobody"), LEA).number is None
    with pytest.raises(NotFoundError):
        bulks.get(10**6)


def test_old_previews_are_forgotten(bulks, clock):
    number = bulks.preview(AlertFilter(), LEA).number
    clock.pass_by(25 * 3600)
    bulks.preview(AlertFilter(), LEA)
    with pytest.raises(NotFoundError):
        bulks.give(number, FRAUD, LEA)
