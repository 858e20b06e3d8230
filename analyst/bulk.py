"""The same verdict on many alerts: preview, give, undo."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, delete, func, insert, select, update

from analyst.access.roles import Actor, Permission
from analyst.audit import Event
from analyst.listing import AlertFilter, AlertRow, Listing, condition, sort_keys
from analyst.queue import AlertState, Queue
from analyst.tables import alerts, bulk_items, bulks, verdicts
from analyst.verdicts import VerdictState, checked, restore, store_verdicts
from core.clock import MS_PER_DAY
from core.errors import AccessError, ConflictError, NotFoundError
from core.messages import Opinion

MOST: Final = 10_000  # alerts in one bulk verdict
_SHOWN: Final = 10  # rows of a preview
_CHUNK: Final = 500  # alerts in one transaction, so that others are not kept waiting


class ItemResult(StrEnum):
    """What happened to one alert of a bulk verdict."""

    DONE = "done"
    CLAIMED = "claimed"  # somebody else works on it
    CHANGED = "changed"  # it changed after the preview
    UNDONE = "undone"
    LEFT = "left"  # its verdict could not be undone any more: it left for Kafka, or a later one replaced it


class Preview(NamedTuple):
    """
    What a bulk verdict would judge: the number of alerts, their first rows, and the number under which the verdict can be given.

    ``number`` is None if there are no alerts or too many.
    """

    alerts: int
    rows: list[AlertRow]
    number: int | None


class Bulk(Struct, frozen=True):
    """A bulk verdict with the number of its alerts by result; before it is given, ``opinion`` and ``given_at`` are None."""

    number: int
    made_by: str
    made_at: int
    query: str
    opinion: Opinion | None
    given_at: int | None
    undone_at: int | None
    results: dict[ItemResult, int]


class BulkItem(NamedTuple):
    """An alert of a bulk verdict; ``result`` is None until the verdict has been given on it."""

    position: int
    alert_id: str
    result: ItemResult | None


class Bulks:
    """Bulk verdicts of a queue."""

    def __init__(self, queue: Queue, listing: Listing) -> None:
        self._database, self._clock, self._policy, self._listing = queue.database, queue.clock, queue.policy, listing

    def preview(self, wanted: AlertFilter, actor: Actor) -> Preview:
        """
        Return what a verdict on all open alerts of a filter would judge. The alerts and their versions are stored, so that the
        verdict applies to exactly these.

        Raises:
            AccessError: if the actor may not judge many alerts at once.
        """
        actor.require(Permission.LEAD)
        which = condition(wanted, actor, self._clock) & (alerts.c.state != AlertState.CLOSED.value)
        query = select(alerts.c.alert_id, alerts.c.version).where(which).order_by(*sort_keys(wanted.order)).limit(MOST + 1)
        with self._database.changing() as connection:
            now = self._clock.now_ms()
            found = connection.execute(query).all()
            number = None
            if 0 < len(found) <= MOST:
                self._forget_old(connection, now)
                row = {"made_by": actor.name, "made_at": now, "query": wanted.query()}
                key = connection.execute(insert(bulks).values(row)).inserted_primary_key
                number = int(key[0]) if key else 0
                items = [
                    {"bulk": number, "position": place, "alert_id": one.alert_id, "version": one.version}
                    for place, one in enumerate(found)
                ]
                connection.execute(insert(bulk_items), items)
        return Preview(len(found), self._listing.rows([one.alert_id for one in found[:_SHOWN]]), number)

    @staticmethod
    def _forget_old(connection: Connection, now: int) -> None:
        """Delete previews that were not followed by a verdict."""
        old = select(bulks.c.number).where(bulks.c.given_at.is_(None), bulks.c.made_at < now - MS_PER_DAY)
        connection.execute(delete(bulk_items).where(bulk_items.c.bulk.in_(old)))
        connection.execute(delete(bulks).where(bulks.c.given_at.is_(None), bulks.c.made_at < now - MS_PER_DAY))

    def give(self, number: int, opinion: Opinion, actor: Actor) -> None:
        """
        Give the same verdict on all alerts of a preview. Alerts that changed after the preview, and alerts that somebody else has
        claimed, are left alone. After an interruption, giving the same verdict again continues with the rest.

        Raises:
            AccessError: if the actor may not judge many alerts at once, or the preview is somebody else's.
            InputError: if the opinion is not valid.
            NotFoundError: if there is no such preview.
            ConflictError: if the verdict was given before.
        """
        actor.require(Permission.LEAD)
        opinion = checked(opinion)
        with self._database.changing() as connection:
            row = _row(connection, number)
            if row.made_by != actor.name:
                raise AccessError(f"the preview {number} is {row.made_by}'s: make your own")
            if row.undone_at is not None or not self._waiting(connection, number):
                raise ConflictError(f"the bulk verdict {number} was given before")
            if row.opinion is None:
                values = {"opinion": msgspec.json.encode(opinion).decode(), "given_at": self._clock.now_ms()}
                connection.execute(update(bulks).where(bulks.c.number == number).values(values))
                self._database.audit.record(
                    connection, Event(actor.name, "bulk verdict", f"bulk {number}", f"{opinion.finding}: {row.query}")
                )
            elif msgspec.json.decode(row.opinion, type=Opinion) != opinion:
                raise ConflictError(f"the bulk verdict {number} was begun with another opinion")
        while self._judge(number, opinion, actor):
            pass

    @staticmethod
    def _waiting(connection: Connection, number: int, limit: int = 1) -> list[Any]:
        waiting = (bulk_items.c.bulk == number) & bulk_items.c.result.is_(None)
        return list(connection.execute(select(bulk_items).where(waiting).order_by(bulk_items.c.position).limit(limit)))

    def _judge(self, number: int, opinion: Opinion, actor: Actor) -> bool:
        """Judge the next alerts; return whether there were any."""
        with self._database.changing() as connection:
            now = self._clock.now_ms()
            items = self._waiting(connection, number, _CHUNK)
            if not items or _row(connection, number).undone_at is not None:
                return False  # finished, or undone while it was being given
            ids = [item.alert_id for item in items]
            rows = {row.alert_id: row for row in connection.execute(select(alerts).where(alerts.c.alert_id.in_(ids)))}
            results = {item.alert_id: _result(rows.get(item.alert_id), item.version, actor, now) for item in items}
            chosen = [rows[alert_id] for alert_id, result in results.items() if result is ItemResult.DONE]
            if chosen:
                publish_after = now + self._policy.bulk_grace_ms
                store_verdicts(connection, self._database, chosen, opinion, actor, now, publish_after, number)
            for result in ItemResult:
                self._set(connection, number, [alert_id for alert_id, one in results.items() if one is result], result)
        return True

    @staticmethod
    def _set(connection: Connection, number: int, ids: Sequence[str], result: ItemResult) -> None:
        if ids:
            which = (bulk_items.c.bulk == number) & bulk_items.c.alert_id.in_(ids)
            connection.execute(update(bulk_items).where(which).values(result=result.value))

    def undo(self, number: int, actor: Actor) -> None:
        """
        Undo a bulk verdict. Verdicts that have left for Kafka, or that a later verdict has replaced, stay.

        Raises:
            AccessError: if the actor may not judge many alerts at once.
            NotFoundError: if there is no such bulk verdict.
            ConflictError: if nothing is left to undo.
        """
        actor.require(Permission.LEAD)
        with self._database.changing() as connection:
            _row(connection, number)
            if not self._done(connection, number):
                raise ConflictError(f"nothing of bulk verdict {number} is left to undo")
            connection.execute(update(bulks).where(bulks.c.number == number).values(undone_at=self._clock.now_ms()))
            self._database.audit.record(connection, Event(actor.name, "bulk verdict undone", f"bulk {number}", ""))
        while self._restore(number, actor):
            pass

    @staticmethod
    def _done(connection: Connection, number: int, limit: int = 1) -> list[str]:
        done = (bulk_items.c.bulk == number) & (bulk_items.c.result == ItemResult.DONE.value)
        wanted = select(bulk_items.c.alert_id).where(done).order_by(bulk_items.c.position).limit(limit)
        return list(connection.execute(wanted).scalars())

    def _restore(self, number: int, actor: Actor) -> bool:
        """Undo the verdicts on the next alerts; return whether there were any."""
        with self._database.changing() as connection:
            now = self._clock.now_ms()
            ids = self._done(connection, number, _CHUNK)
            last = (
                select(func.max(verdicts.c.number))
                .where(verdicts.c.alert_id.in_(ids), verdicts.c.state != VerdictState.UNDONE.value)
                .group_by(verdicts.c.alert_id)
            )
            undoable = (verdicts.c.state == VerdictState.WAITING.value) & (verdicts.c.publish_after > now)
            which = verdicts.c.number.in_(last) & (verdicts.c.bulk == number) & undoable
            rows = list(connection.execute(select(verdicts).where(which)))
            restore(connection, self._database, rows, actor, now)
            undone = {row.alert_id for row in rows}
            self._set(connection, number, sorted(undone), ItemResult.UNDONE)
            self._set(connection, number, sorted(set(ids) - undone), ItemResult.LEFT)
        return bool(ids)

    def get(self, number: int) -> Bulk:
        """
        Return a bulk verdict.

        Raises:
            NotFoundError: if there is none with this number.
        """
        counted = select(bulk_items.c.result, func.count()).where(bulk_items.c.bulk == number).group_by(bulk_items.c.result)
        with self._database.reading() as connection:
            row = _row(connection, number)
            results = {ItemResult(result): count for result, count in connection.execute(counted) if result}
        opinion = msgspec.json.decode(row.opinion, type=Opinion) if row.opinion else None
        return Bulk(number, row.made_by, row.made_at, row.query, opinion, row.given_at, row.undone_at, results)

    def recent(self, limit: int = 10) -> list[Bulk]:
        """Return the newest bulk verdicts that were given, newest first."""
        wanted = select(bulks.c.number).where(bulks.c.given_at.is_not(None)).order_by(bulks.c.number.desc()).limit(limit)
        with self._database.reading() as connection:
            numbers = list(connection.execute(wanted).scalars())
        return [self.get(number) for number in numbers]

    def items(self, number: int, after: int = -1, limit: int = 200) -> list[BulkItem]:
        """Return the alerts of a bulk verdict behind a position, in their order."""
        wanted = select(bulk_items).where(bulk_items.c.bulk == number, bulk_items.c.position > after)
        with self._database.reading() as connection:
            rows = connection.execute(wanted.order_by(bulk_items.c.position).limit(limit))
            return [BulkItem(row.position, row.alert_id, ItemResult(row.result) if row.result else None) for row in rows]


def _row(connection: Connection, number: int) -> Any:
    row = connection.execute(select(bulks).where(bulks.c.number == number)).first()
    if row is None:
        raise NotFoundError(f"no bulk verdict {number}")
    return row


def _result(row: Any, version: int, actor: Actor, now: int) -> ItemResult:
    if row is None or row.state == AlertState.CLOSED or row.version != version:
        return ItemResult.CHANGED
    if row.claimed_by not in (None, actor.name) and row.claimed_until > now:
        return ItemResult.CLAIMED
    return ItemResult.DONE
