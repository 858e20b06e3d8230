"""Cases in SQL: the source of truth from which every vector index is derived."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from msgspec import structs
from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from analyst.audit import Event
from analyst.queue import Queue
from analyst.tables import alert_documents, cases, verdicts
from analyst.verdicts import VerdictState
from core.errors import CasebookError
from core.messages import Finding, Verdict, decode_alert, decode_verdict
from explain.casebook import Case, Change, bundle_cases, case_from
from models.bundles.bundle import Bundle

_AT_ONCE = 500


class CaseOfBundle(NamedTuple):
    """A case with the version of the bundle whose casebook holds it."""

    bundle: str
    case: Case


class CaseCount(NamedTuple):
    """Number of cases of a bundle with an outcome."""

    bundle: str
    outcome: str
    cases: int


class Cases:
    """Cases of every bundle, stored in the queue's database. Changes are numbered, so that an index can catch up."""

    def __init__(self, queue: Queue) -> None:
        self._queue, self._database = queue, queue.database

    # -- read by the casebook

    def changes(self, bundle: str, after: int, limit: int) -> list[Change]:
        """Return the changes with a number above ``after``, oldest first."""
        wanted = select(cases).where(cases.c.bundle == bundle, cases.c.changed > after).order_by(cases.c.changed).limit(limit)
        with self._queue.reading() as connection:
            rows = connection.execute(wanted).mappings().all()
        return [Change(row["number"], row["changed"], None if row["removed"] else _case(row)) for row in rows]

    def cases(self, bundle: str, numbers: list[int]) -> dict[int, Case]:
        """Return the cases with these numbers, keyed by number. Removed cases are left out."""
        wanted = select(cases).where(cases.c.number.in_(numbers), cases.c.bundle == bundle, cases.c.removed.is_(False))
        with self._queue.reading() as connection:
            return {row["number"]: _case(row) for row in connection.execute(wanted).mappings()}

    def typed_frauds(self, bundle: str, limit: int) -> list[Case]:
        """Return the fraud cases that have a typology, newest first."""
        wanted = select(cases).where(
            cases.c.bundle == bundle,
            cases.c.removed.is_(False),
            cases.c.outcome == Finding.FRAUD.value,
            cases.c.typology.is_not(None),
        )
        with self._queue.reading() as connection:
            return [_case(row) for row in connection.execute(wanted.order_by(cases.c.closed_time.desc()).limit(limit)).mappings()]

    def newest(self, bundle: str) -> int:
        """Return the number of the last change to a bundle's cases, or 0 if there is none."""
        wanted = select(func.coalesce(func.max(cases.c.changed), 0)).where(cases.c.bundle == bundle)
        with self._queue.reading() as connection:
            return int(connection.execute(wanted).scalar_one())

    # -- creating and changing cases

    def fill(self, bundle: Bundle) -> int:
        """
        Add the missing cases of a bundle and return how many were added.

        The cases come from the bundle and from all verdicts published so far, including verdicts on alerts of other bundles if the
        alert has this bundle's features. Cases deleted or corrected in another bundle's casebook stay deleted or corrected.
        """
        added, judged = 0, self._judged_elsewhere(bundle.version)
        gone = {case_id for case_id, outcome in judged.items() if outcome is None}
        if self.newest(bundle.version) == 0:
            added += self.put(bundle.version, [case for case in bundle_cases(bundle) if case.case_id not in gone], judged=False)
        known = select(cases.c.case_id).where(cases.c.bundle == bundle.version, cases.c.judged.is_(True))
        published = verdicts.c.state == VerdictState.PUBLISHED.value  # others may still be undone
        last = select(func.max(verdicts.c.number)).where(published).group_by(verdicts.c.alert_id)
        wanted = (
            select(verdicts.c.alert_id, alert_documents.c.message, verdicts.c.message.label("verdict"))
            .join(alert_documents, alert_documents.c.alert_id == verdicts.c.alert_id)
            .where(verdicts.c.number.in_(last), verdicts.c.alert_id.not_in(known))
        )
        with self._queue.reading() as connection:
            missing = [row for row in connection.execute(wanted).all() if row.alert_id not in gone]
        for begin in range(0, len(missing), _AT_ONCE):
            found = []
            for row in missing[begin : begin + _AT_ONCE]:
                case = case_from(decode_alert(row.message.encode()), decode_verdict(row.verdict.encode()), bundle)
                if case is not None:
                    found.append(structs.replace(case, outcome=judged.get(case.case_id) or case.outcome))
            added += self.put(bundle.version, found)
        return added

    def _judged_elsewhere(self, bundle: str) -> dict[str, Finding | None]:
        """Return the last human judgement on each case of other bundles: its outcome, or None if the case was removed."""
        wanted = select(cases.c.case_id, cases.c.removed, cases.c.outcome).where(
            cases.c.bundle != bundle, cases.c.judged.is_(True)
        )
        with self._queue.reading() as connection:
            rows = connection.execute(wanted.order_by(cases.c.changed)).all()
        return {row.case_id: None if row.removed else Finding(row.outcome) for row in rows}

    def judge(self, verdict: Verdict) -> None:
        """Apply a verdict to its case in every bundle's casebook, unless a person has judged it at the same time or later."""
        with self._database.changing() as connection:
            which = (cases.c.case_id == verdict.alert_id) & (
                cases.c.judged.is_(False) | (cases.c.closed_time < verdict.verdict_time)
            )
            values: dict[str, Any] = {"removed": True}
            if verdict.finding is not Finding.ESCALATE:
                values = {
                    "removed": False,
                    "outcome": verdict.finding.value,
                    "typology": verdict.typology,
                    "note": verdict.note,
                }
            self._change(connection, which, values | {"closed_time": verdict.verdict_time})

    def put(self, bundle: str, new: Sequence[Case], judged: bool = True) -> int:
        """
        Add new cases, update known ones, and return how many were added or updated.

        ``judged`` is true if an analyst judged the cases, and false if they came with the bundle. A case that a person has
        already judged is updated only by a later judgement: a verdict may arrive twice and must not undo a correction.
        """
        count = 0
        with self._database.changing() as connection:
            change = self._last_change(connection)
            known = self._numbers(connection, bundle, new)
            fresh = []
            for case in new:
                number, at = known.get(case.case_id, (None, 0))
                if at and not (judged and at < case.closed_time):
                    continue
                count += 1
                row = _row(bundle, case) | {"changed": change + count, "judged": judged}
                if number is not None:
                    connection.execute(update(cases).where(cases.c.number == number).values(row))
                else:
                    fresh.append(row)
            for begin in range(0, len(fresh), _AT_ONCE):
                connection.execute(insert(cases), fresh[begin : begin + _AT_ONCE])
        return count

    def delete(self, case_id: str, actor: str, reason: str) -> int:
        """
        Remove a case permanently from every bundle's casebook and record that in the audit trail.

        The indexes remove its vectors when they catch up. Return the number of casebooks changed.

        Raises:
            CasebookError: if there is no such case.
        """
        return self._by_hand(case_id, {"removed": True}, actor, "case deleted", reason)

    def correct(self, case_id: str, outcome: Finding, actor: str, reason: str) -> int:
        """
        Change the outcome of a case in every bundle's casebook and record that in the audit trail.

        Return the number of casebooks changed.

        Raises:
            CasebookError: if there is no such case.
        """
        values = {"outcome": outcome.value}
        return self._by_hand(case_id, values, actor, "case corrected", f"{outcome.value}: {reason}")

    def _by_hand(self, case_id: str, values: dict[str, Any], actor: str, action: str, detail: str) -> int:
        with self._database.changing() as connection:
            # an earlier verdict that arrives later must not undo this
            values = values | {"closed_time": self._queue.clock.now_ms()}
            count = self._change(connection, (cases.c.case_id == case_id) & cases.c.removed.is_(False), values)
            if not count:
                raise CasebookError(f"no case {case_id} in the casebook")
            self._database.audit.record(connection, Event(actor, action, case_id, detail))
        return count

    def _change(self, connection: Connection, which: ColumnElement[bool], values: dict[str, Any]) -> int:
        """Update the selected cases, mark them as judged by a person, and return how many were updated."""
        change, numbers = self._last_change(connection), connection.execute(select(cases.c.number).where(which)).scalars().all()
        for count, number in enumerate(numbers, start=1):
            changed = values | {"judged": True, "changed": change + count}
            connection.execute(update(cases).where(cases.c.number == number).values(changed))
        return len(numbers)

    def count(self, bundle: str) -> int:
        """Return the number of a bundle's cases."""
        wanted = select(func.count()).select_from(cases).where(cases.c.bundle == bundle, cases.c.removed.is_(False))
        with self._queue.reading() as connection:
            return int(connection.execute(wanted).scalar_one())

    def find(self, case_id: str) -> list[CaseOfBundle]:
        """Return the case in each bundle whose casebook holds it."""
        with self._queue.reading() as connection:
            wanted = select(cases).where(cases.c.case_id == case_id, cases.c.removed.is_(False)).order_by(cases.c.number)
            return [CaseOfBundle(row["bundle"], _case(row)) for row in connection.execute(wanted).mappings()]

    def counts(self) -> list[CaseCount]:
        """Return the number of cases of each bundle and outcome."""
        wanted = select(cases.c.bundle, cases.c.outcome, func.count()).where(cases.c.removed.is_(False))
        with self._queue.reading() as connection:
            rows = connection.execute(wanted.group_by(cases.c.bundle, cases.c.outcome).order_by(cases.c.bundle, cases.c.outcome))
            return [CaseCount(*row) for row in rows]

    def _numbers(self, connection: Connection, bundle: str, new: Sequence[Case]) -> dict[str, tuple[int, int]]:
        """Map the ID of each known case to its number and the time at which a person judged it (0 for never)."""
        wanted = select(cases.c.case_id, cases.c.number, cases.c.judged, cases.c.closed_time).where(cases.c.bundle == bundle)
        if len(new) <= _AT_ONCE:
            wanted = wanted.where(cases.c.case_id.in_([case.case_id for case in new]))
        return {row.case_id: (row.number, row.closed_time if row.judged else 0) for row in connection.execute(wanted)}

    def _last_change(self, connection: Connection) -> int:
        return int(connection.execute(select(func.coalesce(func.max(cases.c.changed), 0))).scalar_one())


def _row(bundle: str, case: Case) -> dict[str, Any]:
    return {
        "bundle": bundle,
        "case_id": case.case_id,
        "removed": False,
        "outcome": case.outcome.value,
        "closed_time": case.closed_time,
        "typology": case.typology,
        "note": case.note,
        "features": np.asarray(case.features, "<f4").tobytes(),
        "contributions": np.asarray(case.contributions, "<f4").tobytes(),
    }


def _case(row: Any) -> Case:
    return Case(
        row["case_id"],
        Finding(row["outcome"]),
        row["closed_time"],
        np.frombuffer(row["features"], "<f4"),
        np.frombuffer(row["contributions"], "<f4"),
        row["typology"],
        row["note"],
    )
