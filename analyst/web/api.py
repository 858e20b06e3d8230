"""
The API: everything that the pages do, as JSON under ``/api/v1``.

Callers send a token (``Authorization: Bearer …``), whose scopes limit what it may do. Responses are the domain's own types; their
schemas in the OpenAPI document are derived from these types.
"""

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field

from analyst.access.accounts import User
from analyst.access.roles import Permission, Role
from analyst.access.sessions import Token
from analyst.assistant import LONGEST_QUESTION, Question, questions_about
from analyst.audit import AuditEntry, entries
from analyst.bulk import Bulk, BulkItem
from analyst.graph import Link, Node, link_graph
from analyst.listing import AlertRow
from analyst.proposals import Change, ListEntry, ListKey, Proposal
from analyst.queue import QueuedAlert
from analyst.saved_views import SavedView
from analyst.statistics import Report
from analyst.verdicts import GivenVerdict
from analyst.web.entity_pages import filter_about
from analyst.web.guard import Administrator, Approver, Auditor, Lead, Owner, Proposer, Reader, Worker
from analyst.web.queue_pages import filter_in
from analyst.web.rendering import LARGEST_NUMBER, Number
from analyst.web.services import Services, services
from analyst.webhooks import Delivery, Webhook
from core.errors import ConflictError, InputError
from core.messages import ClosingReason, Finding, Opinion
from models.bundles.metrics import ThresholdMeasures

PREFIX: Final = "/api/v1"
router = APIRouter(prefix=PREFIX)
_ERRORS: Final = (400, 401, 403, 404, 409, 413, 422, 429, 503)
_Id = Annotated[str, Path(max_length=128)]


class Failure(Struct, frozen=True):
    """An error: its type, and a message that says what to do."""

    type: str
    message: str


class FailureAnswer(Struct, frozen=True):
    """The body of every answer that is not a success. A conflict of two verdicts also has ``version``, ``theirs`` and ``yours``."""

    error: Failure


class AlertPage(Struct, frozen=True):
    """A page of alerts; ``after`` and ``before`` are the positions of the next and previous page."""

    alerts: list[AlertRow]
    after: str | None
    before: str | None


class AlertAnswer(Struct, frozen=True):
    """An alert with its verdicts."""

    alert: QueuedAlert
    verdicts: list[GivenVerdict]


class Created(Struct, frozen=True):
    """The number of what was created."""

    number: int


class Secret(Struct, frozen=True):
    """A secret that is shown only once."""

    secret: str


class NextAlert(Struct, frozen=True):
    """The alert that was claimed; None if there is none."""

    alert_id: str | None


class BulkPreview(Struct, frozen=True):
    """What a bulk verdict would judge. ``number`` must be sent with the verdict; it is None if there are no alerts or too many."""

    alerts: int
    first: list[AlertRow]
    number: int | None


class BulkAnswer(Struct, frozen=True):
    """A bulk verdict with some of its items."""

    bulk: Bulk
    items: list[BulkItem]


class EntityAnswer(Struct, frozen=True):
    """A card, merchant or device: its alerts by finding, the newest ones, its list entries and its links."""

    node: Node
    outcomes: dict[str, int]
    alerts: list[AlertRow]
    entries: list[ListEntry]
    links: list[Link]
    hidden: int


class Lists(Struct, frozen=True):
    """The entries of all lists and the approved table of next steps."""

    entries: list[ListEntry]
    next_steps: str | None


class ReportAnswer(Struct, frozen=True):
    """The leads' figures, and the backtest of the bundle in use."""

    report: Report
    what_if: list[ThresholdMeasures]


