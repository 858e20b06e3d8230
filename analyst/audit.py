"""Audit trail: who did what and when. Each entry holds the hash of the previous entry, so that a changed entry is detected."""

import hashlib
import json

from sqlalchemy import Connection, insert, select

from analyst.tables import audit

FIRST = "0" * 64


def _digest(number: int, at: int, actor: str, action: str, subject: str, detail: str, previous: str) -> str:
    return hashlib.sha256(json.dumps([number, at, actor, action, subject, detail, previous]).encode()).hexdigest()


def record(connection: Connection, at: int, actor: str, action: str, subject: str, detail: str) -> None:
    """Append an entry in the same database transaction as the change that it records."""
    last = connection.execute(select(audit.c.number, audit.c.hash).order_by(audit.c.number.desc()).limit(1)).first()
    number, previous = (last.number + 1, last.hash) if last else (1, FIRST)
    digest = _digest(number, at, actor, action, subject, detail, previous)
    connection.execute(
        insert(audit).values(
            number=number, at=at, actor=actor, action=action, subject=subject, detail=detail, previous=previous, hash=digest
        )
    )


def first_broken(connection: Connection) -> int | None:
    """Return the number of the first entry that breaks the hash chain, or None if the chain is intact."""
    previous, expected = FIRST, 1
    for row in connection.execute(select(audit).order_by(audit.c.number)):
        digest = _digest(row.number, row.at, row.actor, row.action, row.subject, row.detail, row.previous)
        if row.number != expected or row.previous != previous or row.hash != digest:
            return expected
        previous, expected = row.hash, expected + 1
    return None
