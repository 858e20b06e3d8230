"""
Verdicts: give, undo, and hand them to Kafka.

One database transaction writes a verdict, changes the alert, appends the audit entry and announces the verdict to webhooks. The
verdict waits for a grace period, in which its author can undo it, and then leaves for Kafka through ``Outbox``. Each alert
has a version; a verdict given on an outdated version is refused.
"""

from enum import StrEnum
from typing import Any, NamedTuple

from msgspec import Struct
from sqlalchemy import Connection, and_, func, insert, or_, select, update

from analyst.access.roles import Actor, Permission
from analyst.audit import Event
from analyst.database import Database
from analyst.queue import AlertState, Queue
from analyst.tables import alerts, verdicts
from analyst.webhooks import announce
from core.clock import Clock
from core.errors import AccessError, ConflictError, InputError, NotFoundError, VerdictConflict
from core.messages import TYPOLOGIES, Finding, Opinion, Verdict, decode_verdict, encode
from core.privacy.masking import TEXT_LIMITS, WITHOUT_KEY


class VerdictState(StrEnum):
    """Where a verdict is on its way to Kafka."""

    WAITING = "waiting"  # can be undone until its grace period is over
    LEAVING = "leaving"  # is being sent
    PUBLISHED = "published"  # Kafka has acknowledged the verdict and its label
    UNDONE = "undone"


class GivenVerdict(Struct, frozen=True):
    """A verdict with its state; ``publish_after`` (epoch ms) ends its grace period."""

    number: int
    verdict: Verdict
    state: VerdictState
    publish_after: int


class Backlog(NamedTuple):
    """Verdicts that Kafka has not acknowledged although their grace period is over: how many, and how late the first is (s)."""

    verdicts: int
    seconds: float


class Verdicts:
    """The verdicts in the queue's database."""

    def __init__(self, queue: Queue) -> None:
        self._database, self._clock, self._policy = queue.database, queue.clock, queue.policy

    def give(self, alert_id: str, opinion: Opinion, actor: Actor, version: int) -> GivenVerdict:
        """
        Give a verdict on the version of an alert that the actor has seen.

        Raises:
            AccessError: if the actor may not judge this alert.
            InputError: if the opinion is not valid.
            NotFoundError: if there is no such alert.
            VerdictConflict: if the alert has changed since that version.
            ConflictError: if somebody else has claimed the alert.
        """
        actor.require(Permission.WORK)
        opinion = checked(opinion)
        with self._database.changing() as connection:
            now = self._clock.now_ms()
            row = _alert(connection, alert_id)
            if row.version != version:
                last = verdicts_of(connection, alert_id)
                raise VerdictConflict(alert_id, row.version, last[-1] if last else None, opinion)
            if any(one.finding is Finding.ESCALATE for one in verdicts_of(connection, alert_id)):
                actor.require(Permission.LEAD)
            if row.claimed_by not in (None, actor.name) and (row.claimed_until or 0) > now and not actor.may(Permission.LEAD):
                raise ConflictError(f"{row.claimed_by} works on alert {alert_id}: choose another alert")
            (number,) = store_verdicts(connection, self._database, [row], opinion, actor, now, now + self._policy.grace_ms, None)
            given = verdict_on(row, opinion, actor, now)
        return GivenVerdict(number, given, VerdictState.WAITING, now + self._policy.grace_ms)

    def undo(self, alert_id: str, number: int, actor: Actor) -> None:
        """
        Undo a verdict, the last one on an alert. Its author may do that, and leads.

        Raises:
            AccessError: if the verdict is somebody else's.
            NotFoundError: if there is no such alert, or no verdict on it.
            ConflictError: if another verdict is the last one now, or the grace period is over.
        """
        actor.require(Permission.WORK)
        with self._database.changing() as connection:
            _alert(connection, alert_id)
            last = connection.execute(_standing(alert_id).order_by(verdicts.c.number.desc()).limit(1)).first()
            if last is None:
                raise NotFoundError(f"there is no verdict on alert {alert_id}")
            if last.number != number:
                raise ConflictError(f"there is another verdict on alert {alert_id} now: look at it first")
            if last.given_by != actor.name and not actor.may(Permission.LEAD):
                raise AccessError(f"the verdict is {last.given_by}'s: only {last.given_by} or a lead may undo it")
            now = self._clock.now_ms()
            if last.state != VerdictState.WAITING or last.publish_after <= now:
                raise ConflictError("the verdict leaves for Kafka and cannot be undone: give a new verdict instead")
            restore(connection, self._database, [last], actor, now)

    def of(self, alert_id: str) -> list[GivenVerdict]:
        """Return the verdicts on an alert, oldest first, including undone ones."""
        wanted = select(verdicts).where(verdicts.c.alert_id == alert_id).order_by(verdicts.c.number)
        with self._database.reading() as connection:
            return [_given(row) for row in connection.execute(wanted)]


