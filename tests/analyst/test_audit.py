"""The audit trail: tampering is found by the chain, by the key, by the anchors in Kafka, and by comparison with the tables."""

import hashlib
import hmac
import json
import threading

import msgspec
import pytest
from msgspec import structs
from sqlalchemy import delete, func, insert, select, text, update

from analyst.access.accounts import Accounts
from analyst.access.roles import Role
from analyst.access.throttle import Throttle
from analyst.audit import FIRST, Event, entries
from analyst.bulk import Bulks
from analyst.cases import Cases
from analyst.listing import AlertFilter, Listing
from analyst.proposals import AddEntry, ListKey, ListName, Proposals
from analyst.queue import Queue
from analyst.replay import decision_text
from analyst.retention import purge
from analyst.tables import alerts, audit, audit_anchors, cases, list_entries, next_step_tables, proposals, users, verdicts
from analyst.verdicts import Outbox, Verdicts
from analyst.verification import verify
from core.errors import AccessError, AuditKeyError, ConflictError, InputError
from core.messages import Finding, Opinion
from explain.casebook import case_from
from tests.analyst.conftest import ADA, ANN, LEA, ids_of

KEY = b"a key of the audit trail"


@pytest.fixture
def queue(database_url, clock, explained):
    """A queue with an audit key, six verdicts, one of them undone."""
    opened = Queue(database_url, clock, audit_key=KEY)
    for alert, explanation in explained[-12:]:
        opened.put(alert, explanation)
    given = Verdicts(opened)
    for alert in ids_of(opened)[:6]:
        given.give(alert, Opinion(Finding.FRAUD), ANN, 0)
    first = closed(opened)[0]
    given.undo(first, given.of(first)[-1].number, ANN)
    yield opened
    opened.close()


def closed(queue):
    with queue.reading() as connection:
        return list(
            connection.execute(select(alerts.c.alert_id).where(alerts.c.state == "closed").order_by(alerts.c.alert_id)).scalars()
        )


def anchor_of(queue, clock):
    clock.pass_by(61)
    with queue.reading() as connection:
        return queue.database.audit.new_anchor(connection)


def test_an_untouched_trail_is_intact_and_agrees_with_the_tables(queue, clock):
    found = verify(queue, [anchor_of(queue, clock)])
    assert found.intact, found
    assert (found.entries, found.anchors) == (7, 1)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'eve' WHERE number = 3",
        "UPDATE audit SET at = at + 1 WHERE number = 3",
        "UPDATE audit SET detail = '' WHERE number = 3",
        "DELETE FROM audit WHERE number = 3",
        "UPDATE audit SET number = 99 WHERE number = 3",
        "UPDATE audit SET scheme = 1 WHERE number = 3",
    ],
)
def test_a_changed_entry_breaks_the_chain(queue, statement):
    with queue.engine.begin() as connection:
        connection.execute(text(statement))
    assert verify(queue, None).first_broken == 3


def resigned(queue, key, scheme=2):
    """Sign the whole trail again, as an attacker with the database's password could."""
    with queue.engine.begin() as connection:
        previous = FIRST
        for row in connection.execute(select(audit).order_by(audit.c.number)).all():
            content = (row.number, row.at, row.actor, row.action, row.subject, row.detail, previous)
            text = json.dumps(content).encode()
            signature = (hashlib.sha256(text) if scheme == 1 else hmac.new(key, text, hashlib.sha256)).hexdigest()
            connection.execute(
                update(audit).where(audit.c.number == row.number).values(previous=previous, hash=signature, scheme=scheme)
            )
            previous = signature


def test_a_trail_signed_again_without_the_key_is_found(queue):
    with queue.engine.begin() as connection:
        connection.execute(update(audit).where(audit.c.number == 2).values(actor="eve"))
    resigned(queue, b"another key")
    assert verify(queue, None).first_broken == 1


def test_a_trail_signed_again_by_the_old_scheme_is_found_by_the_anchors(queue, clock):
    anchor = anchor_of(queue, clock)
    resigned(queue, b"", scheme=1)
    assert verify(queue, [anchor]).first_broken == anchor.number


def test_a_trail_signed_again_even_with_the_key_contradicts_the_anchors(queue, clock):
    anchor = anchor_of(queue, clock)
    with queue.engine.begin() as connection:
        connection.execute(update(audit).where(audit.c.number == 2).values(actor="eve"))
    resigned(queue, KEY)
    assert verify(queue, None).first_broken is None
    assert verify(queue, [anchor]).first_broken == anchor.number


