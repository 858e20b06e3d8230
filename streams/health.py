"""Health and metrics over HTTP, served by the worker's own event loop: if it answers, the loop turns."""

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from core.errors import SettingsError


class Health:
    """``/live`` answers while the loop turns, ``/ready`` while partitions are assigned, ``/metrics`` what Prometheus reads."""

    def __init__(self, port: int, host: str = "0.0.0.0") -> None:  # noqa: S104 -- probes and Prometheus come from outside the pod
        """Port 0 takes a free one."""
        self.ready = False
        self._host, self._port = host, port
        self._runner: web.AppRunner | None = None

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
        return web.Response(text="ready\n") if self.ready else web.Response(text="not assigned yet\n", status=503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
