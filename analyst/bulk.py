"""The same verdict on many alerts: preview, give, undo."""

from enum import StrEnum
from typing import Any, Final, NamedTuple

from msgspec import Struct
from sqlalchemy import func, insert, literal, select, update

from analyst.access.roles import Actor, Permission
from analyst.audit import Event
from analyst.listing import AlertFilter, AlertRow, Listing, condition, sort_keys
from analyst.queue import AlertState, Queue
from analyst.tables import alerts, bulk_items, bulks, verdicts
from analyst.verdicts import VerdictState, checked, restore, store_verdicts
from core.errors import ConflictError, InputError, NotFoundError
from core.messages import Finding, Opinion

MOST: Final = 10_000  # alerts in one bulk verdict
_CHUNK: Final = 500  # alerts in one transaction, so that others are not kept waiting


class ItemResult(StrEnum):
    """What happened to one alert of a bulk verdict."""

    DONE = "done"
    CLAIMED = "claimed"  # somebody else works on it
    CHANGED = "changed"  # it changed after the preview
    UNDONE = "undone"
    LEFT = "left"  # its verdict could not be undone any more, because it had left for Kafka


class Preview(NamedTuple):
    """What a bulk verdict would judge: the number of alerts, their first rows, and the time of the preview (epoch ms)."""

    alerts: int
    rows: list[AlertRow]
    at: int


class Bulk(Struct, frozen=True):
    """A bulk verdict with the number of its alerts by result."""

    number: int
    given_by: str
    given_at: int
    query: str
    finding: Finding
    undone_at: int | None
    results: dict[ItemResult, int]


class BulkItem(NamedTuple):
    """An alert of a bulk verdict."""

    position: int
    alert_id: str
    result: ItemResult


