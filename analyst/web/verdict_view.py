"""Verdicts as pages show them: the form, given verdicts, and the conflict of two."""

from typing import Final

from msgspec import Struct

from analyst.access.roles import Actor, Permission
from analyst.queue import QueuedAlert
from analyst.verdicts import GivenVerdict, VerdictState
from analyst.web.queue_view import Option
from analyst.web.rendering import duration, instant, text
from core.display import quoted
from core.errors import VerdictConflict
from core.messages import TYPOLOGIES, ClosingReason, Finding, Opinion, Verdict
from explain.words import Writer

_KEYS: Final = {Finding.FRAUD: "f", Finding.LEGITIMATE: "l", Finding.ESCALATE: "e"}
SNOOZES: Final = (30, 120, 480, 1_440)  # minutes


class FindingButton(Struct, frozen=True):
    """A button that gives a verdict, and its key."""

    value: str
    words: str
    key: str


class VerdictForm(Struct, frozen=True):
    """The form for a verdict. ``version`` is the version of the alert that the reader sees."""

    address: str
    version: int
    query: str
    buttons: list[FindingButton]
    typologies: list[Option]
    reasons: list[Option]
    snoozes: list[Option]


class VerdictView(Struct, frozen=True):
    """A given verdict. ``undone`` verdicts are shown crossed out."""

    finding: str
    finding_words: str
    details: str
    by: str
    when: str
    note: str
    state: str
    undone: bool


class ConflictView(Struct, frozen=True):
    """Two verdicts on the same alert: the one that counts, and the refused one, which can be given again."""

    alert_id: str
    address: str
    version: int
    theirs: VerdictView | None
    mine: VerdictView
    finding: str
    typology: str
    closing_reason: str
    note: str
    query: str


class UndoView(Struct, frozen=True):
    """The offer to undo a verdict that was just given."""

    address: str
    number: int
    words: str


def verdict_form(words: Writer, queued: QueuedAlert, query: str) -> VerdictForm:
    """Return the form for a verdict on an alert; the likely typology is preselected."""
    likely = queued.explanation.typology.name if queued.explanation and queued.explanation.typology else ""
    return VerdictForm(
        address=f"/alerts/{queued.alert.alert_id}",
        version=queued.version,
        query=query,
        buttons=finding_buttons(words),
        typologies=typology_options(words, likely),
        reasons=closing_options(words),
        snoozes=[Option(str(minutes), duration(words, minutes * 60_000), False) for minutes in SNOOZES],
    )


def finding_buttons(words: Writer) -> list[FindingButton]:
    """Return one button per finding."""
    return [FindingButton(one.value, words.words(f"ui-finding-{one}"), _KEYS[one]) for one in Finding]


def typology_options(words: Writer, chosen: str) -> list[Option]:
    """Return the typologies to choose from."""
    nothing = Option("", words.words("ui-typology-if-fraud"), not chosen)
    return [nothing, *(Option(name, words.code(name), name == chosen) for name in TYPOLOGIES)]


def closing_options(words: Writer) -> list[Option]:
    """Return the closing reasons to choose from."""
    nothing = Option("", words.words("ui-closing-reason"), True)
    return [nothing, *(Option(one.value, words.words(f"ui-reason-{one}"), False) for one in ClosingReason)]


def may_judge(given: list[GivenVerdict], reader: Actor) -> bool:
    """Return whether a reader may judge an alert with these verdicts: once it was escalated, it is for leads."""
    standing = [one.verdict.finding for one in given if one.state is not VerdictState.UNDONE]
    return reader.may(Permission.LEAD if Finding.ESCALATE in standing else Permission.WORK)


def verdict_view(words: Writer, verdict: Verdict, state: VerdictState | None = None) -> VerdictView:
    """Return a given verdict."""
    details = [typology_words(words, verdict.typology)] if verdict.typology else []
    details += [words.words(f"ui-reason-{verdict.closing_reason}")] if verdict.closing_reason else []
    return VerdictView(
        finding=verdict.finding.value,
        finding_words=words.words(f"ui-finding-{verdict.finding}"),
        details=", ".join(details),
        by=verdict.analyst,
        when=instant(words, verdict.verdict_time),
        note=quoted(verdict.note, 2_000),
        state=words.words(f"ui-verdict-{state}") if state else "",
        undone=state is VerdictState.UNDONE,
    )


def undo_view(words: Writer, given: list[GivenVerdict], reader: Actor, now: int) -> UndoView | None:
    """Return the offer to undo the last verdict on an alert, if the reader may still do so."""
    standing = [one for one in given if one.state is not VerdictState.UNDONE]
    if not standing or standing[-1].state is not VerdictState.WAITING or standing[-1].publish_after <= now:
        return None
    last = standing[-1]
    if last.verdict.analyst != reader.name and not reader.may(Permission.LEAD):
        return None
    finding = words.words(f"ui-finding-{last.verdict.finding}")
    left = duration(words, max(last.publish_after - now, 0))
    return UndoView(
        f"/alerts/{last.verdict.alert_id}/undo",
        last.number,
        words.words("ui-verdict-recorded", finding=text(finding), left=text(left)),
    )


def conflict_view(error: VerdictConflict, words: Writer, query: str) -> ConflictView:
    """Return the page that shows two verdicts on the same alert. ``query`` is the filter of the queue from which the reader came."""
    mine: Opinion = error.mine
    details = [words.code(mine.typology)] if mine.typology else []
    details += [words.words(f"ui-reason-{mine.closing_reason}")] if mine.closing_reason else []
    return ConflictView(
        alert_id=error.alert_id,
        address=f"/alerts/{error.alert_id}",
        version=error.version,
        theirs=verdict_view(words, error.theirs) if error.theirs else None,
        mine=VerdictView(
            mine.finding.value,
            words.words(f"ui-finding-{mine.finding}"),
            ", ".join(details),
            "",
            "",
            quoted(mine.note, 2_000),
            "",
            False,
        ),
        finding=mine.finding.value,
        typology=mine.typology or "",
        closing_reason=mine.closing_reason or "",
        note=mine.note or "",
        query=query,
    )


def typology_words(words: Writer, typology: str) -> str:
    """Write a typology; one that this version does not know is shown as it is."""
    return words.code(typology) if typology in TYPOLOGIES else quoted(typology)
