"""Metrics of the console's HTTP requests."""

from time import perf_counter
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.metrics import HTTP_REQUESTS, HTTP_SECONDS

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
_NO_ROUTE: Final = "none"


class Measuring:
    """Middleware that counts requests by route and status, and measures the time until the answer begins."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request and measure it. A request that no route matches counts under the route ``none``."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = perf_counter(), 500

        async def measured(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                HTTP_SECONDS.labels(*_labels(scope)).observe(perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, receive, measured)
        finally:
            HTTP_REQUESTS.labels(*_labels(scope), str(status)).inc()


def _labels(scope: Scope) -> tuple[str, str]:
    """Return the method and the route's path pattern, such as ``/alerts/{alert_id}``. Both come from closed sets."""
    method = scope["method"] if scope["method"] in _METHODS else "other"
    return method, getattr(scope.get("route"), "path", _NO_ROUTE)