class Bulks:
    """Bulk verdicts of a queue."""

    def __init__(self, queue: Queue, listing: Listing) -> None:
        self._database, self._clock, self._policy, self._listing = queue.database, queue.clock, queue.policy, listing

    def preview(self, wanted: AlertFilter, actor: Actor) -> Preview:
        """
        Return what a verdict on everything that a filter shows would judge.

        Raises:
            AccessError: if the actor may not judge many alerts at once.
        """
        actor.require(Permission.LEAD)
        at = self._clock.now_ms()
        which = self._open(wanted, actor)
        some = select(literal(1)).select_from(alerts).where(which).limit(MOST + 1)
        with self._database.reading() as connection:
            count = connection.execute(select(func.count()).select_from(some.subquery())).scalar_one()
        return Preview(count, self._listing.page(wanted, actor, size=10).rows, at)

    def give(self, wanted: AlertFilter, opinion: Opinion, actor: Actor, previewed_at: int) -> int:
        """
        Give the same verdict on all open alerts that a filter shows, and return the number of the bulk verdict.

        Alerts that changed after the preview, and alerts that somebody else has claimed, are left alone.

        Raises:
            AccessError: if the actor may not judge many alerts at once.
            InputError: if the opinion is not valid, or the filter shows more than 10,000 alerts.
            ConflictError: if the filter shows no alert.
        """
        actor.require(Permission.LEAD)
        opinion = checked(opinion)
        now = self._clock.now_ms()
        with self._database.changing() as connection:
            query = select(alerts.c.alert_id).where(self._open(wanted, actor)).order_by(*sort_keys(wanted.order))
            ids = list(connection.execute(query.limit(MOST + 1)).scalars())
            if len(ids) > MOST:
                raise InputError(f"the filter shows more than {MOST:,} alerts: narrow it")
            if not ids:
                raise ConflictError("the filter shows no open alert any more")
            values = {"given_by": actor.name, "given_at": now, "query": wanted.query(), "finding": opinion.finding.value}
            key = connection.execute(insert(bulks).values(values)).inserted_primary_key
            number = int(key[0]) if key else 0
            self._database.audit.record(
                connection, Event(actor.name, "bulk verdict", f"bulk {number}", f"{len(ids)} alerts: {values['query']}")
            )
        for begin in range(0, len(ids), _CHUNK):
            self._judge(number, begin, ids[begin : begin + _CHUNK], opinion, actor, previewed_at)
        return number

    def _judge(self, number: int, begin: int, ids: list[str], opinion: Opinion, actor: Actor, previewed_at: int) -> None:
        now = self._clock.now_ms()
        with self._database.changing() as connection:
            if connection.execute(select(bulks.c.undone_at).where(bulks.c.number == number)).scalar() is not None:
                return  # undone while it was being given
            rows = {row.alert_id: row for row in connection.execute(select(alerts).where(alerts.c.alert_id.in_(ids)))}
            results = {alert_id: _result(rows.get(alert_id), actor, previewed_at, now) for alert_id in ids}
            chosen = [rows[alert_id] for alert_id, result in results.items() if result is ItemResult.DONE]
            if chosen:
                store_verdicts(connection, self._database, chosen, opinion, actor, now, now + self._policy.bulk_grace_ms, number)
            items = [
                {"bulk": number, "position": begin + place, "alert_id": alert_id, "result": result.value}
                for place, (alert_id, result) in enumerate(results.items())
            ]
            connection.execute(insert(bulk_items), items)

    def undo(self, number: int, actor: Actor) -> None:
        """
        Undo a bulk verdict. Verdicts that have left for Kafka, or that a later verdict has replaced, stay.

        Raises:
            AccessError: if the actor may not judge many alerts at once.
            NotFoundError: if there is no such bulk verdict.
            ConflictError: if it was undone before.
        """
        actor.require(Permission.LEAD)
        with self._database.changing() as connection:
            bulk = connection.execute(select(bulks).where(bulks.c.number == number)).first()
            if bulk is None:
                raise NotFoundError(f"no bulk verdict {number}")
            if bulk.undone_at is not None:
                raise ConflictError(f"bulk verdict {number} was undone before")
            connection.execute(update(bulks).where(bulks.c.number == number).values(undone_at=self._clock.now_ms()))
            self._database.audit.record(connection, Event(actor.name, "bulk verdict undone", f"bulk {number}", ""))
            done = (bulk_items.c.bulk == number) & (bulk_items.c.result == ItemResult.DONE.value)
            ids = list(connection.execute(select(bulk_items.c.alert_id).where(done)).scalars())
        for begin in range(0, len(ids), _CHUNK):
            self._restore(number, ids[begin : begin + _CHUNK], actor)

    def _restore(self, number: int, ids: list[str], actor: Actor) -> None:
        with self._database.changing() as connection:
            last = (
                select(func.max(verdicts.c.number))
                .where(verdicts.c.alert_id.in_(ids), verdicts.c.state != VerdictState.UNDONE.value)
                .group_by(verdicts.c.alert_id)
            )
            now = self._clock.now_ms()
            undoable = (verdicts.c.state == VerdictState.WAITING.value) & (verdicts.c.publish_after > now)
            which = verdicts.c.number.in_(last) & (verdicts.c.bulk == number) & undoable
            rows: list[Any] = list(connection.execute(select(verdicts).where(which)))
            restore(connection, self._database, rows, actor, now)
            undone = {row.alert_id for row in rows}
            for result, chosen in ((ItemResult.UNDONE, undone), (ItemResult.LEFT, set(ids) - undone)):
                items = (bulk_items.c.bulk == number) & bulk_items.c.alert_id.in_(chosen)
                connection.execute(update(bulk_items).where(items).values(result=result.value))

    def get(self, number: int) -> Bulk:
        """
        Return a bulk verdict.

        Raises:
            NotFoundError: if there is none with this number.
        """
        counted = select(bulk_items.c.result, func.count()).where(bulk_items.c.bulk == number).group_by(bulk_items.c.result)
        with self._database.reading() as connection:
            row = connection.execute(select(bulks).where(bulks.c.number == number)).first()
            results = {ItemResult(result): count for result, count in connection.execute(counted)}
        if row is None:
            raise NotFoundError(f"no bulk verdict {number}")
        return Bulk(number, row.given_by, row.given_at, row.query, Finding(row.finding), row.undone_at, results)

    def items(self, number: int, after: int = -1, limit: int = 200) -> list[BulkItem]:
        """Return the alerts of a bulk verdict behind a position, in their order."""
        wanted = select(bulk_items).where(bulk_items.c.bulk == number, bulk_items.c.position > after)
        with self._database.reading() as connection:
            rows = connection.execute(wanted.order_by(bulk_items.c.position).limit(limit))
            return [BulkItem(row.position, row.alert_id, ItemResult(row.result)) for row in rows]

    def _open(self, wanted: AlertFilter, actor: Actor) -> Any:
        return condition(wanted, actor, self._clock) & (alerts.c.state != AlertState.CLOSED.value)


def _result(row: Any, actor: Actor, previewed_at: int, now: int) -> ItemResult:
    if row is None or row.state == AlertState.CLOSED or row.changed_at > previewed_at:
        return ItemResult.CHANGED
    if row.claimed_by not in (None, actor.name) and row.claimed_until > now:
        return ItemResult.CLAIMED
    return ItemResult.DONE
