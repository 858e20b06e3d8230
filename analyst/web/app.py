"""The console's application: routes, middleware and live updates."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi.staticfiles import StaticFiles

from analyst.web import (
    admin_pages,
    alert_pages,
    api,
    entity_pages,
    lead_pages,
    list_pages,
    queue_pages,
    sign_in,
)
from analyst.web.errors import add_handlers
from analyst.web.guard import Shield, check_exposure
from analyst.web.live import LiveUpdates
from analyst.web.measuring import Measuring
from analyst.web.rendering import HERE
from analyst.web.services import Services

_MODULES = (sign_in, queue_pages, alert_pages, entity_pages, list_pages, lead_pages, admin_pages, api)
ROUTERS: Final[tuple[APIRouter, ...]] = tuple(module.router for module in _MODULES)


def create_app(services: Services) -> FastAPI:
    """
    Return the application.

    Raises:
        SettingsError: if the settings would expose the console.
    """
    check_exposure(services.settings)
    live = LiveUpdates(services.listing)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(live.watch())
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    app = FastAPI(title="whyflag", docs_url=None, redoc_url=None, openapi_url=None, lifespan=running)
    app.state.services, app.state.live = services, live
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    for router in ROUTERS:
        app.include_router(router)
    add_handlers(app)
    app.add_middleware(Shield, settings=services.settings)
    app.add_middleware(Measuring)
    return app
