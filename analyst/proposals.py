"""
Maker-checker: what one person proposes takes effect only when somebody else approves it.

Two kinds of change need approval: the block and allow lists, which rules refer to, and the table of next steps.
"""

import datetime as dt
import re
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, delete, insert, select, update

from analyst.access.roles import Actor, Permission
from analyst.audit import Event
from analyst.database import Database
from analyst.tables import audit, list_entries, next_step_tables, proposals
from core.clock import Clock
from core.errors import AccessError, ConflictError, InputError, NotFoundError, SettingsError
from core.messages import IDENTIFIER_FORM
from core.privacy.masking import WITHOUT_KEY
from explain.facts.next_step import NextSteps, load_next_steps, steps_from

_LONGEST_REASON: Final = 1_000
_IDENTIFIER: Final = re.compile(IDENTIFIER_FORM)
_STEPS_SECONDS: Final = 30.0
_YEARS: Final = 5  # an entry expires after at most this time


class ListName(StrEnum):
    """A list that rules refer to by the names ``block_card``, ``allow_merchant`` and so on."""

    BLOCK = "block"
    ALLOW = "allow"


class ListKey(StrEnum):
    """What the values of a list are."""

    CARD = "card"
    MERCHANT = "merchant"
    DEVICE = "device"


class ProposalState(StrEnum):
    """State of a proposal."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"


class AddEntry(Struct, frozen=True, tag="add entry", forbid_unknown_fields=True):
    """Put a value on a list until a day (exclusive), written as YYYY-MM-DD."""

    list: ListName
    key: ListKey
    value: str
    expires_on: str


class RemoveEntry(Struct, frozen=True, tag="remove entry", forbid_unknown_fields=True):
    """Take a value off a list."""

    list: ListName
    key: ListKey
    value: str


class ReplaceSteps(Struct, frozen=True, tag="replace steps", forbid_unknown_fields=True):
    """Replace the table of next steps, given as TOML."""

    toml: str


Change = AddEntry | RemoveEntry | ReplaceSteps


class Proposal(Struct, frozen=True):
    """A proposed change; times are in epoch ms."""

    number: int
    change: Change
    reason: str
    proposed_by: str
    proposed_at: int
    state: ProposalState
    decided_by: str | None
    decided_at: int | None


class ListEntry(Struct, frozen=True):
    """A value on a list; ``proposal`` is the number of the proposal that put it there."""

    list: ListName
    key: ListKey
    value: str
    expires_on: str
    proposal: int


class Proposals:
    """The proposals of a database, the lists and the next steps that result from them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def propose(self, actor: Actor, change: Change, reason: str) -> int:
        """
        Propose a change and return the proposal's number.

        Raises:
            AccessError: if the actor may not propose changes.
            InputError: if the change is not valid or the reason is missing.
        """
        actor.require(Permission.PROPOSE)
        change = self._checked(change)
        if not 1 <= len(reason.strip()) <= _LONGEST_REASON:
            raise InputError(f"give a reason of 1 to {_LONGEST_REASON} characters")
        content = msgspec.json.encode(change).decode()
        row = {
            "kind": type(change).__struct_config__.tag, "content": content,
            "reason": WITHOUT_KEY.text(reason.strip()), "proposed_by": actor.name, "proposed_at": self._clock.now_ms(),
            "state": ProposalState.PENDING.value,
        }  # fmt: skip
        with self._database.changing() as connection:
            if isinstance(change, RemoveEntry) and _entry(connection, change) is None:
                raise NotFoundError(f"{change.value} is not on the list {change.list}_{change.key}")
            key = connection.execute(insert(proposals).values(row)).inserted_primary_key
            number = int(key[0]) if key else 0
            self._record(connection, actor, "proposed", number, content)
        return number

    def approve(self, actor: Actor, number: int) -> None:
        """
        Approve a proposal and apply its change.

        Raises:
            AccessError: if the actor may not approve, or has made the proposal.
            NotFoundError: if there is no such proposal.
            ConflictError: if it is not pending any more.
        """
        actor.require(Permission.APPROVE)
        with self._database.changing() as connection:
            proposal = self._pending(connection, number)
            if proposal.proposed_by == actor.name:
                raise AccessError("you cannot approve what you have proposed: ask somebody else")
            self._check_recorded(connection, proposal)
            self._decide(connection, actor, number, ProposalState.APPROVED)
            self._apply(connection, proposal)

    def reject(self, actor: Actor, number: int) -> None:
        """
        Reject a proposal, or withdraw one's own.

        Raises:
            AccessError: if the actor may not reject proposals and has not made this one.
            NotFoundError: if there is no such proposal.
            ConflictError: if it is not pending any more.
        """
        with self._database.changing() as connection:
            proposal = self._pending(connection, number)
            own = proposal.proposed_by == actor.name
            actor.require(Permission.PROPOSE if own else Permission.APPROVE)
            self._decide(connection, actor, number, ProposalState.WITHDRAWN if own else ProposalState.REJECTED)

    def all(self, pending: bool, limit: int = 100) -> list[Proposal]:
        """Return the newest proposals: only pending ones, or all."""
        wanted = select(proposals).order_by(proposals.c.number.desc()).limit(limit)
        if pending:
            wanted = wanted.where(proposals.c.state == ProposalState.PENDING.value)
        with self._database.reading() as connection:
            return [_proposal(row) for row in connection.execute(wanted)]

    def entries(self) -> list[ListEntry]:
        """Return the entries of all lists that have not expired."""
        wanted = select(list_entries).where(list_entries.c.expires_on > self._today().isoformat())
        order = (list_entries.c.list, list_entries.c.key, list_entries.c.value)
        with self._database.reading() as connection:
            return [
                ListEntry(ListName(row.list), ListKey(row.key), row.value, row.expires_on, row.proposal)
                for row in connection.execute(wanted.order_by(*order))
            ]

    def entries_about(self, key: ListKey, value: str) -> list[ListEntry]:
        """Return the entries about a card, merchant or device."""
        return [entry for entry in self.entries() if (entry.key, entry.value) == (key, value)]

    def next_steps(self, given: str = "") -> NextSteps:
        """
        Return the approved table of next steps; without one, the table in the file ``given`` or the built-in one.

        Raises:
            SettingsError: if the file cannot be used.
        """
        with self._database.reading() as connection:
            content = self._steps_text(connection)
        return load_next_steps(given) if content is None else steps_from(content, "the approved table of next steps")

    def steps_text(self) -> str | None:
        """Return the approved table of next steps as TOML, or None."""
        with self._database.reading() as connection:
            return self._steps_text(connection)

    def _steps_text(self, connection: Connection) -> str | None:
        table = next_step_tables
        return connection.execute(select(table.c.content).order_by(table.c.number.desc()).limit(1)).scalar()

    def _checked(self, change: Change) -> Change:
        if isinstance(change, ReplaceSteps):
            try:
                steps_from(change.toml, "the table of next steps")
            except SettingsError as error:
                raise InputError(str(error)) from None
            return change
        value = WITHOUT_KEY.text(change.value.strip())
        if value != change.value.strip():
            raise InputError("the value looks like a card number or personal data: use the token that whyflag shows instead")
        if not 1 <= len(value) <= 128 or not _IDENTIFIER.fullmatch(value):
            raise InputError("the value is not an ID of 1 to 128 visible characters")
        if isinstance(change, AddEntry):
            try:
                day = dt.date.fromisoformat(change.expires_on)
            except ValueError:
                raise InputError("give the day on which the entry expires as YYYY-MM-DD") from None
            if not self._today() < day <= self._today() + dt.timedelta(days=366 * _YEARS):
                raise InputError(f"the entry must expire after today and within {_YEARS} years")
        return msgspec.structs.replace(change, value=value)

    def _pending(self, connection: Connection, number: int) -> Proposal:
        row = connection.execute(select(proposals).where(proposals.c.number == number)).first()
        if row is None:
            raise NotFoundError(f"no proposal {number}")
        if row.state != ProposalState.PENDING:
            raise ConflictError(f"proposal {number} is {row.state} already")
        return _proposal(row)

    def _check_recorded(self, connection: Connection, proposal: Proposal) -> None:
        """
        Check that a proposal is still what was proposed.

        Raises:
            ConflictError: if its content is not the one that the audit trail holds.
        """
        where = (audit.c.subject == f"proposal {proposal.number}") & (audit.c.action == "proposal proposed")
        recorded = connection.execute(select(audit.c.detail).where(where)).scalar()
        if recorded != msgspec.json.encode(proposal.change).decode():
            raise ConflictError(
                f"proposal {proposal.number} is not what was proposed, according to the audit trail: run `whyflag audit verify`"
            )

    def _decide(self, connection: Connection, actor: Actor, number: int, state: ProposalState) -> None:
        values = {"state": state.value, "decided_by": actor.name, "decided_at": self._clock.now_ms()}
        connection.execute(update(proposals).where(proposals.c.number == number).values(values))
        self._record(connection, actor, state.value, number, "")

    def _record(self, connection: Connection, actor: Actor, action: str, number: int, detail: str) -> None:
        self._database.audit.record(connection, Event(actor.name, f"proposal {action}", f"proposal {number}", detail))

    def _apply(self, connection: Connection, proposal: Proposal) -> None:
        change = proposal.change
        if isinstance(change, ReplaceSteps):
            connection.execute(insert(next_step_tables).values(content=change.toml, proposal=proposal.number))
            return
        connection.execute(delete(list_entries).where(_place(change)))
        if isinstance(change, AddEntry):
            row = {"list": change.list.value, "key": change.key.value, "value": change.value, "expires_on": change.expires_on}
            connection.execute(insert(list_entries).values(row | {"proposal": proposal.number}))

    def _today(self) -> dt.date:
        return dt.datetime.fromtimestamp(self._clock.now_ms() / 1000, dt.UTC).date()