def checked(opinion: Opinion) -> Opinion:
    """
    Return an opinion as it is stored, with personal data in its note masked.

    Raises:
        InputError: if the typology is unknown or does not fit the finding, or the note is too long.
    """
    if opinion.typology and opinion.typology not in TYPOLOGIES:
        raise InputError(f"unknown typology {opinion.typology[:64]!r}: choose one of {', '.join(TYPOLOGIES)}")
    if opinion.typology and opinion.finding is Finding.LEGITIMATE:
        raise InputError("a legitimate payment has no typology of fraud: leave the typology empty")
    if opinion.note and len(opinion.note) > TEXT_LIMITS["note"]:
        raise InputError(f"the note is too long: write at most {TEXT_LIMITS['note']} characters")
    note = WITHOUT_KEY.text(opinion.note.strip()) if opinion.note else None
    return Opinion(opinion.finding, opinion.typology or None, opinion.closing_reason, note or None)


class Outbox:
    """Verdicts on their way to Kafka. Only one console at a time may send them (see ``analyst.leases``)."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def take(self, limit: int = 100) -> list[GivenVerdict]:
        """Return the verdicts to send now, oldest first. From now on, they cannot be undone."""
        with self._database.changing() as connection:
            now = self._clock.now_ms()
            ready = and_(verdicts.c.state == VerdictState.WAITING.value, verdicts.c.publish_after <= now)
            wanted = or_(ready, verdicts.c.state == VerdictState.LEAVING.value)
            rows = connection.execute(select(verdicts).where(wanted).order_by(verdicts.c.number).limit(limit)).all()
            fresh = [row.number for row in rows if row.state == VerdictState.WAITING]
            if fresh:
                connection.execute(update(verdicts).where(verdicts.c.number.in_(fresh)).values(state=VerdictState.LEAVING.value))
        return [_given(row) for row in rows]

    def acknowledged(self, numbers: list[int]) -> None:
        """Record that Kafka has acknowledged verdicts and their labels."""
        with self._database.engine.begin() as connection:
            values = {"state": VerdictState.PUBLISHED.value, "published_at": self._clock.now_ms()}
            connection.execute(update(verdicts).where(verdicts.c.number.in_(numbers)).values(values))

    def backlog(self) -> Backlog:
        """Return how many verdicts wait although their grace period is over, and for how long."""
        now = self._clock.now_ms()
        states = (VerdictState.WAITING.value, VerdictState.LEAVING.value)
        wanted = select(func.count(), func.min(verdicts.c.publish_after)).where(
            verdicts.c.state.in_(states), verdicts.c.publish_after <= now
        )
        with self._database.reading() as connection:
            count, oldest = connection.execute(wanted).one()
        return Backlog(count, 0.0 if oldest is None else (now - oldest) / 1000)


def verdicts_of(connection: Connection, alert_id: str) -> list[Verdict]:
    """Return the verdicts on an alert that were not undone, oldest first."""
    rows = connection.execute(_standing(alert_id).order_by(verdicts.c.number))
    return [decode_verdict(row.message.encode()) for row in rows]


def verdict_on(row: Any, opinion: Opinion, actor: Actor, now: int) -> Verdict:
    """Return the message for a verdict on an alert, given the alert's row."""
    return Verdict(
        alert_id=row.alert_id,
        transaction_id=row.transaction_id,
        card_id=row.card_id,
        merchant_id=row.merchant_id,
        event_time=row.event_time,
        verdict_time=now,
        finding=opinion.finding,
        analyst=actor.name,
        typology=opinion.typology,
        note=opinion.note,
        closing_reason=opinion.closing_reason,
    )