_ANSWERS: Final = (
    FailureAnswer, AlertPage, AlertAnswer, Created, Secret, NextAlert, BulkPreview, BulkAnswer, EntityAnswer, Lists, ReportAnswer,
    SavedView, Question, Proposal, User, Token, Webhook, Delivery, AuditEntry, GivenVerdict,
)  # fmt: skip
_Query = Annotated[str, Field(max_length=4_000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OpinionBody(_Body):
    """A verdict; ``version`` is the version of the alert that it judges."""

    finding: Finding
    version: int = Field(ge=0, le=LARGEST_NUMBER)
    typology: str | None = Field(None, max_length=64)
    closing_reason: ClosingReason | None = None
    note: str | None = Field(None, max_length=2_000)

    def opinion(self) -> Opinion:
        """Return the opinion."""
        return Opinion(self.finding, self.typology, self.closing_reason, self.note)


class BulkBody(_Body):
    """A verdict on all alerts of a preview."""

    finding: Finding
    number: int = Field(ge=0, le=LARGEST_NUMBER)
    typology: str | None = Field(None, max_length=64)
    closing_reason: ClosingReason | None = None
    note: str | None = Field(None, max_length=2_000)


class FilterBody(_Body):
    """A filter, written like the query part of the queue's address."""

    query: _Query = ""


class ViewBody(FilterBody):
    """A view to save."""

    name: str = Field(min_length=1, max_length=64)
    shared: bool = False


class SnoozeBody(_Body):
    """How long to hide an alert; 0 shows it again."""

    minutes: int = Field(ge=0, le=43_200)


class QuestionBody(_Body):
    """A question to the assistant; None has the alert investigated."""

    question: str | None = Field(None, min_length=1, max_length=LONGEST_QUESTION)


class ProposalBody(_Body):
    """A proposed change: an object whose ``type`` is ``add entry``, ``remove entry`` or ``replace steps``."""

    change: dict[str, str]
    reason: str = Field(min_length=1, max_length=1_000)


class UserBody(_Body):
    """A user to invite, or to add for a proxy."""

    name: str = Field(min_length=1, max_length=64)
    role: Role
    invite: bool = True


class UserChange(_Body):
    """A user's new role."""

    role: Role
    disabled: bool = False


class TokenBody(_Body):
    """A token to create."""

    label: str = Field(min_length=1, max_length=64)
    scopes: list[Permission] = Field(min_length=1, max_length=len(Permission))
    days: int = Field(30, ge=1, le=366)


class WebhookBody(_Body):
    """A webhook to add."""

    url: str = Field(min_length=1, max_length=2_000)
    events: list[str] = Field(min_length=1, max_length=2)


def _answers(kind: Any, status: int = 200) -> dict[str, Any]:
    """Return the part of a route's declaration that says what it answers: a type, a list of a type, or nothing."""
    if kind is None:
        return {"status_code": 204, "response_class": Response}
    listed = isinstance(kind, list)
    reference = {"$ref": f"#/components/schemas/{(kind[0] if listed else kind).__name__}"}
    schema = {"type": "array", "items": reference} if listed else reference
    content = {"application/json": {"schema": schema}}
    return {
        "status_code": status,
        "responses": {status: {"content": content, "description": "Success"}},
        "response_class": Response,
    }


def _json(answer: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(answer), status, media_type="application/json")


def _own(request: Request) -> Services:
    return services(request)


_Own = Annotated[Services, Depends(_own)]


@router.get("/openapi.json", include_in_schema=False)
def openapi(session: Reader) -> Response:
    """Return the OpenAPI document of the API."""
    return _json(openapi_document())


# -- alerts --------------------------------------------------------------------------------------------------------------------


@router.get("/alerts", **_answers(AlertPage))
def alerts(
    own: _Own, session: Reader, query: Annotated[str, Query(max_length=4_000)] = "", after: str = "", before: str = ""
) -> Response:
    """Return a page of the alerts that a filter shows."""
    page = own.listing.page(filter_in(query), session.actor, after, before)
    return _json(AlertPage(page.rows, page.after, page.before))


@router.post("/alerts/next", **_answers(NextAlert))
def next_alert(own: _Own, session: Worker, body: FilterBody) -> Response:
    """Claim the first free alert that a filter shows."""
    return _json(NextAlert(own.assignments.claim_next(filter_in(body.query), session.actor)))


@router.get("/alerts/{alert_id}", **_answers(AlertAnswer))
def alert(own: _Own, session: Reader, alert_id: _Id) -> Response:
    """Return an alert with its explanation and verdicts."""
    return _json(AlertAnswer(own.queue.required(alert_id), own.verdicts.of(alert_id)))


@router.post("/alerts/{alert_id}/claim", **_answers(None))
def claim(own: _Own, session: Worker, alert_id: _Id) -> Response:
    """Claim an alert."""
    own.assignments.claim(alert_id, session.actor)
    return Response(status_code=204)


@router.post("/alerts/{alert_id}/release", **_answers(None))
def release(own: _Own, session: Worker, alert_id: _Id) -> Response:
    """Give a claimed alert back."""
    own.assignments.release(alert_id, session.actor)
    return Response(status_code=204)


@router.post("/alerts/{alert_id}/snooze", **_answers(None))
def snooze(own: _Own, session: Worker, alert_id: _Id, body: SnoozeBody) -> Response:
    """Hide an alert for some minutes."""
    own.assignments.snooze(alert_id, body.minutes, session.actor)
    return Response(status_code=204)


@router.post("/alerts/{alert_id}/verdict", **_answers(GivenVerdict, 201))
def give_verdict(own: _Own, session: Worker, alert_id: _Id, body: OpinionBody) -> Response:
    """Give a verdict on a version of an alert."""
    return _json(own.verdicts.give(alert_id, body.opinion(), session.actor, body.version), 201)


@router.delete("/alerts/{alert_id}/verdicts/{number}", **_answers(None))
def undo_verdict(own: _Own, session: Worker, alert_id: _Id, number: Number) -> Response:
    """Undo a verdict, the last one on an alert."""
    own.verdicts.undo(alert_id, number, session.actor)
    return Response(status_code=204)


@router.get("/alerts/{alert_id}/questions", **_answers([Question]))
def questions(own: _Own, session: Reader, alert_id: _Id) -> Response:
    """Return the questions about an alert and their answers."""
    own.queue.required(alert_id)
    return _json(questions_about(own.queue, alert_id))


@router.post("/alerts/{alert_id}/questions", **_answers(Created, 202))
async def ask(own: _Own, session: Worker, alert_id: _Id, body: QuestionBody) -> Response:
    """Ask the assistant about an alert. The answer appears among the questions."""
    if own.assistant is None:
        raise ConflictError("no language model is configured: set WHYFLAG_LLM_URL and WHYFLAG_LLM_MODEL")
    return _json(Created(await own.assistant.ask(alert_id, session.actor, body.question)), 202)


# -- views and bulk verdicts ---------------------------------------------------------------------------------------------------


@router.get("/views", **_answers([SavedView]))
def views(own: _Own, session: Reader) -> Response:
    """Return the caller's saved views and those that others share."""
    return _json(own.views.all(session.actor))


@router.post("/views", **_answers(Created, 201))
def save_view(own: _Own, session: Owner, body: ViewBody) -> Response:
    """Save a filter under a name."""
    return _json(Created(own.views.save(session.actor, body.name, filter_in(body.query), body.shared)), 201)


@router.delete("/views/{number}", **_answers(None))
def delete_view(own: _Own, session: Owner, number: Number) -> Response:
    """Delete one of the caller's views."""
    own.views.delete(session.actor, number)
    return Response(status_code=204)


@router.post("/bulks/preview", **_answers(BulkPreview))
def preview_bulk(own: _Own, session: Lead, body: FilterBody) -> Response:
    """Return what a verdict on all alerts of a filter would judge."""
    preview = own.bulks.preview(filter_in(body.query), session.actor)
    return _json(BulkPreview(preview.alerts, preview.rows, preview.number))


@router.post("/bulks", **_answers(Created, 201))
def give_bulk(own: _Own, session: Lead, body: BulkBody) -> Response:
    """Give the same verdict on all alerts of a filter."""
    opinion = Opinion(body.finding, body.typology, body.closing_reason, body.note)
    own.bulks.give(body.number, opinion, session.actor)
    return _json(Created(body.number), 201)


@router.get("/bulks/{number}", **_answers(BulkAnswer))
def bulk(own: _Own, session: Lead, number: Number, after: Annotated[int, Query(ge=-1, le=LARGEST_NUMBER)] = -1) -> Response:
    """Return a bulk verdict with up to 200 items behind a position."""
    return _json(BulkAnswer(own.bulks.get(number), own.bulks.items(number, after)))


@router.delete("/bulks/{number}", **_answers(None))
def undo_bulk(own: _Own, session: Lead, number: Number) -> Response:
    """Undo a bulk verdict as far as possible."""
    own.bulks.undo(number, session.actor)
    return Response(status_code=204)


# -- cards, merchants, devices -------------------------------------------------------------------------------------------------


@router.get("/entities/{kind}/{value}", **_answers(EntityAnswer))
def entity(own: _Own, session: Reader, kind: ListKey, value: _Id, hops: Annotated[int, Query(ge=1, le=2)] = 1) -> Response:
    """Return what the queue knows about a card, merchant or device, with its links over one or two hops."""
    node = Node(kind, value)
    wanted = filter_about(node)
    graph = link_graph(own.queue, node, hops)
    rows = own.listing.page(wanted, session.actor).rows
    outcomes = own.listing.outcomes(wanted, session.actor)
    return _json(EntityAnswer(node, outcomes, rows, own.proposals.entries_about(kind, value), graph.links, graph.hidden))


# -- lists, next steps, figures ------------------------------------------------------------------------------------------------


@router.get("/lists", **_answers(Lists))
def lists(own: _Own, session: Reader) -> Response:
    """Return the block and allow lists and the approved table of next steps."""
    return _json(Lists(own.proposals.entries(), own.proposals.steps_text()))


@router.get("/proposals", **_answers([Proposal]))
def proposals(own: _Own, session: Reader, pending: bool = True) -> Response:
    """Return the newest proposals."""
    return _json(own.proposals.all(pending))


@router.post("/proposals", **_answers(Created, 201))
def propose(own: _Own, session: Proposer, body: ProposalBody) -> Response:
    """Propose a change of a list or of the next steps."""
    try:
        change: Any = msgspec.convert(body.change, Change)
    except msgspec.ValidationError as error:
        raise InputError(f"change: {error}") from None
    return _json(Created(own.proposals.propose(session.actor, change, body.reason)), 201)


@router.post("/proposals/{number}/approve", **_answers(None))
def approve(own: _Own, session: Approver, number: Number) -> Response:
    """Approve somebody else's proposal."""
    own.proposals.approve(session.actor, number)
    return Response(status_code=204)


@router.post("/proposals/{number}/reject", **_answers(None))
def reject(own: _Own, session: Proposer, number: Number) -> Response:
    """Reject a proposal, or withdraw one's own."""
    own.proposals.reject(session.actor, number)
    return Response(status_code=204)


@router.get("/report", **_answers(ReportAnswer))
def report(own: _Own, session: Lead, days: Annotated[int, Query(ge=1, le=366)] = 30) -> Response:
    """Return the leads' figures."""
    return _json(ReportAnswer(own.statistics.report(session.actor, days), list(own.what_if())))


# -- administration ------------------------------------------------------------------------------------------------------------


@router.get("/audit", **_answers([AuditEntry]))
def audit(
    own: _Own,
    session: Auditor,
    subject: Annotated[str | None, Query(max_length=128)] = None,
    before: Annotated[int | None, Query(ge=0, le=LARGEST_NUMBER)] = None,
) -> Response:
    """Return the newest entries of the audit trail."""
    with own.queue.reading() as connection:
        return _json(entries(connection, subject, before))


@router.get("/users", **_answers([User]))
def users(own: _Own, session: Administrator) -> Response:
    """Return all users."""
    return _json(own.accounts.all())


@router.post("/users", **_answers(Secret, 201))
def add_user(own: _Own, session: Administrator, body: UserBody) -> Response:
    """Invite a user and return the secret of the one-time link; or add a user for a proxy, with an empty secret."""
    if body.invite:
        return _json(Secret(own.accounts.invite(session.actor, body.name, body.role)), 201)
    own.accounts.add(session.actor, body.name, body.role)
    return _json(Secret(""), 201)


@router.patch("/users/{name}", **_answers(None))
def change_user(own: _Own, session: Administrator, name: _Id, body: UserChange) -> Response:
    """Change a user's role, disable or enable a user."""
    own.accounts.change(session.actor, name, body.role, body.disabled)
    return Response(status_code=204)


@router.get("/tokens", **_answers([Token]))
def tokens(own: _Own, session: Owner) -> Response:
    """Return the caller's tokens."""
    return _json(own.tokens.of(session.actor.name))


@router.post("/tokens", **_answers(Secret, 201))
def create_token(own: _Own, session: Owner, body: TokenBody) -> Response:
    """Create a token with scopes that the caller has."""
    return _json(Secret(own.tokens.create(session.actor, body.label, tuple(dict.fromkeys(body.scopes)), body.days)), 201)


@router.delete("/tokens/{number}", **_answers(None))
def revoke_token(own: _Own, session: Owner, number: Number) -> Response:
    """Revoke one of the caller's tokens."""
    own.tokens.revoke(session.actor, number)
    return Response(status_code=204)


@router.get("/webhooks", **_answers([Webhook]))
def webhooks(own: _Own, session: Administrator) -> Response:
    """Return all webhooks."""
    return _json(own.webhooks.all())


@router.post("/webhooks", **_answers(Secret, 201))
def add_webhook(own: _Own, session: Administrator, body: WebhookBody) -> Response:
    """Add a webhook and return the secret that signs its deliveries."""
    return _json(Secret(own.webhooks.add(session.actor, body.url, tuple(dict.fromkeys(body.events)))), 201)


@router.delete("/webhooks/{number}", **_answers(None))
def remove_webhook(own: _Own, session: Administrator, number: Number) -> Response:
    """Remove a webhook."""
    own.webhooks.remove(session.actor, number)
    return Response(status_code=204)


@router.get("/deliveries", **_answers([Delivery]))
def deliveries(own: _Own, session: Administrator, failed: bool = True) -> Response:
    """Return the newest deliveries of webhooks: those that failed at least once, or all."""
    return _json(own.webhooks.deliveries(failed))


@router.post("/deliveries/{number}/repeat", **_answers(None))
def repeat_delivery(own: _Own, session: Administrator, number: Number) -> Response:
    """Try a failed delivery again."""
    own.webhooks.repeat(session.actor, number)
    return Response(status_code=204)


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document of the API, without the pages."""
    document = get_openapi(title="whyflag", version="1", description=(__doc__ or "").strip(), routes=router.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _, components = msgspec.json.schema_components(_ANSWERS, ref_template="#/components/schemas/{name}")
    schemas.update(components)
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    failure = {
        "description": "Error",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/FailureAnswer"}}},
    }
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].update({str(status): failure for status in _ERRORS})
    return document
