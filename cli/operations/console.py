"""``whyflag console``."""

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import uvicorn

    from analyst.archive import Archive
    from analyst.assistant import Investigate
    from analyst.queue import Queue, QueuedAlert
    from core.settings import Settings
    from explain.investigation import Investigation
    from models.bundles.metrics import ThresholdMeasures


logger = logging.getLogger(__name__)


@click.command()
def command() -> None:
    """Serve the analysts' web console, publish verdicts and their labels to Kafka, and send webhooks."""
    from analyst.archive import Archive
    from analyst.policy import policy_of
    from analyst.queue import Queue
    from analyst.web.app import create_app
    from analyst.web.operations import operations_app
    from analyst.web.services import make_services
    from core.clock import SystemClock
    from core.logs import set_up_logs
    from core.metrics import Program
    from core.settings import read_settings
    from streams.relay import Relay

    settings, clock = read_settings(), SystemClock()
    set_up_logs(Program.CONSOLE, settings)
    queue = Queue(settings.database, clock, policy_of(settings), settings.audit_key.encode())
    archive = Archive(settings.archive_url, clock, settings.archive_days)
    relay = Relay(queue, settings)
    try:
        with queue.reading() as connection:
            queue.database.audit.require_key(connection)
        services = make_services(queue, settings, archive, _investigating(queue, settings, archive), _what_if(settings))
        operations = operations_app(
            services.outbox, services.statistics, lambda: relay.alive, lambda: relay.publishing, settings.broker_silence_seconds
        )
        console, scheme = create_app(services), "https" if settings.console_certificate else "http"
        pages = _listening(settings.console_host, settings.console_port, "WHYFLAG_CONSOLE_PORT or WHYFLAG_CONSOLE_HOST")
        probes = _listening(settings.metrics_host, settings.metrics_port, "WHYFLAG_METRICS_PORT or WHYFLAG_METRICS_HOST")
        address = settings.console_url or f"{scheme}://{settings.console_host}:{pages.getsockname()[1]}"

        def announce() -> None:
            logger.info("console started; probes and metrics on port %d", probes.getsockname()[1], extra={"link": address})
            if (secret := services.accounts.first_invitation()) and not settings.oidc_issuer:
                # a warning, so that only the level error hides it
                link = f"{address}/invitation/{secret}"
                logger.warning("no administrator yet: open the link within 24 hours to choose a password", extra={"link": link})

        relay.start()
        try:
            asyncio.run(_serve(_server(console, settings), pages, _plain_server(operations), probes, announce))
        finally:
            relay.stop()
        logger.info("the console has stopped after a signal to stop")
    finally:
        queue.close()
        archive.close()


def _listening(host: str, port: int, setting: str) -> socket.socket:
    """
    Return a listening socket.

    Raises:
        SettingsError: if the port is taken or the address is not this machine's.
    """
    from core.errors import SettingsError

    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise SettingsError(f"the console cannot listen on {host}:{port} ({error.strerror}): choose another {setting}") from None


def _server(app: object, settings: "Settings") -> "uvicorn.Server":
    """
    Return the server of the pages, with TLS if a certificate is set.

    Raises:
        SettingsError: if the certificate cannot be used.
    """
    import uvicorn

    from core.errors import SettingsError

    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,  # its lines go to the handler of core.logs
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the address of a client is the one that connects, not one that a header claims
        timeout_graceful_shutdown=5,  # pages hold connections for live updates
        ssl_certfile=settings.console_certificate or None,
        ssl_keyfile=settings.console_certificate_key or None,
        ssl_ca_certs=settings.console_client_ca or None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.console_client_ca else ssl.CERT_NONE,
    )
    if settings.console_client_ca and not settings.console_certificate:
        raise SettingsError("WHYFLAG_CONSOLE_CLIENT_CA needs WHYFLAG_CONSOLE_CERTIFICATE: client certificates are checked by TLS")
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"WHYFLAG_CONSOLE_CERTIFICATE, its key or WHYFLAG_CONSOLE_CLIENT_CA cannot be used: {error}"
        ) from None
    return uvicorn.Server(config)


def _plain_server(app: object) -> "uvicorn.Server":
    import uvicorn

    return uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))  # type: ignore[arg-type]


async def _serve(
    console: "uvicorn.Server", pages: socket.socket, operations: "uvicorn.Server", probes: socket.socket,
    announce: Callable[[], None],
) -> None:  # fmt: skip
    """Serve both applications until SIGTERM or SIGINT ends the console. Call ``announce`` once these signals are handled."""
    # uvicorn's own handlers would raise the signal again and end the process at once
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, console.handle_exit, number, None)
    announce()
    side = asyncio.create_task(operations._serve([probes]))
    try:
        await console._serve([pages])
    finally:
        operations.should_exit = True
        await side


def _what_if(settings: "Settings") -> "Callable[[], tuple[ThresholdMeasures, ...]]":
    """Return a function that returns the backtest of the bundle in use; nothing if there is no bundle here."""
    from models.bundles.store import open_metrics

    return lambda: metrics.thresholds if (metrics := open_metrics(settings.bundle_dir)) else ()


def _investigating(queue: "Queue", settings: "Settings", archive: "Archive") -> "Investigate | None":
    """Return a function that investigates an alert or answers a question, or None if no language model is configured."""
    from explain.narrators.client import language_model
    from models.bundles.store import rule_words

    llm = language_model(settings)  # shared by all investigations, so that connections are reused
    if llm is None:
        return None
    from explain.investigation import investigate

    async def look(queued: "QueuedAlert", question: str | None) -> "Investigation":
        assert queued.explanation is not None
        rules = rule_words(settings.bundle_dir)
        return await investigate(queued.alert, queued.explanation, queue, llm, rules, history=archive, question=question)

    return look