def test_a_trail_cut_off_at_its_end_contradicts_the_anchors(queue, clock):
    anchor = anchor_of(queue, clock)
    with queue.engine.begin() as connection:
        connection.execute(delete(audit).where(audit.c.number > 4))
    assert verify(queue, None).first_broken is None
    assert verify(queue, [anchor]).first_broken == 5


def test_a_trail_cut_off_that_grew_again_contradicts_itself_in_kafka(queue, clock):
    first = anchor_of(queue, clock)
    with queue.engine.begin() as connection:
        connection.execute(delete(audit).where(audit.c.number > first.number - 1))
    with queue.database.changing() as connection:
        queue.database.audit.record(connection, Event("eve", "harmless", "x", ""))
    second = anchor_of(queue, clock)
    assert second.number == first.number
    assert verify(queue, [second]).first_broken is None
    assert verify(queue, [first, second]).first_broken == first.number


@pytest.mark.parametrize("row", [{"number": 2_000_000_000, "at": 1}, {"number": 1, "at": 9_000_000_000_000}])
def test_anchors_cannot_be_stopped_by_a_row_that_cannot_be_true(queue, clock, row):
    with queue.engine.begin() as connection:
        connection.execute(insert(audit_anchors).values(hash="x", **row))
    assert anchor_of(queue, clock) is not None


def test_entries_that_no_anchor_covers_are_found(queue, clock):
    anchor = anchor_of(queue, clock)
    assert verify(queue, []).intact, "an anchor may take a few minutes"
    clock.pass_by(400)
    assert verify(queue, [anchor]).intact
    assert "no anchor" in verify(queue, []).contradictions[0]


def test_an_anchor_is_made_once_a_minute_and_only_for_a_new_head(queue, clock):
    anchor = anchor_of(queue, clock)
    with queue.database.changing() as connection:
        queue.database.audit.anchored(connection, anchor)
    assert anchor_of(queue, clock) is None
    with queue.database.changing() as connection:
        queue.database.audit.record(connection, Event("ann", "tested", "x", ""))
    assert anchor_of(queue, clock).number == anchor.number + 1


def test_entries_of_version_0_1_may_only_stand_at_the_beginning(database_url, clock):
    queue = Queue(database_url, clock, audit_key=KEY)
    content = [1, 5, "ann", "verdict", "al_1", "{}", FIRST]
    plain = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    row = dict(zip(("number", "at", "actor", "action", "subject", "detail", "previous"), content, strict=True)) | {
        "hash": plain,
        "scheme": 1,
    }
    with queue.engine.begin() as connection:
        connection.execute(insert(audit).values(row))
    with queue.database.changing() as connection:
        queue.database.audit.record(connection, Event("ann", "tested", "x", ""), Event("ann", "tested", "y", ""))
    with queue.reading() as connection:
        assert queue.database.audit.check(connection).first_broken is None
    with queue.engine.begin() as connection:
        connection.execute(update(audit).where(audit.c.number == 2).values(scheme=1))
    with queue.reading() as connection:
        assert queue.database.audit.check(connection).first_broken == 2
    queue.close()


# -- another key ---------------------------------------------------------------------------------------------------------------


OTHER_KEY = b"another key of the audit trail"


def with_key(queue, key, *former):
    """Open the queue's database as a program with other keys would."""
    return Queue(queue.engine.url.render_as_string(hide_password=False), queue.clock, audit_key=key, former_audit_keys=former)


def record(queue, *events):
    with queue.database.changing() as connection:
        queue.database.audit.record(connection, *(events or [Event("ann", "tested", "x", "")]))


def change_key(queue, **options):
    with queue.database.changing() as connection:
        return queue.database.audit.change_key(connection, "root", **options)


def accept(queue, anchors, why="backup of Monday"):
    with queue.database.changing() as connection:
        return queue.database.audit.accept_loss(connection, anchors, "root", why)


def test_a_program_with_another_key_changes_nothing(queue):
    before = verify(queue, None)
    stranger = with_key(queue, OTHER_KEY)
    with pytest.raises(AuditKeyError, match="another key than WHYFLAG_AUDIT_KEY"):
        record(stranger)
    with pytest.raises(AuditKeyError, match="none of the keys in WHYFLAG_AUDIT_FORMER_KEYS"):
        change_key(stranger)
    assert verify(queue, None) == before
    stranger.close()


