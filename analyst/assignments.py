"""
Who works on which alert: claims, the next alert, and snoozing.

A claim ends by itself after some minutes, so that the alert returns to the queue. Two people never get the same alert: each claim is
a transaction that excludes other changes.
"""

from typing import Any

from sqlalchemy import Connection, and_, or_, select, update

from analyst.access.roles import Actor, Permission
from analyst.audit import Event
from analyst.listing import AlertFilter, Section, awake, condition, sort_keys
from analyst.queue import AlertState, Queue
from analyst.tables import alerts
from core.clock import MS_PER_DAY, MS_PER_MINUTE
from core.errors import ConflictError, InputError, NotFoundError

_LONGEST_SNOOZE_MS = 30 * MS_PER_DAY


class Assignments:
    """Claims and snoozes of the alerts in a queue."""

    def __init__(self, queue: Queue) -> None:
        self._database, self._clock, self._policy = queue.database, queue.clock, queue.policy

    def claim(self, alert_id: str, actor: Actor) -> None:
        """
        Claim an alert, or claim it for longer. A lead may take over somebody else's claim.

        Raises:
            AccessError: if the actor may not work on alerts.
            NotFoundError: if there is no such alert.
            ConflictError: if the alert is closed or somebody else has claimed it.
        """
        with self._database.changing() as connection:
            now = self._clock.now_ms()
            row = _open_alert(connection, alert_id, actor)
            held = row.claimed_by is not None and row.claimed_until > now
            if held and row.claimed_by != actor.name and not actor.may(Permission.LEAD):
                raise ConflictError(f"{row.claimed_by} works on alert {alert_id}: choose another alert")
            self._hold(connection, alert_id, actor, now)
            if not held or row.claimed_by != actor.name:
                self._database.audit.record(connection, Event(actor.name, "claimed", alert_id, row.claimed_by if held else ""))

    def release(self, alert_id: str, actor: Actor) -> None:
        """
        Give a claimed alert back to the queue.

        Raises:
            AccessError: if the actor may not work on alerts.
            NotFoundError: if there is no such alert.
            ConflictError: if the actor has not claimed the alert.
        """
        with self._database.changing() as connection:
            row = _open_alert(connection, alert_id, actor)
            if row.claimed_by != actor.name and not (row.claimed_by and actor.may(Permission.LEAD)):
                raise ConflictError(f"you have not claimed alert {alert_id}")
            values = {"claimed_by": None, "claimed_until": None, "changed_at": self._clock.now_ms()}
            connection.execute(update(alerts).where(alerts.c.alert_id == alert_id).values(values))
            self._database.audit.record(connection, Event(actor.name, "released", alert_id, ""))

    def claim_next(self, wanted: AlertFilter, actor: Actor) -> str | None:
        """
        Claim the first alert that a filter shows and that nobody else has claimed; return its ID, or None if there is none.

        Raises:
            AccessError: if the actor may not work on alerts.
        """
        actor.require(Permission.WORK)
        now = self._clock.now_ms()
        free = or_(alerts.c.claimed_by.is_(None), alerts.c.claimed_until <= now)
        states = [AlertState.OPEN.value] + ([AlertState.ESCALATED.value] if actor.may(Permission.LEAD) else [])
        shown = condition(wanted, actor, self._clock)
        which = and_(shown, free, alerts.c.state.in_(states), *([] if wanted.section is Section.SNOOZED else [awake(now)]))
        with self._database.changing() as connection:
            alert_id = connection.execute(
                select(alerts.c.alert_id).where(which).order_by(*sort_keys(wanted.order)).limit(1)
            ).scalar()
            if alert_id is not None:
                self._hold(connection, alert_id, actor, now)
                self._database.audit.record(connection, Event(actor.name, "claimed", alert_id, ""))
        return alert_id

    def snooze(self, alert_id: str, minutes: int, actor: Actor) -> None:
        """
        Hide an open alert from the queue for some minutes; 0 shows it again. Its deadline stays.

        Raises:
            AccessError: if the actor may not work on alerts.
            InputError: if the time is longer than 30 days.
            NotFoundError: if there is no such alert.
            ConflictError: if the alert is closed or somebody else has claimed it.
        """
        if not 0 <= minutes * MS_PER_MINUTE <= _LONGEST_SNOOZE_MS:
            raise InputError("an alert can be snoozed for 1 minute to 30 days")
        with self._database.changing() as connection:
            now = self._clock.now_ms()
            until = now + minutes * MS_PER_MINUTE if minutes else None
            row = _open_alert(connection, alert_id, actor)
            if row.claimed_by not in (None, actor.name) and row.claimed_until > now:
                raise ConflictError(f"{row.claimed_by} works on alert {alert_id}: choose another alert")
            values = {"snoozed_until": until, "claimed_by": None, "claimed_until": None, "changed_at": now}
            connection.execute(update(alerts).where(alerts.c.alert_id == alert_id).values(values))
            self._database.audit.record(connection, Event(actor.name, "snoozed", alert_id, f"{minutes} minutes"))

    def _hold(self, connection: Connection, alert_id: str, actor: Actor, now: int) -> None:
        values = {"claimed_by": actor.name, "claimed_until": now + self._policy.claim_ms, "changed_at": now}
        connection.execute(update(alerts).where(alerts.c.alert_id == alert_id).values(values))


def _open_alert(connection: Connection, alert_id: str, actor: Actor) -> Any:
    """
    Return the row of an alert on which the actor may work: an escalated one is for leads.

    Raises:
        AccessError: if the actor may not work on it.
        NotFoundError: if there is no such alert.
        ConflictError: if it is closed.
    """
    actor.require(Permission.WORK)
    row = connection.execute(select(alerts).where(alerts.c.alert_id == alert_id)).first()
    if row is None:
        raise NotFoundError(f"no alert {alert_id} in the queue")
    if row.state == AlertState.CLOSED:
        raise ConflictError(f"alert {alert_id} is closed: {row.closed_by} has given a verdict on it")
    if row.state == AlertState.ESCALATED:
        actor.require(Permission.LEAD)
    return row
