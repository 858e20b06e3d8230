"""``whyflag console``."""

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from analyst.archive import Archive
    from analyst.queue import Queue, QueuedAlert
    from core.settings import Settings


@click.command()
def command() -> None:
    """Serve the analysts' web console, and publish verdicts and their labels to Kafka."""
    import uvicorn

    from analyst.archive import Archive
    from analyst.console import create_app
    from analyst.queue import Queue
    from core.clock import SystemClock
    from core.errors import SettingsError
    from core.settings import read_settings
    from streams.relay import Relay

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = read_settings()
    queue = Queue(settings.database, SystemClock())
    archive = Archive(settings.archive_url, SystemClock(), settings.archive_days)
    relay = Relay(queue, settings)
    app = create_app(
        queue, settings, lambda: relay.alive, _investigating(queue, settings, archive), archive, lambda: relay.publishing
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    try:
        listening = socket.create_server((settings.console_host, settings.console_port))
    except OSError as error:
        queue.close()
        archive.close()
        raise SettingsError(
            f"the console cannot listen on {settings.console_host}:{settings.console_port} ({error.strerror}): choose another "
            "WHYFLAG_CONSOLE_PORT or WHYFLAG_CONSOLE_HOST"
        ) from None
    relay.start()
    click.echo(f"console on http://{settings.console_host}:{listening.getsockname()[1]}", err=True)
    try:
        server.run(sockets=[listening])
    finally:
        relay.stop()
        queue.close()
        archive.close()


def _investigating(queue: "Queue", settings: "Settings", archive: "Archive") -> "Callable[[QueuedAlert], Awaitable[str]] | None":
    """Return a function that investigates an alert, or None if no language model is configured."""
    from explain.narrators.client import language_model
    from models.bundles.store import rule_words

    llm = language_model(settings)  # shared by all investigations, so that connections are reused
    if llm is None:
        return None

    async def look(queued: "QueuedAlert") -> str:
        import msgspec

        from explain.investigation import investigate

        explanation = queued.explanation
        assert explanation is not None
        found = await investigate(queued.alert, explanation, queue, llm, rule_words(settings.bundle_dir), history=archive)
        return msgspec.json.encode(found).decode()

    return look
