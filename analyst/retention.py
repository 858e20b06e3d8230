"""Deletion of what is no longer needed, by the retention policy."""

from typing import Final, NamedTuple

from sqlalchemy import delete, func, select

from analyst.access.roles import Actor, Permission
from analyst.audit import Event
from analyst.queue import AlertState, Queue
from analyst.tables import (
    alert_documents,
    alert_rules,
    alert_search,
    alerts,
    bulk_items,
    deliveries,
    investigations,
    verdicts,
)
from analyst.verdicts import VerdictState
from core.clock import MS_PER_DAY

_CHUNK: Final = 500  # alerts deleted in one transaction


class Purged(NamedTuple):
    """What was deleted, or would be."""

    alerts: int
    before: int  # epoch ms; alerts closed before that are deleted


def purge(queue: Queue, actor: Actor, days: int, dry_run: bool) -> Purged:
    """
    Delete alerts that were closed more than ``days`` days ago, with their messages, verdicts and investigations.

    The audit trail and the cases in the casebook stay. An alert whose verdict has not left for Kafka stays, too.

    Raises:
        AccessError: if the actor may not administer the console.
    """
    actor.require(Permission.ADMINISTER)
    before = queue.clock.now_ms() - days * MS_PER_DAY
    waiting = select(verdicts.c.alert_id).where(verdicts.c.state.in_((VerdictState.WAITING.value, VerdictState.LEAVING.value)))
    old = (alerts.c.state == AlertState.CLOSED.value) & (alerts.c.closed_at < before) & alerts.c.alert_id.not_in(waiting)
    if dry_run:
        with queue.reading() as connection:
            return Purged(connection.execute(select(func.count()).select_from(alerts).where(old)).scalar_one(), before)
    deleted = 0
    while True:
        with queue.database.changing() as connection:
            ids = list(connection.execute(select(alerts.c.alert_id).where(old).limit(_CHUNK)).scalars())
            if not ids:
                break
            for table in (alert_documents, alert_rules, alert_search, bulk_items, investigations, verdicts, alerts):
                connection.execute(delete(table).where(table.c.alert_id.in_(ids)))
            connection.execute(delete(deliveries).where(deliveries.c.state != "waiting", deliveries.c.next_at < before))
            queue.database.audit.record(
                connection, *(Event(actor.name, "purged", alert_id, f"closed over {days} days ago") for alert_id in ids)
            )
            deleted += len(ids)
    return Purged(deleted, before)
