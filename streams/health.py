"""Health and metrics over HTTP, served from the worker's event loop, so that an answer proves that the loop is running."""

from time import monotonic

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from core.errors import SettingsError
from core.metrics import SILENCE, Program, registry_of
from core.settings import Settings


class Health:
    """
    HTTP server for probes and metrics.

    ``/live`` answers while the event loop runs. ``/ready`` answers 200 while partitions are assigned and every dependency has
    answered recently, else 503. ``/metrics`` serves Prometheus.
    """

    def __init__(self, program: Program, port: int, silence_seconds: float = 30.0, host: str = "127.0.0.1") -> None:
        """
        Serve the metrics of ``program``. Port 0 selects a free port. ``silence_seconds`` is the longest time a dependency may go
        without answering.
        """
        self.ready = False
        self._registry = registry_of(program)
        self._host, self._port, self._silence_seconds = host, port, silence_seconds
        self._answered: dict[str, float] = {}
        self._runner: web.AppRunner | None = None

    @classmethod
    def of(cls, program: Program, settings: Settings) -> "Health":
        """Return the server of a program, on the address of the settings."""
        return cls(program, settings.metrics_port, settings.broker_silence_seconds, settings.metrics_host)

    def answered(self, dependency: str) -> None:
        """Record that a dependency (Kafka, the database) has just answered."""
        if dependency not in self._answered:  # measured at each scrape, so that it grows while nothing answers
            SILENCE.labels(dependency).set_function(lambda: monotonic() - self._answered[dependency])
        self._answered[dependency] = monotonic()

    @property
    def silent(self) -> list[str]:
        """Dependencies that have not answered within ``silence_seconds``."""
        now = monotonic()
        return [name for name, since in self._answered.items() if now - since > self._silence_seconds]

    async def start(self) -> None:
        """
        Start listening.

        Raises:
            SettingsError: if the port is taken.
        """
        app = web.Application()
        app.router.add_get("/live", self._live)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            raise SettingsError(
                f"health and metrics cannot listen on {self._host}:{self._port} ({error.strerror}): choose another "
                "WHYFLAG_METRICS_PORT or WHYFLAG_METRICS_HOST"
            ) from None

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner:
            await self._runner.cleanup()

    async def _live(self, _: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def _ready(self, _: web.Request) -> web.Response:
        if not self.ready:
            return web.Response(text="no partitions are assigned yet\n", status=503)
        if silent := self.silent:
            return web.Response(text=f"no answer for {self._silence_seconds:g} s from: {', '.join(silent)}\n", status=503)
        return web.Response(text="ready\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