class ApprovedSteps:
    """The table of next steps in force, read from the database at most every 30 s."""

    def __init__(self, proposals: Proposals, given: str) -> None:
        """``given`` is the file that holds as long as no table was approved; empty: the built-in table."""
        self._proposals, self._given = proposals, given
        self._steps: NextSteps | None = None
        self._read_at = 0.0

    def current(self) -> NextSteps:
        """Return the table."""
        if self._steps is None or time.monotonic() - self._read_at > _STEPS_SECONDS:
            self._steps, self._read_at = self._proposals.next_steps(self._given), time.monotonic()
        return self._steps


def list_files(entries: Sequence[ListEntry]) -> dict[str, str]:
    """
    Return the lists as files for rules: by name, such as ``block_card.txt``, one value per line.

    Every list has a file, even an empty one, so that rules can refer to it.
    """
    return {
        f"{name}_{key}.txt": "".join(f"{entry.value}\n" for entry in entries if (entry.list, entry.key) == (name, key))
        for name in ListName
        for key in ListKey
    }


def _place(change: AddEntry | RemoveEntry) -> Any:
    table = list_entries.c
    return (table.list == change.list.value) & (table.key == change.key.value) & (table.value == change.value)


def _entry(connection: Connection, change: RemoveEntry) -> Any:
    return connection.execute(select(list_entries).where(_place(change))).first()


def _proposal(row: Any) -> Proposal:
    return Proposal(
        number=row.number,
        change=msgspec.json.decode(row.content, type=Change),
        reason=row.reason,
        proposed_by=row.proposed_by,
        proposed_at=row.proposed_at,
        state=ProposalState(row.state),
        decided_by=row.decided_by,
        decided_at=row.decided_at,
    )
