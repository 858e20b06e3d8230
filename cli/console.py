"""``whyflag console``."""

import logging
import socket

import click


@click.command()
def command() -> None:
    """Serve the analyst's queue and pages; publish verdicts and their labels."""
    import uvicorn

    from analyst.console import create_app
    from analyst.queue import Queue
    from core.clock import SystemClock
    from core.errors import SettingsError
    from core.settings import read_settings
    from streams.relay import Relay

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = read_settings()
    queue = Queue(settings.database, SystemClock())
    relay = Relay(queue, settings)
    app = create_app(queue, settings, lambda: relay.alive)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    try:
        listening = socket.create_server((settings.console_host, settings.console_port))
    except OSError as error:
        queue.close()
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