def store_verdicts(
    connection: Connection,
    database: Database,
    rows: list[Any],
    opinion: Opinion,
    actor: Actor,
    now: int,
    publish_after: int,
    bulk: int | None,
) -> list[int]:
    """Store the same opinion on several alerts, given their rows, and return the numbers of the verdicts."""
    given = [verdict_on(row, opinion, actor, now) for row in rows]
    numbers = []
    for verdict in given:
        values = {
            "alert_id": verdict.alert_id, "message": encode(verdict).decode(), "given_by": actor.name, "given_at": now,
            "publish_after": publish_after, "state": VerdictState.WAITING.value, "bulk": bulk,
        }  # fmt: skip
        key = connection.execute(insert(verdicts).values(values)).inserted_primary_key
        numbers.append(int(key[0]) if key else 0)
    ids = [row.alert_id for row in rows]
    # an earlier verdict on the same alert must leave first
    earlier = (
        verdicts.c.alert_id.in_(ids)
        & (verdicts.c.state == VerdictState.WAITING.value)
        & (verdicts.c.publish_after > publish_after)
    )
    connection.execute(update(verdicts).where(earlier).values(publish_after=publish_after))
    connection.execute(update(alerts).where(alerts.c.alert_id.in_(ids)).values(_after(opinion.finding, actor.name, now)))
    database.audit.record(
        connection, *(Event(actor.name, "verdict", verdict.alert_id, encode(verdict).decode()) for verdict in given)
    )
    announced = ("alert_id", "transaction_id", "finding", "typology", "closing_reason", "analyst", "verdict_time")
    announce(connection, now, "verdict", *({name: getattr(verdict, name) for name in announced} for verdict in given))
    return numbers


def restore(connection: Connection, database: Database, rows: list[Any], actor: Actor, now: int) -> None:
    """Undo verdicts, given their rows: the previous verdict on each alert counts again."""
    numbers = [row.number for row in rows]
    connection.execute(update(verdicts).where(verdicts.c.number.in_(numbers)).values(state=VerdictState.UNDONE.value))
    ids = [row.alert_id for row in rows]
    last = (
        select(func.max(verdicts.c.number))
        .where(verdicts.c.alert_id.in_(ids), verdicts.c.state != VerdictState.UNDONE.value)
        .group_by(verdicts.c.alert_id)
    )
    before = {row.alert_id: row for row in connection.execute(select(verdicts).where(verdicts.c.number.in_(last)))}
    for standing in before.values():
        earlier = decode_verdict(standing.message.encode())
        values = _after(earlier.finding, earlier.analyst, standing.given_at) | {"changed_at": now}
        connection.execute(update(alerts).where(alerts.c.alert_id == standing.alert_id).values(values))
    reopened = [alert_id for alert_id in ids if alert_id not in before]
    if reopened:
        values = {
            "finding": None, "state": AlertState.OPEN.value, "closed_at": None, "closed_by": None, "version": alerts.c.version + 1,
            "changed_at": now,
        }  # fmt: skip
        connection.execute(update(alerts).where(alerts.c.alert_id.in_(reopened)).values(values))
    database.audit.record(
        connection, *(Event(actor.name, "verdict undone", row.alert_id, f"verdict {row.number}") for row in rows)
    )


def _after(finding: Finding, name: str, now: int) -> dict[str, Any]:
    """Return the columns of an alert after a verdict. Nobody holds a claim on it any more."""
    closed = finding is not Finding.ESCALATE
    return {
        "finding": finding.value,
        "state": (AlertState.CLOSED if closed else AlertState.ESCALATED).value,
        "closed_at": now if closed else None,
        "closed_by": name if closed else None,
        "version": alerts.c.version + 1,
        "claimed_by": None,
        "claimed_until": None,
        "snoozed_until": None,
        "changed_at": now,
    }


def _alert(connection: Connection, alert_id: str) -> Any:
    row = connection.execute(select(alerts).where(alerts.c.alert_id == alert_id)).first()
    if row is None:
        raise NotFoundError(f"no alert {alert_id} in the queue")
    return row


def _standing(alert_id: str) -> Any:
    return select(verdicts).where(verdicts.c.alert_id == alert_id, verdicts.c.state != VerdictState.UNDONE.value)


def _given(row: Any) -> GivenVerdict:
    return GivenVerdict(row.number, decode_verdict(row.message.encode()), VerdictState(row.state), row.publish_after)