def test_the_key_is_changed_and_changed_again(queue, clock):
    before, third = anchor_of(queue, clock), b"a third key of the trail"
    second = with_key(queue, OTHER_KEY, KEY)
    assert "change-key" in verify(second, [before]).contradictions[0]
    assert change_key(second) == 8
    record(second)
    with pytest.raises(AuditKeyError):
        record(queue)
    last = with_key(queue, third, KEY, OTHER_KEY)
    assert change_key(last) == 10
    record(last)
    found = verify(last, [before, anchor_of(last, clock)])
    assert (found.intact, found.key_changes) == (True, [8, 10])
    with pytest.raises(AuditKeyError, match="needs no change"):
        change_key(last)
    forgetful = with_key(queue, third, OTHER_KEY)
    assert verify(forgetful, None).first_broken == 1, "the first key is missing"
    with queue.engine.begin() as connection:
        connection.execute(update(audit).where(audit.c.number == 3).values(actor="eve"))
    assert verify(last, None).first_broken == 3
    second.close(), last.close(), forgetful.close()


def test_a_trail_without_a_key_gets_one(database_url, clock):
    without = Queue(database_url, clock)
    record(without)
    keyed = with_key(without, KEY)
    with pytest.raises(AuditKeyError, match="--from-no-key"):
        change_key(keyed)
    change_key(keyed, from_no_key=True)
    record(keyed)
    assert verify(keyed, None).intact
    without.close(), keyed.close()


def test_a_former_key_that_leaked_cannot_change_the_past_or_hand_over_again(queue):
    changed = with_key(queue, OTHER_KEY, KEY)
    change_key(changed)
    with queue.engine.begin() as connection:
        connection.execute(update(audit).where(audit.c.number == 2).values(actor="eve"))
    resigned(queue, KEY)
    assert not verify(changed, None).intact
    with queue.engine.begin() as connection:  # to a key of the thief's own
        connection.execute(delete(audit).where(audit.c.number > 7))
    thief = with_key(queue, b"a key that only eve has", KEY)
    change_key(thief)
    assert verify(thief, None).first_broken is None
    assert verify(changed, None).first_broken == 8
    changed.close(), thief.close()


def test_after_a_damaged_last_entry_the_key_is_changed_only_on_purpose(queue):
    with queue.engine.begin() as connection:
        connection.execute(update(audit).where(audit.c.number == 7).values(actor="eve"))
    with pytest.raises(AuditKeyError, match="was changed"):
        record(queue)
    other = with_key(queue, OTHER_KEY, KEY)
    with pytest.raises(AuditKeyError, match="--despite-broken"):
        change_key(other)
    change_key(other, despite_broken=True)
    record(other)
    assert verify(other, None).first_broken == 7
    other.close()


# -- a restored backup ---------------------------------------------------------------------------------------------------------


def older(queue, entries):
    """Put back what a backup has that was made after some entries and before any verdict."""
    with queue.engine.begin() as connection:
        connection.execute(delete(audit).where(audit.c.number > entries))
        connection.execute(delete(verdicts))
        connection.execute(update(alerts).values(state="open", finding=None))


def test_a_loss_that_somebody_accepted_is_named_and_new_entries_are_still_protected(queue, clock):
    lost = anchor_of(queue, clock)
    older(queue, 0)
    with pytest.raises(InputError, match="nothing is lost"):
        accept(queue, [])
    record(queue)
    assert verify(queue, [lost]).first_broken == 2
    loss, acceptance = accept(queue, [lost])
    assert (loss.first, loss.newest) == (2, 7)
    assert not verify(queue, [lost]).intact, "the loss counts only once it is in Kafka"
    found = verify(queue, [lost, acceptance])
    assert found.intact, found
    assert [(one.loss.why, one.entry.actor, one.entry.number) for one in found.losses] == [("backup of Monday", "root", 2)]
    for _ in range(6):  # the trail grows beyond the lost part
        record(queue)
    newest = anchor_of(queue, clock)
    assert verify(queue, [lost, acceptance, newest]).intact
    with queue.engine.begin() as connection:
        connection.execute(delete(audit).where(audit.c.number > 6))
    assert verify(queue, [lost, acceptance, newest]).first_broken == 7, "anchors from after the acceptance count"


