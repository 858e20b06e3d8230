"""Check that the audit trail is intact, and that the console's tables agree with it."""

import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from analyst.audit import AcceptedLoss, entry_count, unkeyed_count
from analyst.proposals import AddEntry, Change, ProposalState, RemoveEntry, ReplaceSteps
from analyst.queue import AlertState, Queue
from analyst.tables import alerts, audit, cases, list_entries, next_step_tables, proposals, users, verdicts
from analyst.verdicts import VerdictState
from core.clock import MS_PER_HOUR, MS_PER_MINUTE
from core.messages import AuditAnchor, Finding, decode_verdict

_MOST_SHOWN: Final = 20  # contradictions listed by name
_ANCHORED_MS: Final = 5 * MS_PER_MINUTE  # an entry older than that must be covered by an anchor
_FORMER_KEY: Final = (
    "the last entry has a former key, or none: if you have just set a new key, run `whyflag audit change-key`; otherwise, somebody "
    "else has signed the trail"
)
_LEARNED_MS: Final = MS_PER_HOUR  # a verdict older than that must have reached the casebook


class Verification(Struct, frozen=True):
    """
    The result: the number of entries and anchors, the first broken entry, and contradictions in words.

    ``unkeyed`` entries are from version 0.1, which signed without a key. ``key_changes`` are the numbers of the entries that changed
    the key, and ``losses`` what somebody has accepted as lost.
    """

    entries: int
    unkeyed: int
    anchors: int
    first_broken: int | None
    contradictions: list[str]
    key_changes: list[int] = []
    losses: list[AcceptedLoss] = []

    @property
    def intact(self) -> bool:
        """Whether nothing was found."""
        return self.first_broken is None and not self.contradictions


def verify(queue: Queue, anchors: Sequence[AuditAnchor] | None) -> Verification:
    """
    Check a queue's audit trail against the anchors in Kafka, and the console's tables against the trail.

    Without anchors (None), a trail that was cut off or signed again goes unnoticed. The tables are compared only with an intact
    trail: a broken one proves nothing.
    """
    now = queue.clock.now_ms()
    with queue.database.snapshot() as connection:
        trail = queue.database.audit.check(connection, anchors or ())
        found: list[str] = [] if trail.current else [_FORMER_KEY]
        if trail.first_broken is None:
            if anchors is not None:
                found += _not_anchored(connection, trail.anchored, now)
            found += [
                *_verdicts(connection), *_alerts(connection), *_cases(connection, now), *_proposals(connection), *_lists(connection),
                *_users(connection),
            ]  # fmt: skip
        count, unkeyed = entry_count(connection), unkeyed_count(connection)
    more = [f"and {len(found) - _MOST_SHOWN} more"] if len(found) > _MOST_SHOWN else []
    return Verification(
        count, unkeyed, len(anchors or ()), trail.first_broken, found[:_MOST_SHOWN] + more, trail.changes, trail.losses
    )


def _not_anchored(connection: Connection, newest: int, now: int) -> list[str]:
    """Entries that are some minutes old must be covered by an anchor; otherwise somebody has stopped the anchors."""
    old = select(audit.c.number).where(audit.c.number > newest, audit.c.at < now - _ANCHORED_MS).order_by(audit.c.number).limit(1)
    first = connection.execute(old).scalar()
    return [] if first is None else [f"entry {first} is older than five minutes, but no anchor in Kafka covers it"]


def _recorded(connection: Connection, *actions: str) -> list[Any]:
    return list(connection.execute(select(audit).where(audit.c.action.in_(actions)).order_by(audit.c.number)))


def _undone(connection: Connection) -> set[tuple[str, str]]:
    """Return alert and number of the verdicts that were undone."""
    return {(row.subject, row.detail) for row in _recorded(connection, "verdict undone")}


def _verdicts(connection: Connection) -> list[str]:
    """The verdicts on an alert must be those that were recorded, in the same order, and so must be what was undone."""
    given: dict[str, list[str]] = {}
    for row in _recorded(connection, "verdict"):
        given.setdefault(row.subject, []).append(row.detail)
    undone, stored = _undone(connection), dict[str, list[str]]()
    found = []
    for row in connection.execute(select(verdicts).order_by(verdicts.c.number)).yield_per(1_000):
        stored.setdefault(row.alert_id, []).append(row.message)
        if (row.state == VerdictState.UNDONE) != ((row.alert_id, f"verdict {row.number}") in undone):
            found.append(f"verdict {row.number} on alert {row.alert_id} is {row.state}, but the audit trail says otherwise")
    purged = {row.subject for row in _recorded(connection, "purged")}
    differing = [
        alert
        for alert in {**given, **stored}
        if given.get(alert) != stored.get(alert) and not (alert in purged and alert not in stored)
    ]
    return found + [f"the verdicts on alert {alert} are not those that were recorded" for alert in differing]


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


