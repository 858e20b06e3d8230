"""
Audit trail: who did what and when.

Each entry holds the hash of the previous entry, so a changed, inserted or removed entry is detected. The hashes are HMACs with
the audit key, so that nobody can sign a changed trail without the key. The trail's last hash is published to Kafka regularly (see
``streams.relay``), so that a trail cut off or signed again is detected, too. Entries of version 0.1 have plain SHA-256 hashes
(scheme 1); they can only stand at the beginning.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Struct
from sqlalchemy import Connection, func, insert, select

from analyst.tables import audit, audit_anchors
from core.clock import Clock
from core.messages import AuditAnchor

FIRST = "0" * 64
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


class AuditTrail:
    """The audit trail of one database."""

    def __init__(self, clock: Clock, key: bytes = b"") -> None:
        self._clock, self._key = clock, key

    def record(self, connection: Connection, *events: Event) -> None:
        """Append entries in the same database transaction as the change that they record. The transaction must hold the lock."""
        last = connection.execute(select(audit.c.number, audit.c.hash).order_by(audit.c.number.desc()).limit(1)).first()
        number, previous = (last.number, last.hash) if last else (0, FIRST)
        at, rows = self._clock.now_ms(), []
        for event in events:
            number += 1
            signature = self._hash(_KEYED, number, at, *event, previous)
            rows.append(
                {"number": number, "at": at, **event._asdict(), "previous": previous, "hash": signature, "scheme": _KEYED}
            )
            previous = signature
        if rows:
            connection.execute(insert(audit), rows)

    def first_broken(self, connection: Connection, anchors: Iterable[AuditAnchor] = ()) -> int | None:
        """
        Return the number of the first entry that breaks the chain or contradicts an anchor; None if there is none.

        ``anchors`` are the heads of the chain that were published.
        """
        hashes: dict[int, set[str]] = {}
        for anchor in anchors:
            hashes.setdefault(anchor.number, set()).add(anchor.hash)
        if twice := [number for number, found in hashes.items() if len(found) > 1]:
            return min(twice)  # the trail was cut off and grew again
        previous, expected, scheme = FIRST, 1, _PLAIN
        for row in connection.execute(select(audit).order_by(audit.c.number)).yield_per(1_000):
            scheme = max(scheme, row.scheme)
            wanted = self._hash(scheme, row.number, row.at, row.actor, row.action, row.subject, row.detail, row.previous)
            intact = (row.number, row.previous, row.scheme) == (expected, previous, scheme)
            if not intact or not hmac.compare_digest(row.hash, wanted) or hashes.get(expected, {row.hash}) != {row.hash}:
                return expected
            previous, expected = row.hash, expected + 1
        return next((number for number in sorted(hashes) if number >= expected), None) and expected

    def _hash(self, scheme: int, *fields: object) -> str:
        content = json.dumps(fields).encode()
        return (hashlib.sha256(content) if scheme == _PLAIN else hmac.new(self._key, content, hashlib.sha256)).hexdigest()

    def new_anchor(self, connection: Connection) -> AuditAnchor | None:
        """Return the head of the chain if it should be published now: it has changed and the last anchor is a minute old."""
        head = connection.execute(select(audit.c.number, audit.c.hash).order_by(audit.c.number.desc()).limit(1)).first()
        now = self._clock.now_ms()
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


def entries(connection: Connection, subject: str | None = None, before: int | None = None, limit: int = 100) -> list[AuditEntry]:
    """Return the newest entries, newest first: those about a subject if it is given, and those with lower numbers than ``before``."""
    wanted = select(audit)
    if subject is not None:
        wanted = wanted.where(audit.c.subject == subject)
    if before is not None:
        wanted = wanted.where(audit.c.number < before)
    rows = connection.execute(wanted.order_by(audit.c.number.desc()).limit(limit))
    return [AuditEntry(row.number, row.at, row.actor, row.action, row.subject, row.detail) for row in rows]


def entry_count(connection: Connection) -> int:
    """Return the number of entries."""
    return int(connection.execute(select(func.count()).select_from(audit)).scalar_one())


def unkeyed_count(connection: Connection) -> int:
    """Return the number of entries of version 0.1, which were signed without a key."""
    return int(connection.execute(select(func.count()).select_from(audit).where(audit.c.scheme == _PLAIN)).scalar_one())
