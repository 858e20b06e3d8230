"""Everything that the console's routes use, put together once at the start."""

from collections.abc import Callable
from typing import NamedTuple

from fastapi import Request

from analyst.access.accounts import Accounts
from analyst.access.oidc import Provider
from analyst.access.sessions import Sessions, Tokens
from analyst.access.throttle import Throttle
from analyst.assignments import Assignments
from analyst.assistant import Assistant, Investigate
from analyst.bulk import Bulks
from analyst.listing import Listing
from analyst.proposals import Proposals
from analyst.queue import Queue
from analyst.saved_views import SavedViews
from analyst.statistics import Statistics
from analyst.verdicts import Outbox, Verdicts
from analyst.webhooks import Webhooks
from core.settings import Settings
from explain.facts.history import History
from models.bundles.metrics import ThresholdMeasures

CALLBACK = "/sign-in/provider/callback"


class Services(NamedTuple):
    """
    The domain services of one console.

    ``history`` reads past payments from the archive. ``assistant`` is None without a language model, ``provider`` without OpenID
    Connect. ``what_if`` returns the backtest of the bundle in use.
    """

    settings: Settings
    queue: Queue
    listing: Listing
    assignments: Assignments
    verdicts: Verdicts
    outbox: Outbox
    bulks: Bulks
    views: SavedViews
    accounts: Accounts
    sessions: Sessions
    tokens: Tokens
    provider: Provider | None
    proposals: Proposals
    statistics: Statistics
    webhooks: Webhooks
    history: History | None
    assistant: Assistant | None
    what_if: Callable[[], tuple[ThresholdMeasures, ...]]


def make_services(
    queue: Queue,
    settings: Settings,
    history: History | None = None,
    investigate: Investigate | None = None,
    what_if: Callable[[], tuple[ThresholdMeasures, ...]] = tuple,
) -> Services:
    """Return the services for a queue. ``investigate`` lets a language model look into an alert or answer a question about it."""
    database, clock = queue.database, queue.clock
    listing, accounts = Listing(queue), Accounts(database, clock, Throttle(database, clock))
    provider = None
    if settings.oidc_issuer:
        provider = Provider(settings, f"{settings.console_url}{CALLBACK}", accounts, database, clock)
    return Services(
        settings=settings,
        queue=queue,
        listing=listing,
        assignments=Assignments(queue),
        verdicts=Verdicts(queue),
        outbox=Outbox(database, clock),
        bulks=Bulks(queue, listing),
        views=SavedViews(database),
        accounts=accounts,
        sessions=Sessions(database, clock, settings),
        tokens=Tokens(database, clock),
        provider=provider,
        proposals=Proposals(database, clock),
        statistics=Statistics(queue),
        webhooks=Webhooks(database, clock, on_loopback=not settings.console_url),
        history=history,
        assistant=Assistant(queue, settings, investigate) if investigate else None,
        what_if=what_if,
    )


def services(request: Request) -> Services:
    """Return the services of the application that handles a request."""
    found: Services = request.app.state.services
    return found