def _cases(connection: Connection, now: int) -> list[str]:
    """The outcome of a case must be that of the last verdict or correction that was recorded some time ago."""
    standing = select(verdicts).where(verdicts.c.state != VerdictState.UNDONE.value)
    on_their_way = {
        row.alert_id
        for row in connection.execute(standing)
        if row.state != VerdictState.PUBLISHED or (row.published_at or 0) > now - _LEARNED_MS
    }
    judged: dict[str, list[str | None]] = {}  # the outcomes that count, oldest first; undoing removes the last one
    for row in _recorded(connection, "verdict", "verdict undone", "case corrected", "case deleted"):
        found_so_far = judged.setdefault(row.subject, [])
        if row.action == "verdict undone":
            found_so_far.pop()
        elif row.action == "verdict":
            finding = json.loads(row.detail)["finding"]
            found_so_far.append(None if finding == Finding.ESCALATE else finding)
        else:
            found_so_far.append(None if row.action == "case deleted" else row.detail.partition(":")[0])
    outcomes = {case_id: found_so_far[-1] for case_id, found_so_far in judged.items() if found_so_far}
    found = []
    for row in connection.execute(select(cases.c.case_id, cases.c.outcome, cases.c.removed)).yield_per(1_000):
        if row.case_id not in outcomes or row.case_id in on_their_way:
            continue  # a case that came with a bundle, or a verdict that may not have reached the casebook yet
        wanted, stored = outcomes[row.case_id], None if row.removed else row.outcome
        if stored != wanted:
            found.append(f"case {row.case_id} has the outcome {stored}, but {wanted} was recorded")
    return found


def _proposed(connection: Connection) -> dict[str, tuple[str, ProposalState]]:
    """Return content and state of each recorded proposal, by its subject in the trail."""
    found: dict[str, tuple[str, ProposalState]] = {}
    for row in _recorded(connection, "proposal proposed", *(f"proposal {state}" for state in ProposalState)):
        if row.action == "proposal proposed":
            found[row.subject] = (row.detail, ProposalState.PENDING)
        elif row.subject in found:
            found[row.subject] = (found[row.subject][0], ProposalState(row.action.removeprefix("proposal ")))
    return found


def _proposals(connection: Connection) -> list[str]:
    """Each proposal must have the content and the state that were recorded."""
    recorded = _proposed(connection)
    stored = {f"proposal {row.number}": (row.content, row.state) for row in connection.execute(select(proposals))}
    differing = [name for name in {**recorded, **stored} if recorded.get(name) != stored.get(name)]
    return [f"{name} is not as it was recorded" for name in differing]


def _lists(connection: Connection) -> list[str]:
    """Lists and next steps must result from the approved proposals, in the order of their approval."""
    contents = {name: content for name, (content, _) in _proposed(connection).items()}
    wanted: dict[tuple[str, str, str], str] = {}
    steps: list[str] = []
    for row in _recorded(connection, "proposal approved"):
        change: Any = msgspec.json.decode(contents.get(row.subject, "null"), type=Change | None)
        if isinstance(change, AddEntry):
            wanted[change.list, change.key, change.value] = change.expires_on
        elif isinstance(change, RemoveEntry):
            wanted.pop((change.list, change.key, change.value), None)
        elif isinstance(change, ReplaceSteps):
            steps.append(change.toml)
    stored = {(row.list, row.key, row.value): row.expires_on for row in connection.execute(select(list_entries))}
    found = [
        f"the entry {place[2]} on the list {place[0]}_{place[1]} does not result from an approved proposal"
        for place in {**wanted, **stored}
        if wanted.get(place) != stored.get(place)
    ]
    tables = [row.content for row in connection.execute(select(next_step_tables).order_by(next_step_tables.c.number))]
    return found + (["the tables of next steps do not result from approved proposals"] if tables != steps else [])


def _users(connection: Connection) -> list[str]:
    """Role and state of each user must be those that were recorded last."""
    wanted: dict[str, tuple[str, bool]] = {}
    for row in _recorded(connection, "user added", "invitation accepted", "role changed", "user changed"):
        role = row.detail.partition(",")[0]
        disabled = row.action == "user changed" and row.detail.endswith("disabled")
        wanted[row.subject] = (role, disabled)
    found = {
        row.name: (row.role, row.disabled) for row in connection.execute(select(users.c.name, users.c.role, users.c.disabled))
    }
    changed = [
        f"user {name} is {role}{', disabled' if disabled else ''}, which was not recorded"
        for name, (role, disabled) in found.items()
        if wanted.get(name) != (role, disabled)
    ]
    return changed + [f"user {name} is missing, and nobody recorded a removal" for name in sorted(wanted.keys() - found.keys())]
