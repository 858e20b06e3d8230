"""The leads' page: backlog, throughput, breaches, verdicts, precision, and what other thresholds would do."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response

from analyst.web.guard import Lead
from analyst.web.leads_view import csv_of, leads_view, tables_of
from analyst.web.rendering import page, words_of
from analyst.web.services import services
from core.errors import NotFoundError

router = APIRouter()
_Days = Annotated[int, Query(ge=1, le=366)]


@router.get("/leads", response_class=HTMLResponse)
def show_leads(request: Request, session: Lead, days: _Days = 30) -> HTMLResponse:
    """Show the figures of the last days."""
    own = services(request)
    view = leads_view(words_of(request), own.statistics.report(session.actor, days), own.what_if())
    return page(request, "leads.html", session, leads=view)


@router.get("/leads/{table}.csv")
def download(request: Request, session: Lead, table: str, days: _Days = 30) -> Response:
    """Return a table of the page as CSV."""
    own = services(request)
    tables = tables_of(words_of(request), own.statistics.report(session.actor, days), own.what_if())
    if table not in tables:
        raise NotFoundError(f"there is no table {table[:64]!r} with rows")
    headers = {"content-disposition": f'attachment; filename="whyflag-{table}.csv"'}
    return Response(csv_of(tables[table]), media_type="text/csv; charset=utf-8", headers=headers)