def test_an_anchor_of_the_lost_part_does_not_cover_new_entries(queue, clock):
    lost = anchor_of(queue, clock)
    older(queue, 0)
    _, acceptance = accept(queue, [lost])
    for _ in range(3):
        record(queue)
    clock.pass_by(400)
    assert "entry 2 " in verify(queue, [lost, acceptance]).contradictions[0]


def test_an_anchor_of_the_future_is_not_explained_by_a_loss(queue, clock):
    lost = structs.replace(anchor_of(queue, clock), at=clock.now_ms() + 60_000)
    older(queue, 0)
    with pytest.raises(InputError, match="dated after now"):
        accept(queue, [lost])
    assert verify(queue, None).entries == 0, "nothing was recorded"


@pytest.mark.parametrize("key", [b"", KEY], ids=["no key", "the key"])
def test_whoever_has_the_database_and_a_key_cannot_forge_a_loss_without_kafka(queue, clock, key):
    """The trail is changed, signed again, and given a loss that would excuse every anchor."""
    anchors = [anchor_of(queue, clock)]
    with queue.engine.begin() as connection:
        connection.execute(update(audit).where(audit.c.number == 2).values(actor="eve"))
    resigned(queue, key)
    forger = with_key(queue, key)
    clock.pass_by(10_000_000)
    detail = json.dumps({"first": 1, "newest": 99, "why": "x"})
    record(forger, Event("eve", "loss accepted", "audit trail", detail))
    assert not verify(queue, anchors).intact
    if not key:
        with pytest.raises(AuditKeyError):
            change_key(queue)
    with queue.reading() as connection:
        assert queue.database.audit.check(connection, anchors).first_broken == 7
    forger.close()


def test_a_broken_trail_is_no_loss(queue, clock):
    anchor = anchor_of(queue, clock)
    with queue.engine.begin() as connection:
        connection.execute(update(audit).where(audit.c.number == 2).values(actor="eve"))
    with pytest.raises(InputError, match="broken at entry 2"):
        accept(queue, [anchor])


def test_many_writers_at_once_keep_the_chain(queue):
    def write(number):
        with queue.database.changing() as connection:
            queue.database.audit.record(connection, Event(f"writer{number}", "tested", "x", ""))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify(queue, None).first_broken is None


# -- the tables against the trail ----------------------------------------------------------------------------------------------


def forged(message, **changes):
    return json.dumps(json.loads(message) | changes)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda connection, alert: connection.execute(update(alerts).where(alerts.c.alert_id == alert).values(finding="legitimate")),
        lambda connection, alert: connection.execute(update(alerts).where(alerts.c.alert_id == alert).values(state="open")),
        lambda connection, alert: connection.execute(delete(verdicts).where(verdicts.c.alert_id == alert)),
        lambda connection, alert: connection.execute(update(verdicts).where(verdicts.c.alert_id == alert).values(state="undone")),
        lambda connection, alert: connection.execute(update(verdicts).where(verdicts.c.alert_id == alert).values(state="waiting", message=text("replace(message, 'fraud', 'legitimate')"))),
        lambda connection, alert: connection.execute(delete(alerts).where(alerts.c.alert_id == alert)),
    ],
    ids=["finding", "state", "verdict deleted", "verdict undone", "verdict changed", "alert deleted"],
)  # fmt: skip
def test_a_change_of_the_tables_that_the_trail_does_not_know_is_found(queue, tamper):
    alert = closed(queue)[0]
    with queue.engine.begin() as connection:
        tamper(connection, alert)
    found = verify(queue, None)
    assert found.first_broken is None
    assert any(alert in contradiction for contradiction in found.contradictions), found


