"""
Alert queue in SQLite or PostgreSQL, with the same SQLAlchemy code for both.

Every write from the stream is idempotent by ID, because the stream may deliver a message twice. Changes by people are in
``analyst.assignments``, ``analyst.verdicts`` and ``analyst.bulk``.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.exc import DataError, IntegrityError

from analyst.audit import AuditTrail, Event
from analyst.database import Database, open_database
from analyst.earlier import stored_explanation
from analyst.policy import QueuePolicy, Severity
from analyst.tables import alert_documents, alert_rules, alert_search, alerts, investigations
from analyst.webhooks import announce
from core.clock import Clock
from core.errors import ConflictError, InvalidEvent, NotFoundError, Refusal, ThrottledError
from core.messages import (
    Alert,
    Explanation,
    Fact,
    Finding,
    Side,
    decode_alert,
    encode,
)  # fmt: skip
from core.money import minor_per_major

UNDER_WAY, ENDED = "under way", "ended"
_INVESTIGATION_MS = 600_000  # an investigation that has not ended after this time counts as abandoned
_DAY_MS = 86_400_000


class AlertState(StrEnum):
    """State of an alert in the queue."""

    OPEN = "open"
    ESCALATED = "escalated"  # an analyst has passed it to the leads
    CLOSED = "closed"


class QueuedAlert(Struct, frozen=True):
    """
    A queued alert with its explanation, if there is one yet, and its finding, if an analyst has given a verdict.

    ``loss`` is the expected loss in minor units of ``loss_currency``. ``version`` counts the changes by people. Times are in
    epoch ms.
    """

    alert: Alert
    explanation: Explanation | None
    finding: Finding | None
    state: AlertState
    version: int
    raised_at: int
    deadline: int
    severity: Severity
    loss: int
    loss_currency: str
    claimed_by: str | None
    claimed_until: int | None
    snoozed_until: int | None


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
        raise InvalidEvent(
            f"the database rejected a value: {type(getattr(error, 'orig', error)).__name__}", Refusal.DATABASE
        ) from error


class Queue:
    """Alert queue stored in one SQL database."""

    def __init__(
        self, url: str, clock: Clock, policy: QueuePolicy = QueuePolicy(), audit_key: bytes = b"",  # noqa: B008 -- immutable
        former_audit_keys: Sequence[bytes] = (),
    ) -> None:  # fmt: skip
        """
        Open and migrate the database at a SQLAlchemy URL.

        Raises:
            DatabaseError: if the URL is wrong or the database cannot be opened.
        """
        self.clock, self.policy = clock, policy
        self.database = Database(open_database(url, "WHYFLAG_DATABASE"), AuditTrail(clock, audit_key, former_audit_keys))

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine of the queue's database."""
        return self.database.engine

    def close(self) -> None:
        """Release the database's connections."""
        self.engine.dispose()

    def put(self, alert: Alert, explanation: Explanation) -> None:
        """Add an alert with its explanation. If the alert is already queued, replace its explanation and keep its state."""
        words, derived = encode(explanation).decode(), _derived(explanation)
        now = self.clock.now_ms()
        with self.engine.begin() as connection:
            here = alert_documents.c.alert_id == alert.alert_id
            if connection.execute(update(alert_documents).where(here).values(explanation=words)).rowcount:
                connection.execute(
                    update(alerts).where(alerts.c.alert_id == alert.alert_id).values(derived | {"changed_at": now})
                )
                return
            document = {"alert_id": alert.alert_id, "message": encode(alert).decode(), "explanation": words}
            row = self._row(alert, now)
            rules = [{"alert_id": alert.alert_id, "rule": rule[:64]} for rule in dict.fromkeys(alert.decision.rule_hits)]
            try:
                with connection.begin_nested():
                    connection.execute(insert(alert_documents).values(document))
                    connection.execute(insert(alerts).values(row | derived))
                    connection.execute(insert(alert_search), search_terms(row))
                    if rules:
                        connection.execute(insert(alert_rules), rules)
                    announce(connection, now, "alert", {name: row[name] for name in _ANNOUNCED})
            except IntegrityError:  # another explainer has just inserted the same alert and explanation
                return

    def _row(self, alert: Alert, now: int) -> dict[str, Any]:
        decision, (loss, currency) = alert.decision, common_loss(alert)
        severity = self.policy.severity(loss, currency)
        if currency != alert.currency:  # without a price in the common currency, nobody knows whether it is critical
            severity = max(severity, Severity.HIGH)
        return {
            "alert_id": alert.alert_id,
            "transaction_id": decision.transaction_id,
            "card_id": decision.card_id,
            "merchant_id": decision.merchant_id,
            "device_id": alert.transaction.device_id,
            "merchant_name": alert.transaction.merchant_name,
            "event_time": decision.event_time,
            "amount": decision.amount,
            "currency": decision.currency,
            "outcome": decision.outcome.value,
            "probability": decision.probability,
            "expected_loss": decision.expected_loss,
            "loss": loss,
            "loss_currency": currency,
            "bundle": decision.bundle,
            "raised_at": now,
            "severity": int(severity),
            "deadline": self.policy.deadline(now, severity),
            "state": AlertState.OPEN.value,
            "version": 0,
            "changed_at": now,
        }

    def ping(self) -> None:
        """Check that the database answers, and raise ``SQLAlchemyError`` if it does not."""
        with self.reading() as connection:
            connection.execute(select(1))

    def get(self, alert_id: str) -> QueuedAlert | None:
        """Return the alert with this ID, or None."""
        with self.reading() as connection:
            row = connection.execute(_WHOLE.where(alerts.c.alert_id == alert_id)).mappings().first()
            return _queued(row) if row else None

    def required(self, alert_id: str) -> QueuedAlert:
        """
        Return the alert with this ID.

        Raises:
            NotFoundError: if there is none.
        """
        queued = self.get(alert_id)
        if queued is None:
            raise NotFoundError(f"no alert {alert_id} in the queue")
        return queued

    def open_alerts(self, limit: int) -> list[QueuedAlert]:
        """Return open alerts with their messages: highest expected loss first."""
        wanted = _WHOLE.where(alerts.c.state == AlertState.OPEN.value)
        with self.reading() as connection:
            rows = connection.execute(wanted.order_by(alerts.c.loss.desc(), alerts.c.alert_id.desc()).limit(limit)).mappings()
            return [_queued(row) for row in rows]

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
        wanted = _WHOLE.where(condition).order_by(alerts.c.event_time.desc()).limit(limit)
        with self.reading() as connection:
            return [_queued(row) for row in connection.execute(wanted).mappings()]

    # -- investigations and questions -------------------------------------------------------------------------------------------

    def begin_investigation(
        self, alert_id: str, actor: str, question: str | None = None, daily: int | None = None, most: int | None = None
    ) -> int:
        """
        Record that somebody started an investigation of an alert or asked a question about it; return its number.

        ``daily`` limits how many one person may start in 24 hours, ``most`` how many may be under way or wait at once.

        Raises:
            NotFoundError: if there is no such alert.
            ConflictError: if an investigation of it is under way.
            ThrottledError: if the person has started ``daily`` of them in the last 24 hours, or ``most`` are under way.
        """
        now, table = self.clock.now_ms(), investigations
        with self.database.changing() as connection:
            if connection.execute(select(alerts.c.alert_id).where(alerts.c.alert_id == alert_id)).first() is None:
                raise NotFoundError(f"no alert {alert_id} in the queue")
            under_way = select(table.c.number).where(
                table.c.alert_id == alert_id, table.c.state == UNDER_WAY, table.c.asked_at > now - _INVESTIGATION_MS
            )
            if connection.execute(under_way).first() is not None:
                raise ConflictError(f"an investigation of {alert_id} is already under way: wait until it has ended")
            waiting = select(func.count()).where(table.c.state == UNDER_WAY, table.c.asked_at > now - _INVESTIGATION_MS)
            if most is not None and connection.execute(waiting).scalar_one() >= most:
                raise ThrottledError("the assistant is busy: try again in a minute")
            recent = select(func.count()).where(table.c.asked_by == actor, table.c.asked_at > now - _DAY_MS)
            if daily is not None and connection.execute(recent).scalar_one() >= daily:
                raise ThrottledError(f"you have asked the assistant {daily} times in 24 hours: try again later")
            row = {"alert_id": alert_id, "asked_by": actor, "asked_at": now, "state": UNDER_WAY, "question": question}
            number = connection.execute(insert(table).values(row)).inserted_primary_key
            self.database.audit.record(connection, Event(actor, "investigation", alert_id, question or "asked for"))
        return int(number[0]) if number else 0

    def end_investigation(self, number: int, message: str | None) -> None:
        """Store the result of an investigation as JSON; None if the investigation failed."""
        with self.engine.begin() as connection:
            connection.execute(
                update(investigations).where(investigations.c.number == number).values(state=ENDED, message=message)
            )

    def investigations_of(self, alert_id: str) -> list[Any]:
        """
        Return the investigations of an alert, newest first, as rows with ``asked_by``, ``asked_at``, ``state``, ``question`` and
        ``message``.

        An investigation that never ended because its process died is left out after ten minutes.
        """
        alive = self.clock.now_ms() - _INVESTIGATION_MS
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

    def reading(self) -> AbstractContextManager[Connection]:
        """Return a connection for read-only transactions."""
        return self.database.reading()


