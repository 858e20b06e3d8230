"""Block and allow lists and the table of next steps, with proposals and their approval."""

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from msgspec import Struct

from analyst.access.roles import Actor, Permission
from analyst.graph import Node
from analyst.proposals import AddEntry, ListKey, ListName, Proposal, ProposalState, RemoveEntry, ReplaceSteps
from analyst.web.entity_view import address_of
from analyst.web.guard import Approver, Proposer, Reader
from analyst.web.queue_view import Option
from analyst.web.rendering import Number, instant, page, text, words_of
from analyst.web.services import services
from explain.facts.next_step import built_in_text
from explain.words import Writer

router = APIRouter()
_USUAL_DAYS = 90  # days until a new entry expires, unless changed
_Reason = Annotated[str, Form(max_length=1_000)]


class ProposalView(Struct, frozen=True):
    """A proposal. ``text`` is the proposed table of next steps, if it is one."""

    number: int
    what: str
    text: str
    reason: str
    by: str
    state: str
    may_approve: bool
    may_reject: bool
    reject_words: str


@router.get("/lists", response_class=HTMLResponse)
def show_lists(
    request: Request, session: Reader, key: ListKey = ListKey.CARD, value: str = "", everything: bool = False
) -> HTMLResponse:
    """Show the lists and the proposals; ``key`` and ``value`` fill in the form."""
    own, words = services(request), words_of(request)
    today = dt.datetime.fromtimestamp(own.queue.clock.now_ms() / 1000, dt.UTC).date()
    entries = [
        (one.list.value, one.key.value, one.value, words.words(f"ui-list-{one.list}"), words.words(f"ui-kind-{one.key}"),
         address_of(Node(one.key, one.value)), one.expires_on, one.proposal)
        for one in own.proposals.entries()
    ]  # fmt: skip
    return page(
        request, "lists.html", session,
        entries=entries,
        proposals=[_view(words, one, session.actor) for one in own.proposals.all(pending=not everything)],
        everything=everything,
        may_propose=session.actor.may(Permission.PROPOSE),
        lists=[Option(one.value, words.words(f"ui-list-{one}"), False) for one in ListName],
        keys=[Option(one.value, words.words(f"ui-kind-{one}"), one is key) for one in ListKey],
        value=value[:128],
        expires=(today + dt.timedelta(days=_USUAL_DAYS)).isoformat(),
        steps=own.proposals.steps_text() or built_in_text(own.settings.next_steps),
    )  # fmt: skip


def _view(words: Writer, proposal: Proposal, reader: Actor) -> ProposalView:
    own, pending = proposal.proposed_by == reader.name, proposal.state is ProposalState.PENDING
    by = words.words("ui-proposed-by", name=text(proposal.proposed_by), when=text(instant(words, proposal.proposed_at)))
    decided = words.words(f"ui-proposal-{proposal.state}", name=text(proposal.decided_by or ""))
    return ProposalView(
        number=proposal.number,
        what=_what(words, proposal),
        text=proposal.change.toml if isinstance(proposal.change, ReplaceSteps) else "",
        reason=proposal.reason,
        by=by,
        state=decided,
        may_approve=pending and not own and reader.may(Permission.APPROVE),
        may_reject=pending and reader.may(Permission.PROPOSE if own else Permission.APPROVE),
        reject_words=words.words("ui-withdraw" if own else "ui-reject"),
    )


def _what(words: Writer, proposal: Proposal) -> str:
    change = proposal.change
    if isinstance(change, ReplaceSteps):
        return words.words("ui-proposal-steps")
    names = {
        "list": text(words.words(f"ui-list-{change.list}")),
        "value": text(f"{words.words(f'ui-kind-{change.key}')} {change.value}"),
    }
    if isinstance(change, AddEntry):
        return words.words("ui-proposal-add", **names, until=text(change.expires_on))
    return words.words("ui-proposal-remove", **names)


@router.post("/lists/add")
def propose_entry(
    request: Request,
    session: Proposer,
    list_name: Annotated[ListName, Form()],
    key: Annotated[ListKey, Form()],
    value: Annotated[str, Form(max_length=128)],
    expires_on: Annotated[str, Form(max_length=10)],
    reason: _Reason,
) -> Response:
    """Propose to put a value on a list."""
    services(request).proposals.propose(session.actor, AddEntry(list_name, key, value, expires_on), reason)
    return RedirectResponse("/lists", 303)


@router.post("/lists/remove")
def propose_removal(
    request: Request,
    session: Proposer,
    list_name: Annotated[ListName, Form()],
    key: Annotated[ListKey, Form()],
    value: Annotated[str, Form(max_length=128)],
    reason: _Reason,
) -> Response:
    """Propose to take a value off a list."""
    services(request).proposals.propose(session.actor, RemoveEntry(list_name, key, value), reason)
    return RedirectResponse("/lists", 303)


@router.post("/lists/steps")
def propose_steps(
    request: Request, session: Proposer, toml: Annotated[str, Form(max_length=65_536)], reason: _Reason
) -> Response:
    """Propose another table of next steps."""
    services(request).proposals.propose(session.actor, ReplaceSteps(toml.replace("\r\n", "\n")), reason)
    return RedirectResponse("/lists", 303)


@router.post("/proposals/{number}/approve")
def approve(request: Request, session: Approver, number: Number) -> Response:
    """Approve somebody else's proposal."""
    services(request).proposals.approve(session.actor, number)
    return RedirectResponse("/lists", 303)


@router.post("/proposals/{number}/reject")
def reject(request: Request, session: Proposer, number: Number) -> Response:
    """Reject a proposal, or withdraw one's own."""
    services(request).proposals.reject(session.actor, number)
    return RedirectResponse("/lists", 303)
