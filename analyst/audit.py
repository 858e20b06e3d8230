"""
Audit trail: who did what and when.

Each entry holds the hash of the previous entry, so a changed, inserted or removed entry is detected. The hashes are HMACs with
the audit key, so that nobody can sign a changed trail without the key. The trail's last hash is published to Kafka regularly (see
``streams.relay``), so that a trail cut off or signed again is detected, too. Entries of version 0.1 have plain SHA-256 hashes
(scheme 1); they can only stand at the beginning.

The key can be changed: an entry signed with the new key, whose detail is signed with the former one, hands the trail over. The
entries that a restored backup lacks can be accepted as lost: an entry and an anchor name the first of them, and anchors of lost
entries are then ignored. Without the anchor in Kafka, the acceptance does not count, so the key and the database are not enough to
forge one.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, func, insert, select

from analyst.tables import audit, audit_anchors
from core.clock import Clock
from core.errors import AuditKeyError, InputError
from core.messages import AuditAnchor

FIRST = "0" * 64
KEY_CHANGED, LOSS_ACCEPTED = "audit key changed", "loss accepted"  # actions
_PLAIN, _KEYED = 1, 2
_ANCHOR_MS = 60_000  # a new head of the chain is published at most this often


class Event(NamedTuple):
    """What an entry records: who did what to which subject."""

    actor: str
    action: str
    subject: str
    detail: str


class AuditEntry(Struct, frozen=True):
    """An entry of the trail; ``at`` is in epoch ms."""

    number: int
    at: int
    actor: str
    action: str
    subject: str
    detail: str


class Loss(Struct, frozen=True):
    """Entries that a restored backup has lost, from ``first`` to at least ``newest``, and why that was accepted."""

    first: int
    newest: int
    why: str


class AcceptedLoss(NamedTuple):
    """A loss, and the entry that accepts it."""

    loss: Loss
    entry: AuditEntry

    def excuses(self, anchor: AuditAnchor) -> bool:
        """Whether the anchor may be of the lost part of the trail."""
        return self.loss.first <= anchor.number <= self.loss.newest and anchor.at <= self.entry.at


class TrailCheck(NamedTuple):
    """
    What a check of the trail found.

    ``first_broken`` is the number of the first entry that breaks the chain or contradicts an anchor; None if the trail is intact.
    ``anchored`` is the newest number that an anchor confirms. ``losses`` are the accepted losses that an anchor confirms. ``changes``
    are the numbers of the entries that changed the key. ``current`` is whether the last entry is signed with the present key.
    """

    first_broken: int | None
    anchored: int
    losses: list[AcceptedLoss]
    changes: list[int]
    current: bool


class AuditTrail:
    """The audit trail of one database."""

    def __init__(self, clock: Clock, key: bytes = b"", former_keys: Sequence[bytes] = ()) -> None:
        """``former_keys`` are the keys that were used before; only checks and a change of the key need them."""
        self._clock, self._key, self._former = clock, key, [*former_keys]

    def record(self, connection: Connection, *events: Event) -> None:
        """
        Append entries in the same database transaction as the change that they record. The transaction must hold the lock.

        Raises:
            AuditKeyError: if the last entry has another key than this program's.
        """
        self._append(connection, self.require_key(connection), events)

    def require_key(self, connection: Connection) -> Any:
        """
        Return the last entry; None if the trail is empty.

        Raises:
            AuditKeyError: if the last entry has another key than this program's: one more entry would break the trail for ever.
        """
        last = _last(connection)
        if last is not None and last.scheme == _KEYED and not self._signed(last, self._key):
            raise AuditKeyError(
                f"entry {last.number}, the last one of the audit trail, was changed or has another key than WHYFLAG_AUDIT_KEY: give all "
                "programs the same key and restart this one; `whyflag audit verify` finds changed entries"
            )
        return last

    def change_key(self, connection: Connection, actor: str, from_no_key: bool = False, despite_broken: bool = False) -> int:
        """
        Hand the trail over to the present key, and return the number of the entry that does it. The transaction must hold the lock.

        ``from_no_key``: the trail may have been signed without a key, as anybody can. ``despite_broken``: the last entry may be one that
        no key verifies; the trail is then broken there for ever.

        Raises:
            AuditKeyError: if the last entry has the present key already, or a key that is not among the former ones.
        """
        last = _last(connection)
        if last is None or last.scheme == _PLAIN or self._signed(last, self._key):
            raise AuditKeyError("the audit trail needs no change: its last entry has the key of WHYFLAG_AUDIT_KEY, or none")
        former = next((key for key in [*self._former, *([b""] if from_no_key else [])] if self._signed(last, key)), None)
        if former is None and not despite_broken:
            raise AuditKeyError(
                f"entry {last.number}, the last one of the audit trail, has none of the keys in WHYFLAG_AUDIT_FORMER_KEYS: add its key. If "
                "there was none, use --from-no-key; if the entry is damaged, --despite-broken"
            )
        handover = "" if former is None else _hmac(former, _handover(last.number, last.hash, self._key))
        return self._append(connection, last, [Event(actor, KEY_CHANGED, "audit trail", handover)])

    def accept_loss(
        self, connection: Connection, anchors: Sequence[AuditAnchor], actor: str, why: str
    ) -> tuple[Loss, AuditAnchor]:
        """
        Record that the entries which the anchors name, but a restored backup does not have, are lost. The transaction must hold the lock.

        The loss counts only once the anchor that is returned has been published.

        Raises:
            AuditKeyError: if the last entry has another key than this program's.
            InputError: if the trail itself is broken, nothing is lost, or an anchor is dated after now.
        """
        newest = {anchor.number for anchor in anchors}
        if (broken := self.check(connection).first_broken) is not None:
            raise InputError(
                f"the trail is broken at entry {broken} even without its anchors: a loss explains only missing entries"
            )
        first = self.check(connection, anchors).first_broken
        if first is None:
            raise InputError("nothing is lost: the trail agrees with its anchors")
        loss = Loss(first, max(newest), why)
        self.record(connection, Event(actor, LOSS_ACCEPTED, "audit trail", msgspec.json.encode(loss).decode()))
        entry = _last(connection)
        anchor = AuditAnchor(number=entry.number, hash=entry.hash, at=self._clock.now_ms(), first_lost=first)
        if (still := self.check(connection, [*anchors, anchor]).first_broken) is not None:
            raise InputError(f"the loss does not explain entry {still}: an anchor is dated after now, so somebody else wrote it")
        return loss, anchor

    def check(self, connection: Connection, anchors: Iterable[AuditAnchor] = ()) -> TrailCheck:
        """Check the chain of entries, and that it agrees with the ``anchors``, the heads of the chain that were published."""
        published = list(anchors)
        wanted, hashes = {anchor.number for anchor in published}, dict[int, str]()
        confirmed = {(anchor.number, anchor.hash, anchor.first_lost) for anchor in published if anchor.first_lost}
        losses, changes = list[AcceptedLoss](), list[int]()
        previous, expected, scheme, key, broken = FIRST, 1, _PLAIN, b"", False
        for row in connection.execute(select(audit).order_by(audit.c.number)).yield_per(1_000):
            if row.scheme == _KEYED and scheme == _PLAIN:  # the first entry with a key
                # a trail may begin with the empty key: only an entry signed with the present key can end that part
                key = next((one for one in (self._key, *self._former, b"") if self._signed(row, one)), self._key)
            scheme = max(scheme, row.scheme)
            if row.action == KEY_CHANGED and (new := self._handed_over(row, key)) != key:
                key = new
                changes.append(row.number)
            in_order = (row.number, row.previous, row.scheme) == (expected, previous, scheme)
            if broken := not (in_order and self._signed(row, key)):
                break
            if row.number in wanted:
                hashes[row.number] = row.hash
            if row.action == LOSS_ACCEPTED:
                with suppress(msgspec.MsgspecError):  # without a key, anybody can write anything
                    loss = msgspec.json.decode(row.detail, type=Loss)
                    if (row.number, row.hash, loss.first) in confirmed:
                        losses.append(AcceptedLoss(loss, _entry(row)))
            previous, expected = row.hash, expected + 1
        contradicted = [
            min(anchor.number, expected)  # the first missing entry, if the trail was cut off
            for anchor in published
            if hashes.get(anchor.number) != anchor.hash and not any(accepted.excuses(anchor) for accepted in losses)
        ]
        first_broken = min([*contradicted, *([expected] if broken else [])], default=None)
        anchored = max((anchor.number for anchor in published if hashes.get(anchor.number) == anchor.hash), default=0)
        return TrailCheck(first_broken, anchored, losses, changes, current=scheme == _PLAIN or key == self._key)

    def _handed_over(self, row: Any, former: bytes) -> bytes:
        """Return the key that an entry hands the trail over to; ``former`` if it does not do so rightly."""
        for key in (*self._former, self._key):
            handover = _hmac(former, _handover(row.number - 1, row.previous, key))
            if self._signed(row, key) and hmac.compare_digest(row.detail.encode(), handover.encode()):
                return key
        return former

    def _append(self, connection: Connection, last: Any, events: Iterable[Event]) -> int:
        """Append entries after the entry ``last``, and return the number of the new last one."""
        number, previous = (last.number, last.hash) if last else (0, FIRST)
        at, rows = self._clock.now_ms(), []
        for event in events:
            number += 1
            signature = _hmac(self._key, (number, at, *event, previous))
            rows.append(
                {"number": number, "at": at, **event._asdict(), "previous": previous, "hash": signature, "scheme": _KEYED}
            )
            previous = signature
        if rows:
            connection.execute(insert(audit), rows)
        return number

    @staticmethod
    def _signed(row: Any, key: bytes) -> bool:
        """Whether an entry's hash is right, with ``key`` unless it is of version 0.1."""
        content = (row.number, row.at, row.actor, row.action, row.subject, row.detail, row.previous)
        wanted = hashlib.sha256(json.dumps(content).encode()).hexdigest() if row.scheme == _PLAIN else _hmac(key, content)
        return hmac.compare_digest(row.hash.encode(), wanted.encode())

    def new_anchor(self, connection: Connection) -> AuditAnchor | None:
        """Return the head of the chain if it should be published now: it has changed and the last anchor is a minute old."""
        head, now = _last(connection), self._clock.now_ms()
        if head is None:
            return None
        # rows that cannot be true are ignored: whoever can write to the table must not be able to stop the anchors
        true = (audit_anchors.c.number <= head.number) & (audit_anchors.c.at <= now)
        last = connection.execute(select(audit_anchors).where(true).order_by(audit_anchors.c.number.desc()).limit(1)).first()
        if last is not None and (last.number == head.number or now - last.at < _ANCHOR_MS):
            return None
        return AuditAnchor(number=head.number, hash=head.hash, at=now)

    @staticmethod
    def anchored(connection: Connection, anchor: AuditAnchor) -> None:
        """Record that Kafka has acknowledged an anchor."""
        connection.execute(insert(audit_anchors).values(number=anchor.number, hash=anchor.hash, at=anchor.at))