@pytest.mark.parametrize(
    ("tamper", "word"),
    [
        (lambda c: c.execute(insert(list_entries).values(list="allow", key="card", value="eve", expires_on="2099-01-01", proposal=1)), "eve"),
        (lambda c: c.execute(delete(list_entries)), "card-7"),
        (lambda c: c.execute(insert(next_step_tables).values(content="x", proposal=1)), "next steps"),
        (lambda c: c.execute(update(proposals).where(proposals.c.state == "pending").values(content=text("replace(content, 'block', 'allow')"))), "proposal"),
        (lambda c: c.execute(update(proposals).where(proposals.c.state == "pending").values(state="approved")), "proposal"),
        (lambda c: c.execute(update(users).where(users.c.name == "carol").values(role="admin")), "carol"),
        (lambda c: c.execute(insert(users).values(name="eve", role="admin", created_at=1, disabled=False)), "eve"),
        (lambda c: c.execute(update(verdicts).where(verdicts.c.number == select(func.max(verdicts.c.number)).scalar_subquery()).values(message=select(verdicts.c.message).limit(1).scalar_subquery())), "verdicts"),
    ],
)  # fmt: skip
def test_changes_of_lists_proposals_users_and_verdicts_that_nobody_recorded_are_found(queue, tamper, word):
    made, accounts = (
        Proposals(queue.database, queue.clock),
        Accounts(queue.database, queue.clock, Throttle(queue.database, queue.clock)),
    )
    change = AddEntry(ListName.BLOCK, ListKey.CARD, "card-7", "2025-12-31")
    made.approve(LEA, made.propose(ANN, change, "stolen"))
    made.propose(ANN, msgspec.structs.replace(change, value="card-8"), "stolen")
    accounts.add(ADA, "carol", Role.ANALYST)
    accounts.change(ADA, "carol", Role.LEAD, disabled=False)
    assert verify(queue, None).intact
    with queue.engine.begin() as connection:
        tamper(connection)
    found = verify(queue, None)
    assert any(word in contradiction for contradiction in found.contradictions), found


def test_a_proposal_that_was_changed_in_the_database_is_not_approved(queue):
    made = Proposals(queue.database, queue.clock)
    number = made.propose(ANN, AddEntry(ListName.BLOCK, ListKey.CARD, "card-7", "2025-12-31"), "stolen")
    with queue.engine.begin() as connection:
        connection.execute(update(proposals).values(content=text("replace(content, 'block', 'allow')")))
    with pytest.raises(ConflictError, match="not what was proposed"):
        made.approve(LEA, number)


def test_a_changed_case_is_found_and_a_correction_by_hand_is_not(queue, clock, bundle):
    alert = closed(queue)[0]
    clock.pass_by(31)
    outbox, casebook = Outbox(queue.database, clock), Cases(queue)
    taken = outbox.take()
    clock.pass_by(2 * 3600)
    for one in taken:
        casebook.put(bundle.version, [case_from(queue.get(one.verdict.alert_id).alert, one.verdict, bundle)])
        outbox.acknowledged([one.number])
    clock.pass_by(2 * 3600)
    assert verify(queue, None).intact
    with queue.engine.begin() as connection:
        connection.execute(update(cases).where(cases.c.case_id == alert).values(outcome="legitimate"))
    assert any(alert in contradiction for contradiction in verify(queue, None).contradictions)
    casebook.correct(alert, Finding.LEGITIMATE, "ada", "the customer remembered")
    assert verify(queue, None).intact


def test_bulk_verdicts_their_undoing_and_a_purge_leave_an_intact_trail(queue, clock):
    bulks = Bulks(queue, Listing(queue))
    number = bulks.preview(AlertFilter(), LEA).number
    bulks.give(number, Opinion(Finding.LEGITIMATE), LEA)
    bulks.undo(number, LEA)
    clock.pass_by(31)
    outbox = Outbox(queue.database, clock)
    outbox.acknowledged([one.number for one in outbox.take()])
    clock.pass_by(3 * 86_400)
    with pytest.raises(AccessError):
        purge(queue, LEA, 2, dry_run=False)
    assert purge(queue, ADA, 2, dry_run=True).alerts == 5
    gone = closed(queue)
    assert purge(queue, ADA, 2, dry_run=False).alerts == 5
    assert purge(queue, ADA, 2, dry_run=False).alerts == 0
    assert all(queue.get(alert) is None for alert in gone)
    found = verify(queue, None)
    assert found.intact, found


def test_a_purge_keeps_alerts_whose_verdict_has_not_left(queue, clock):
    clock.pass_by(3 * 86_400)
    assert purge(queue, ADA, 2, dry_run=False).alerts == 0


def test_a_decision_is_replayed_with_the_same_score_and_who_did_what(queue, bundle_dir):
    alert = closed(queue)[0]
    with queue.reading() as connection:
        done = entries(connection, alert)[::-1]
    words = decision_text(queue.get(alert), done, bundle_dir)
    queued = queue.get(alert)
    assert f"{queued.alert.decision.probability:.6f}, the same" in words
    for part in (queued.alert.transaction.card_id, queued.alert.decision.bundle, "features", "rules that held", "ann: verdict"):
        assert part in words
    assert words.count("\n  F") >= sum(fact.feature != "" for fact in queued.explanation.facts) - 1
