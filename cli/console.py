"""``whyflag console``."""

import logging

import click


@click.command()
def command() -> None:
    """Serve the analyst's queue and pages; publish verdicts and their labels."""
    import uvicorn

    from analyst.console import create_app
    from analyst.queue import Queue
    from core.clock import SystemClock
    from core.settings import read_settings
    from streams.relay import Relay

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = read_settings()
    queue = Queue(settings.database, SystemClock())
    relay = Relay(queue, settings)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(queue, settings),
            host=settings.console_host,
            port=settings.console_port,
            log_level="warning",
            access_log=False,
        )
    )
    relay.start()
    click.echo(f"console on http://{settings.console_host}:{settings.console_port}", err=True)
    try:
        server.run()
    finally:
        relay.stop()
        queue.close()