def _last(connection: Connection) -> Any:
    return connection.execute(select(audit).order_by(audit.c.number.desc()).limit(1)).first()


def _hmac(key: bytes, content: Sequence[object]) -> str:
    return hmac.new(key, json.dumps(content).encode(), hashlib.sha256).hexdigest()


def _handover(number: int, last_hash: str, key: bytes) -> tuple[object, ...]:
    """What the former key signs: the last entry that has it, and the new key, which must not be readable."""
    return "handover", number, last_hash, hashlib.sha256(key).hexdigest()


def _entry(row: Any) -> AuditEntry:
    return AuditEntry(row.number, row.at, row.actor, row.action, row.subject, row.detail)


def entries(connection: Connection, subject: str | None = None, before: int | None = None, limit: int = 100) -> list[AuditEntry]:
    """Return the newest entries, newest first: those about a subject if it is given, and those with lower numbers than ``before``."""
    wanted = select(audit)
    if subject is not None:
        wanted = wanted.where(audit.c.subject == subject)
    if before is not None:
        wanted = wanted.where(audit.c.number < before)
    rows = connection.execute(wanted.order_by(audit.c.number.desc()).limit(limit))
    return [_entry(row) for row in rows]


def entry_count(connection: Connection) -> int:
    """Return the number of entries."""
    return int(connection.execute(select(func.count()).select_from(audit)).scalar_one())


def unkeyed_count(connection: Connection) -> int:
    """Return the number of entries of version 0.1, which were signed without a key."""
    return int(connection.execute(select(func.count()).select_from(audit).where(audit.c.scheme == _PLAIN)).scalar_one())
