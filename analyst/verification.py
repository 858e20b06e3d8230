"""Check that the audit trail is intact, and that queue, verdicts and cases agree with it."""

import json
from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, select

from analyst.audit import entry_count
from analyst.queue import AlertState, Queue
from analyst.tables import alerts, audit, cases, verdicts
from analyst.verdicts import VerdictState
from core.messages import AuditAnchor, Finding, decode_verdict

_MOST_SHOWN = 20  # contradictions listed by name
_CASE_ACTIONS = ("case corrected", "case deleted")


class Verification(Struct, frozen=True):
    """The result: the number of entries and anchors, the first broken entry, and contradictions in words."""

    entries: int
    anchors: int
    first_broken: int | None
    contradictions: list[str]

    @property
    def intact(self) -> bool:
        """Whether nothing was found."""
        return self.first_broken is None and not self.contradictions


def verify(queue: Queue, anchors: Iterable[AuditAnchor]) -> Verification:
    """
    Check a queue's audit trail against the anchors in Kafka, and the queue's tables against the trail.

    The tables are compared only with an intact trail: a broken one proves nothing.
    """
    known = list(anchors)
    with queue.reading() as connection:
        broken = queue.database.audit.first_broken(connection, known)
        found = [*_verdicts(connection), *_alerts(connection), *_cases(connection)] if broken is None else []
        count = entry_count(connection)
    more = [f"and {len(found) - _MOST_SHOWN} more"] if len(found) > _MOST_SHOWN else []
    return Verification(count, len(known), broken, found[:_MOST_SHOWN] + more)


def _recorded(connection: Connection, *actions: str) -> list[Any]:
    return list(connection.execute(select(audit).where(audit.c.action.in_(actions)).order_by(audit.c.number)))


def _verdicts(connection: Connection) -> list[str]:
    """Each verdict must have been recorded with the same content, and each undoing, too."""
    given: dict[str, list[str]] = {}
    for row in _recorded(connection, "verdict"):
        given.setdefault(row.subject, []).append(row.detail)
    undone = {row.detail for row in _recorded(connection, "verdict undone")}
    purged = {row.subject for row in _recorded(connection, "purged")}
    found, stored = [], dict.fromkeys(given, 0)
    for row in connection.execute(select(verdicts).order_by(verdicts.c.number)).yield_per(1_000):
        stored[row.alert_id] = stored.get(row.alert_id, 0) + 1
        if row.message not in given.get(row.alert_id, []):
            found.append(f"verdict {row.number} on alert {row.alert_id} is not in the audit trail as it is stored")
        if (row.state == VerdictState.UNDONE) != (f"verdict {row.number}" in undone):
            found.append(f"verdict {row.number} on alert {row.alert_id} is {row.state}, but the audit trail says otherwise")
    missing = [alert for alert, details in given.items() if stored[alert] < len(details) and alert not in purged]
    return found + [f"a recorded verdict on alert {alert} is missing" for alert in missing]


def _alerts(connection: Connection) -> list[str]:
    """The finding of each alert must be that of its last verdict that counts."""
    last: dict[str, str] = {}
    standing = select(verdicts).where(verdicts.c.state != VerdictState.UNDONE.value).order_by(verdicts.c.number)
    for row in connection.execute(standing).yield_per(1_000):
        last[row.alert_id] = decode_verdict(row.message.encode()).finding.value
    found = []
    for row in connection.execute(select(alerts.c.alert_id, alerts.c.finding, alerts.c.state)).yield_per(1_000):
        finding = last.pop(row.alert_id, None)
        states = {None: AlertState.OPEN, Finding.ESCALATE.value: AlertState.ESCALATED}
        if row.finding != finding or row.state != states.get(finding, AlertState.CLOSED):
            found.append(f"alert {row.alert_id} is {row.state} with the finding {row.finding}, but its last verdict is {finding}")
    return found + [f"alert {alert_id} is missing, but there is a verdict on it" for alert_id in last]


def _cases(connection: Connection) -> list[str]:
    """The outcome of a judged case must be that of the last verdict or correction that was recorded."""
    outcomes: dict[str, str | None] = {}
    waiting = {
        row.alert_id
        for row in connection.execute(select(verdicts.c.alert_id).where(verdicts.c.state != VerdictState.PUBLISHED.value))
    }
    undone = {row.detail for row in _recorded(connection, "verdict undone")}
    messages = {row.message: f"verdict {row.number}" for row in connection.execute(select(verdicts.c.number, verdicts.c.message))}
    for row in _recorded(connection, "verdict", *_CASE_ACTIONS):
        if row.action == "case deleted":
            outcomes[row.subject] = None
        elif row.action == "case corrected":
            outcomes[row.subject] = row.detail.partition(":")[0]
        elif messages.get(row.detail) not in undone:
            finding = json.loads(row.detail)["finding"]
            outcomes[row.subject] = None if finding == Finding.ESCALATE else finding
    found = []
    judged = select(cases.c.case_id, cases.c.outcome, cases.c.removed).where(cases.c.judged.is_(True))
    for row in connection.execute(judged).yield_per(1_000):
        if row.case_id not in outcomes or row.case_id in waiting:
            continue  # a case of a bundle made elsewhere, or a verdict that has not reached the casebook yet
        wanted, stored = outcomes[row.case_id], None if row.removed else row.outcome
        if stored != wanted:
            found.append(f"case {row.case_id} has the outcome {stored}, but {wanted} was recorded")
    return found
