"""
Alert queue in SQLite or PostgreSQL, with the same SQLAlchemy code for both.

Every write from the stream is idempotent by ID, because the stream may deliver a message twice. One database transaction writes a
verdict, marks it as unpublished, sets the alert's finding and appends the audit entry.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from msgspec import Struct
from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.exc import DataError, IntegrityError

from analyst.audit import record
from analyst.database import lock, open_database
from analyst.earlier import stored_explanation
from analyst.tables import alerts, investigations, verdicts
from core.clock import Clock
from core.errors import InvalidEvent, QueueError
from core.messages import (
    Alert,
    Explanation,
    Finding,
    Verdict,
    decode_alert,
    decode_verdict,
    encode,
)  # fmt: skip

UNDER_WAY, ENDED = "under way", "ended"
_INVESTIGATION_MS = 600_000  # an investigation that has not ended after this time counts as abandoned


class QueuedAlert(Struct, frozen=True):
    """A queued alert with its explanation, if there is one yet, and its finding, if an analyst has given a verdict."""

    alert: Alert
    explanation: Explanation | None
    finding: Finding | None
    raised_at: int


@contextmanager
def refusals() -> Iterator[None]:
    """
    Raise ``InvalidEvent`` if the database rejects a value, since a retry would fail too. Outages and other errors propagate.

    Raises:
        InvalidEvent: if the database rejects a value.
    """
    try:
        yield
    except (DataError, IntegrityError, OverflowError, UnicodeEncodeError) as error:
        raise InvalidEvent(f"the database rejected a value: {type(getattr(error, 'orig', error)).__name__}") from error


class UnpublishedVerdict(NamedTuple):
    """A verdict that Kafka has not acknowledged yet, with its number in the database."""

    number: int
    verdict: Verdict


class Queue:
    """Alert queue stored in one SQL database."""

    def __init__(self, url: str, clock: Clock) -> None:
        """
        Open and migrate the database at a SQLAlchemy URL.

        Raises:
            DatabaseError: if the URL is wrong or the database cannot be opened.
        """
        self._clock = clock
        self._engine = open_database(url, "WHYFLAG_DATABASE")

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine of the queue's database."""
        return self._engine

    def close(self) -> None:
        """Release the database's connections."""
        self._engine.dispose()

    def put(self, alert: Alert, explanation: Explanation) -> None:
        """Add an alert with its explanation. If the alert is already queued, replace its explanation and keep its finding."""
        decision = alert.decision
        words = encode(explanation).decode()
        with self._engine.begin() as connection:
            changed = connection.execute(
                update(alerts).where(alerts.c.alert_id == alert.alert_id).values(explanation=words)
            ).rowcount
            if changed:
                return
            row = {
                "alert_id": alert.alert_id,
                "transaction_id": decision.transaction_id,
                "card_id": decision.card_id,
                "merchant_id": decision.merchant_id,
                "device_id": alert.transaction.device_id,
                "event_time": decision.event_time,
                "amount": decision.amount,
                "currency": decision.currency,
                "outcome": decision.outcome.value,
                "probability": decision.probability,
                "expected_loss": decision.expected_loss,
                "bundle": decision.bundle,
                "raised_at": self._clock.now_ms(),
                "message": encode(alert).decode(),
                "explanation": words,
            }
            try:
                with connection.begin_nested():
                    connection.execute(insert(alerts).values(row))
            except IntegrityError:  # another explainer has just inserted the same alert and explanation
                return

    def ping(self) -> None:
        """Check that the database answers, and raise ``SQLAlchemyError`` if it does not."""
        with self.reading() as connection:
            connection.execute(select(1))

    def get(self, alert_id: str) -> QueuedAlert | None:
        """Return the alert with this ID, or None."""
        with self.reading() as connection:
            row = connection.execute(select(alerts).where(alerts.c.alert_id == alert_id)).mappings().first()
        return _queued(row) if row else None

    def open_alerts(self, limit: int, offset: int = 0) -> list[QueuedAlert]:
        """Return alerts without a finding: highest expected loss first, older first among equal losses."""
        wanted = (
            select(alerts)
            .where(alerts.c.finding.is_(None))
            .order_by(alerts.c.expected_loss.desc(), alerts.c.event_time, alerts.c.alert_id)
            .limit(limit)
            .offset(offset)
        )
        with self.reading() as connection:
            return [_queued(row) for row in connection.execute(wanted).mappings()]

    def of_card(self, card_id: str, limit: int = 10) -> list[QueuedAlert]:
        """Return a card's alerts, newest first."""
        return self._newest(alerts.c.card_id == card_id, limit)

    def of_device(self, device_id: str, limit: int = 10) -> list[QueuedAlert]:
        """Return a device's alerts, newest first."""
        return self._newest(alerts.c.device_id == device_id, limit)

    def of_merchant(self, merchant_id: str, limit: int = 10) -> list[QueuedAlert]:
        """Return a merchant's alerts, newest first."""
        return self._newest(alerts.c.merchant_id == merchant_id, limit)

    def _newest(self, condition: Any, limit: int) -> list[QueuedAlert]:
        wanted = select(alerts).where(condition).order_by(alerts.c.event_time.desc()).limit(limit)
        with self.reading() as connection:
            return [_queued(row) for row in connection.execute(wanted).mappings()]

    def begin_investigation(self, alert_id: str, analyst: str) -> int:
        """
        Record that an analyst started an investigation of an alert; return the investigation's number.

        Raises:
            QueueError: if there is no such alert, or an investigation of it is under way.
        """
        now = self._clock.now_ms()
        with self._engine.begin() as connection:
            lock(connection)
            if connection.execute(select(alerts.c.alert_id).where(alerts.c.alert_id == alert_id)).first() is None:
                raise QueueError(f"no alert {alert_id} in the queue")
            under_way = select(investigations.c.number).where(
                investigations.c.alert_id == alert_id,
                investigations.c.state == UNDER_WAY,
                investigations.c.asked_at > now - _INVESTIGATION_MS,
            )
            if connection.execute(under_way).first() is not None:
                raise QueueError(f"an investigation of {alert_id} is already under way: wait until it has ended")
            row = {"alert_id": alert_id, "asked_by": analyst, "asked_at": now, "state": UNDER_WAY}
            number = connection.execute(insert(investigations).values(row)).inserted_primary_key
            record(connection, now, analyst, "investigation", alert_id, "asked for")
        return int(number[0]) if number else 0

    def end_investigation(self, number: int, message: str | None) -> None:
        """Store the result of an investigation as JSON; None if the investigation failed."""
        with self._engine.begin() as connection:
            connection.execute(
                update(investigations).where(investigations.c.number == number).values(state=ENDED, message=message)
            )

    def investigations_of(self, alert_id: str) -> list[Any]:
        """
        Return the investigations of an alert, newest first, as rows with ``asked_by``, ``asked_at``, ``state`` and ``message``.

        An investigation that never ended because its process died is left out after ten minutes.
        """
        alive = self._clock.now_ms() - _INVESTIGATION_MS
        wanted = select(investigations).where(
            investigations.c.alert_id == alert_id, (investigations.c.state == ENDED) | (investigations.c.asked_at > alive)
        )
        with self.reading() as connection:
            return list(connection.execute(wanted.order_by(investigations.c.number.desc())).all())

    def counts(self) -> dict[str, int]:
        """Return the number of alerts by finding; ``open`` counts those without one."""
        with self.reading() as connection:
            rows = connection.execute(select(alerts.c.finding, func.count()).group_by(alerts.c.finding)).all()
        return {finding or "open": count for finding, count in rows}

    def decide(self, alert_id: str, finding: Finding, analyst: str, typology: str | None, note: str | None) -> Verdict:
        """
        Record a verdict for publication. A later verdict on the same alert replaces the finding.

        The audit trail keeps all verdicts.

        Raises:
            QueueError: if there is no such alert.
        """
        now = self._clock.now_ms()
        with self._engine.begin() as connection:
            lock(connection)
            row = connection.execute(select(alerts.c.message).where(alerts.c.alert_id == alert_id)).first()
            if row is None:
                raise QueueError(f"no alert {alert_id} in the queue")
            transaction = decode_alert(row.message.encode()).transaction
            verdict = Verdict(
                alert_id=alert_id,
                transaction_id=transaction.transaction_id,
                card_id=transaction.card_id,
                merchant_id=transaction.merchant_id,
                event_time=transaction.event_time,
                verdict_time=now,
                finding=finding,
                analyst=analyst,
                typology=typology,
                note=note,
            )
            words = encode(verdict).decode()
            connection.execute(insert(verdicts).values(alert_id=alert_id, message=words, published=False))
            connection.execute(update(alerts).where(alerts.c.alert_id == alert_id).values(finding=finding.value))
            record(connection, now, analyst, "verdict", alert_id, words)
        return verdict

    def verdicts_of(self, alert_id: str) -> list[Verdict]:
        """Return the verdicts on an alert, oldest first."""
        wanted = select(verdicts.c.message).where(verdicts.c.alert_id == alert_id).order_by(verdicts.c.number)
        with self.reading() as connection:
            return [decode_verdict(row.message.encode()) for row in connection.execute(wanted)]

    def unpublished(self, limit: int = 100) -> list[UnpublishedVerdict]:
        """Return the verdicts that Kafka has not acknowledged yet, oldest first."""
        wanted = (
            select(verdicts.c.number, verdicts.c.message)
            .where(verdicts.c.published.is_(False))
            .order_by(verdicts.c.number)
            .limit(limit)
        )
        with self.reading() as connection:
            return [UnpublishedVerdict(row.number, decode_verdict(row.message.encode())) for row in connection.execute(wanted)]

    def mark_published(self, number: int) -> None:
        """Mark a verdict as published, once Kafka has acknowledged it and its label."""
        with self._engine.begin() as connection:
            connection.execute(update(verdicts).where(verdicts.c.number == number).values(published=True))

    def reading(self) -> Connection:
        """Return a connection for read-only transactions."""
        return self._engine.connect().execution_options(reading=True)


def _queued(row: Any) -> QueuedAlert:
    return QueuedAlert(
        alert=decode_alert(row["message"].encode()),
        explanation=stored_explanation(row["explanation"].encode()) if row["explanation"] else None,
        finding=Finding(row["finding"]) if row["finding"] else None,
        raised_at=row["raised_at"],
    )
