"""Health and metrics over HTTP, served by the worker's own event loop: if it answers, the loop turns."""

from time import monotonic

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from core.errors import SettingsError


class Health:
    """
    ``/live`` answers while the loop turns; ``/ready`` while partitions are assigned and everything the worker depends on has answered
    lately; ``/metrics`` is what Prometheus reads.
    """

    def __init__(self, port: int, silence_seconds: float = 30.0, host: str = "0.0.0.0") -> None:  # noqa: S104 -- probes and Prometheus come from outside the pod
        """Port 0 takes a free one. ``silence_seconds`` is how long a dependency may be silent."""
        self.ready = False
        self._host, self._port, self._silence_seconds = host, port, silence_seconds
        self._answered: dict[str, float] = {}
        self._runner: web.AppRunner | None = None

    def answered(self, dependency: str) -> None:
        """Note that a dependency (Kafka, the database) has just answered."""
        self._answered[dependency] = monotonic()

    @property
    def silent(self) -> list[str]:
        """Dependencies that have not answered for too long."""
        now = monotonic()
        return [name for name, since in self._answered.items() if now - since > self._silence_seconds]

    async def start(self) -> None:
        """
        Listen.

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
                f"health and metrics cannot listen on port {self._port} ({error.strerror}): choose another WHYFLAG_METRICS_PORT"
            ) from None

    async def stop(self) -> None:
        """Close."""
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
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
