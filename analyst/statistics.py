"""Figures for the leads: backlog, throughput, breaches, verdicts, precision and capacity."""

from typing import Any, Final, NamedTuple

from msgspec import Struct
from sqlalchemy import Connection, case, func, or_, select

from analyst.access.roles import Actor, Permission
from analyst.policy import Severity
from analyst.queue import AlertState, Queue
from analyst.tables import alert_rules, alerts
from core.clock import MS_PER_DAY, MS_PER_HOUR
from core.messages import Finding

_MOST_ROWS: Final = 50  # rules, themes and bundles shown


class Backlog(Struct, frozen=True):
    """Alerts of one severity that wait for a verdict. ``oldest_hours`` is the age of the oldest one."""

    severity: Severity
    open: int
    escalated: int
    breached: int
    oldest_hours: float | None


class DayOfWork(Struct, frozen=True):
    """One day (UTC): alerts raised and closed, and how many were closed after their deadline. ``day`` is epoch ms."""

    day: int
    raised: int
    closed: int
    closed_late: int


class Precision(Struct, frozen=True):
    """Verdicts on the alerts of one theme, rule or bundle. ``precision`` is the share of frauds."""

    name: str
    frauds: int
    legitimate: int

    @property
    def precision(self) -> float:
        """Share of frauds among the closed alerts."""
        return self.frauds / (self.frauds + self.legitimate)


class Worker(NamedTuple):
    """A person and the verdicts that the person gave."""

    name: str
    verdicts: int
    frauds: int


class Load(Struct, frozen=True):
    """Alerts raised and closed per day, on average of the period, and the days that the backlog takes at this pace."""

    raised_per_day: float
    closed_per_day: float
    backlog: int
    days_of_work: float | None


class Report(Struct, frozen=True):
    """Everything on the leads' page, for the last ``days`` days."""

    days: int
    backlog: list[Backlog]
    work: list[DayOfWork]
    verdicts: dict[Finding, int]
    median_minutes: float | None
    by_theme: list[Precision]
    by_rule: list[Precision]
    by_bundle: list[Precision]
    people: list[Worker]
    load: Load


class Statistics:
    """Figures computed from a queue."""

    def __init__(self, queue: Queue) -> None:
        self._queue, self._clock = queue, queue.clock

    def report(self, actor: Actor, days: int) -> Report:
        """
        Return the figures of the last ``days`` days.

        Raises:
            AccessError: if the actor may not see them.
        """
        actor.require(Permission.LEAD)
        now = self._clock.now_ms()
        since = (now // MS_PER_DAY - days + 1) * MS_PER_DAY
        with self._queue.reading() as connection:
            backlog = _backlog(connection, now)
            work = _work(connection, since, now)
            closed = alerts.c.closed_at >= since
            verdicts = select(alerts.c.finding, func.count()).where(or_(closed, alerts.c.state == AlertState.ESCALATED.value))
            return Report(
                days=days,
                backlog=backlog,
                work=work,
                verdicts={Finding(finding): count for finding, count in connection.execute(verdicts.group_by(alerts.c.finding))},
                median_minutes=_median_minutes(connection, since),
                by_theme=_precision(connection, alerts.c.theme, since),
                by_rule=_precision(connection, alert_rules.c.rule, since),
                by_bundle=_precision(connection, alerts.c.bundle, since),
                people=_people(connection, since),
                load=_load(backlog, work),
            )

    def backlog(self) -> list[Backlog]:
        """Return the waiting alerts by severity."""
        with self._queue.reading() as connection:
            return _backlog(connection, self._clock.now_ms())


def _backlog(connection: Connection, now: int) -> list[Backlog]:
    escalated = alerts.c.state == AlertState.ESCALATED.value
    wanted = (
        select(
            alerts.c.severity,
            func.count(),
            func.sum(case((escalated, 1), else_=0)),
            func.sum(case((alerts.c.deadline < now, 1), else_=0)),
            func.min(alerts.c.raised_at),
        )
        .where(alerts.c.state.in_((AlertState.OPEN.value, AlertState.ESCALATED.value)))
        .group_by(alerts.c.severity)
    )
    found = {Severity(row[0]): row for row in connection.execute(wanted)}
    return [
        Backlog(severity, row[1] - row[2], row[2], row[3], (now - row[4]) / MS_PER_HOUR)
        if (row := found.get(severity))
        else Backlog(severity, 0, 0, 0, None)
        for severity in Severity
    ]


def _work(connection: Connection, since: int, now: int) -> list[DayOfWork]:
    def by_day(column: Any, *more: Any) -> dict[int, Any]:
        day = (column - column % MS_PER_DAY).label("day")
        wanted = select(day, func.count(), *more).where(column >= since).group_by(day)
        return {int(row[0]): row for row in connection.execute(wanted)}

    raised = by_day(alerts.c.raised_at)
    closed = by_day(alerts.c.closed_at, func.sum(case((alerts.c.closed_at > alerts.c.deadline, 1), else_=0)))
    return [
        DayOfWork(
            day,
            raised[day][1] if day in raised else 0,
            closed[day][1] if day in closed else 0,
            closed[day][2] if day in closed else 0,
        )
        for day in range(since, now + 1, MS_PER_DAY)
    ]


def _median_minutes(connection: Connection, since: int) -> float | None:
    """Return the median time from an alert to its verdict, in minutes."""
    durations = select((alerts.c.closed_at - alerts.c.raised_at).label("duration")).where(alerts.c.closed_at >= since)
    count = connection.execute(select(func.count()).select_from(durations.subquery())).scalar_one()
    if not count:
        return None
    middle = connection.execute(durations.order_by("duration").offset((count - 1) // 2).limit(1)).scalar()
    return None if middle is None else float(middle) / 60_000


def _precision(connection: Connection, column: Any, since: int) -> list[Precision]:
    fraud = alerts.c.finding == Finding.FRAUD.value
    wanted = (
        select(column, func.sum(case((fraud, 1), else_=0)), func.sum(case((fraud, 0), else_=1)))
        .where(alerts.c.closed_at >= since, column.is_not(None))
        .group_by(column)
        .order_by(func.count().desc(), column)
        .limit(_MOST_ROWS)
    )
    if column.table is alert_rules:
        wanted = wanted.select_from(alert_rules.join(alerts, alerts.c.alert_id == alert_rules.c.alert_id))
    return [Precision(row[0], int(row[1]), int(row[2])) for row in connection.execute(wanted)]


def _people(connection: Connection, since: int) -> list[Worker]:
    frauds = func.sum(case((alerts.c.finding == Finding.FRAUD.value, 1), else_=0))
    wanted = (
        select(alerts.c.closed_by, func.count(), frauds)
        .where(alerts.c.closed_at >= since)
        .group_by(alerts.c.closed_by)
        .order_by(func.count().desc(), alerts.c.closed_by)
        .limit(_MOST_ROWS)
    )
    return [Worker(row[0], int(row[1]), int(row[2])) for row in connection.execute(wanted)]


def _load(backlog: list[Backlog], work: list[DayOfWork]) -> Load:
    waiting, days = sum(one.open + one.escalated for one in backlog), len(work)
    closed = sum(day.closed for day in work) / days
    return Load(sum(day.raised for day in work) / days, closed, waiting, waiting / closed if closed else None)
