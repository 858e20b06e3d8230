"""Probes and metrics of the console, on a port of their own that is not for browsers."""

from collections.abc import Callable

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from analyst.statistics import Statistics
from analyst.verdicts import Outbox
from core import metrics
from core.metrics import Program, registry_of


def operations_app(
    outbox: Outbox, statistics: Statistics, alive: Callable[[], bool], publishing: Callable[[], bool], late_seconds: float
) -> FastAPI:
    """
    Return the application for probes and metrics.

    ``alive`` says whether the background work is running, ``publishing`` whether Kafka accepts verdicts. Verdicts that wait longer
    than ``late_seconds`` are mentioned by ``/ready``.
    """
    registry = registry_of(Program.CONSOLE)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/live")
    async def live() -> PlainTextResponse:
        return PlainTextResponse("live\n")

    @app.get("/ready")
    def ready() -> PlainTextResponse:
        try:
            backlog = outbox.backlog()
        except SQLAlchemyError:
            return PlainTextResponse("the queue's database does not answer\n", 503)
        if not alive():
            return PlainTextResponse("verdicts are not being published: restart the console\n", 503)
        if not publishing() or backlog.seconds > late_seconds:
            # the queue works without Kafka, and verdicts wait in the database: the console stays in service
            return PlainTextResponse(
                f"ready; {backlog.verdicts} verdicts wait until Kafka answers, the first for {backlog.seconds:.0f} s\n"
            )
        return PlainTextResponse("ready\n")

    @app.get("/metrics")
    def scrape() -> Response:
        try:
            measure(outbox, statistics)
        except SQLAlchemyError:
            for gauge in (
                metrics.OUTBOX_VERDICTS, metrics.OUTBOX_SECONDS, metrics.QUEUE_ALERTS, metrics.QUEUE_BREACHES, metrics.QUEUE_OLDEST_SECONDS,
            ):  # fmt: skip
                gauge.clear()  # a gauge that cannot be measured is absent
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


def measure(outbox: Outbox, statistics: Statistics) -> None:
    """Set the gauges that are read from the database."""
    backlog = outbox.backlog()
    metrics.OUTBOX_VERDICTS.labels("waiting").set(backlog.verdicts)
    metrics.OUTBOX_SECONDS.labels("waiting").set(backlog.seconds)
    for one in statistics.backlog():
        severity = one.severity.name.lower()
        metrics.QUEUE_ALERTS.labels("open", severity).set(one.open)
        metrics.QUEUE_ALERTS.labels("escalated", severity).set(one.escalated)
        metrics.QUEUE_BREACHES.labels(severity).set(one.breached)
        metrics.QUEUE_OLDEST_SECONDS.labels(severity).set((one.oldest_hours or 0.0) * 3600)
