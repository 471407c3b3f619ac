"""The dashboard as a server: pages, pictures, and the guard before both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from nicegui import app as nicegui_app
from nicegui import ui

from tidemill.core.errors import NotFound, TidemillError
from tidemill.core.telemetry import get_logger
from tidemill.dashboard.audit import Audit
from tidemill.dashboard.desk import Desk
from tidemill.dashboard.guard import Guard
from tidemill.dashboard.pages.browse import browse_page
from tidemill.dashboard.pages.frame import App
from tidemill.dashboard.pages.labels import labels_page
from tidemill.dashboard.pages.model import model_page
from tidemill.dashboard.pages.models import models_page
from tidemill.dashboard.pages.rollout import rollout_page
from tidemill.dashboard.pages.sockets import hold_sockets
from tidemill.dashboard.pages.version import version_page
from tidemill.dashboard.pages.versions import versions_page
from tidemill.dashboard.pictures import Pictures
from tidemill.dashboard.sources import Sources
from tidemill.dashboard.viewers import Trust
from tidemill.wiring import Local

__all__ = ["application", "run"]

_SEND_EVERY_S = 0.5
_DAY_S = 86_400
_log = get_logger(__name__)


def application(machine: Local) -> Any:
    """The ASGI application. One a process: NiceGUI's pages are the process's. Raises `InvalidInput` of the settings."""
    trust = Trust.of(machine.settings)
    audit = Audit(machine.settings.state / "dashboard", machine.clock)
    desk, pictures = Desk(machine, audit, machine.clock), Pictures(machine.settings.lake_uri)
    app = App(Sources(machine, audit, pictures), desk, pictures)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sending = asyncio.create_task(_send(desk))
        warming = asyncio.create_task(asyncio.to_thread(app.sources.warm))
        yield
        sending.cancel()
        warming.cancel()
        await asyncio.to_thread(desk.close)

    fast = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @fast.get("/healthz")
    def healthz() -> Response:
        return Response("ok", media_type="text/plain")

    @fast.get("/pictures/{model}/{day}/{digest}")
    def picture(model: str, day: str, digest: str) -> Response:
        return _picture(app, model, day, digest)

    _pages(app)
    # Each part of a page says itself that it loads; Quasar's bar has no name that a screen reader could tell.
    nicegui_app.config.quasar_config["loadingBar"]["skipHijack"] = True
    ui.run_with(
        fast, title="Tidemill", language="en-US", tailwind=False, dark=None, show_welcome_message=False, favicon=_ICON
    )
    hold_sockets(app.owners.get)
    return Guard(fast, trust, app.owners.get)


_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><circle cx="12" cy="12" r="8" fill="none" '
    'stroke="#12968a" stroke-width="5" stroke-dasharray="38 13"/></svg>'
)


def run(machine: Local, *, host: str, port: int) -> None:
    """Serve until told to end. Raises `InvalidInput` of the settings."""
    config = uvicorn.Config(application(machine), host=host, port=port, log_level="warning", proxy_headers=False)
    uvicorn.Server(config).run()


def _pages(app: App) -> None:
    @ui.page("/")
    async def models(request: Request) -> None:
        await models_page(app, request)

    @ui.page("/models/{model}")
    async def overview(request: Request, model: str) -> None:
        await model_page(app, request, model)

    @ui.page("/models/{model}/rollout")
    async def rollout(request: Request, model: str) -> None:
        await rollout_page(app, request, model)

    @ui.page("/models/{model}/browse")
    async def browse(request: Request, model: str) -> None:
        await browse_page(app, request, model)

    @ui.page("/models/{model}/labels")
    async def labels(request: Request, model: str) -> None:
        await labels_page(app, request, model)

    @ui.page("/models/{model}/versions/{version}")
    async def version(request: Request, model: str, version: str) -> None:
        await version_page(app, request, model, version)

    @ui.page("/models/{model}/versions")
    async def versions(request: Request, model: str) -> None:
        await versions_page(app, request, model)


def _picture(app: App, model: str, day: str, digest: str) -> Response:
    """A picture of a model that may be shown."""
    try:
        resource = app.sources.resource(model)
        image = resource.image_field
        if image is None or image.name in resource.spec.serving.log.redact:
            raise NotFound("this model has no pictures that are shown")
        data, kind = app.pictures.get(resource.id, day, digest)
    except TidemillError as error:
        return Response(error.message, 404, media_type="text/plain")
    return Response(data, media_type=kind, headers={"cache-control": f"private, max-age={_DAY_S}"})


async def _send(desk: Desk) -> None:
    """Send labels as they fall due."""
    while True:
        await asyncio.sleep(_SEND_EVERY_S)
        try:
            await asyncio.to_thread(desk.send_due)
        except TidemillError as error:  # they wait on
            _log.warning("labels are not sent yet", reason=error.message)
        except Exception:  # a full disk, for one: what it was may pass, and this task is to go on
            _log.exception("labels are not sent yet")