_ANNOUNCED = (
    "alert_id",
    "transaction_id",
    "card_id",
    "merchant_id",
    "event_time",
    "outcome",
    "loss",
    "loss_currency",
    "severity",
)
_WHOLE = select(alerts, alert_documents.c.message, alert_documents.c.explanation).join(
    alert_documents, alert_documents.c.alert_id == alerts.c.alert_id
)


def common_loss(alert: Alert) -> tuple[int, str]:
    """
    Return an alert's expected loss in minor units of the feature spec's currency, so that losses can be compared.

    If the spec has no price for the amount, return the loss in the transaction's currency.
    """
    price, currency = alert.features.get("amount"), alert.currency
    if price is None or not currency:
        return alert.decision.expected_loss, alert.decision.currency
    probability = 1.0 if alert.decision.probability is None else alert.decision.probability
    return round(price * minor_per_major(currency) * probability), currency


def search_terms(row: dict[str, Any]) -> list[dict[str, str]]:
    """Return the rows of ``alert_search`` for an alert's row."""
    ids = [row[name] for name in ("alert_id", "transaction_id", "card_id", "merchant_id")]
    terms = dict.fromkeys([*ids, (row["merchant_name"] or "").lower()[:256]])
    return [{"alert_id": row["alert_id"], "term": term} for term in terms]


def _derived(explanation: Explanation) -> dict[str, Any]:
    """Return the columns that come from an explanation: what the queue's pages show and filter by."""
    top: Fact | None = next((fact for fact in explanation.facts if fact.feature and fact.side is Side.FRAUD), None)
    return {
        "theme": next((reason.theme for reason in explanation.themes if reason.contribution > 0), None),
        "typology": explanation.typology.name if explanation.typology else None,
        "top_fact": msgspec.json.encode(top).decode() if top else None,
    }


def _queued(row: Any) -> QueuedAlert:
    return QueuedAlert(
        alert=decode_alert(row["message"].encode()),
        explanation=stored_explanation(row["explanation"].encode()) if row["explanation"] else None,
        finding=Finding(row["finding"]) if row["finding"] else None,
        state=AlertState(row["state"]),
        version=row["version"],
        raised_at=row["raised_at"],
        deadline=row["deadline"],
        severity=Severity(row["severity"]),
        loss=row["loss"],
        loss_currency=row["loss_currency"],
        claimed_by=row["claimed_by"],
        claimed_until=row["claimed_until"],
        snoozed_until=row["snoozed_until"],
    )
