"""The frame of every page: who is there, where they are, their clock and their light, and what keeps the page live."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from nicegui import background_tasks, run, ui
from starlette.requests import Request

from tidemill.core.errors import TidemillError
from tidemill.dashboard.desk import Desk
from tidemill.dashboard.pages.parts import Live, Text, Times, box, button, link, tell
from tidemill.dashboard.pictures import Pictures
from tidemill.dashboard.sources import Sources
from tidemill.dashboard.viewers import Viewer

__all__ = ["App", "Page", "frame"]

_STYLE = (Path(__file__).parent / "style.css").read_text()
_EVERY_S = 1.0
_AT_ONCE_S = 0.03
"""How long a page waits for what is known already, so as to come with it."""
_COLOUR = "#12857b"
_TABS = (
    ("", "Overview"),
    ("rollout", "Rollout"),
    ("browse", "Browse"),
    ("labels", "Labels"),
    ("versions", "Runs & versions"),
)
_ZONE, _LIGHT = "tidemill-zone", "tidemill-light"
"""Cookies by which a page is drawn in the viewer's time and light from the start."""
_KEPT = "; path=/; max-age=31536000; SameSite=Strict"
_SAY_ZONE = (
    "(() => { const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;"
    f" document.cookie = '{_ZONE}=' + zone + '{_KEPT}'; return zone; }})()"
)


class App:
    """What every page is given."""

    def __init__(self, sources: Sources, desk: Desk, pictures: Pictures) -> None:
        self.sources, self.desk, self.pictures = sources, desk, pictures
        self.owners: dict[str, str] = {}
        """Names of the viewers for whom pages were made, by NiceGUI's client."""


class Page:
    """One page that somebody looks at."""

    def __init__(self, app: App, viewer: Viewer, zone: str) -> None:
        self.app, self.viewer, self.times = app, viewer, Times()
        self._parts: list[Live[Any]] = []
        self._is_asked = False
        self._foot: Text | None = None
        self._set_zone(zone)

    @property
    def now(self) -> Any:
        """The time."""
        return self.app.sources.machine.clock.now()

    def live(self, read: Callable[[], Awaitable[Any]], draw: Callable[[Any], Any]) -> Live[Any]:
        """A part that is kept up to date while the page is open."""
        part = Live(read, draw)
        self._parts.append(part)
        return part

    async def look_first(self) -> None:
        """Draw what is known into the page itself; the rest is read while the browser loads it."""
        looks = self._look()
        if looks:
            await asyncio.wait(looks, timeout=_AT_ONCE_S)

    async def look(self) -> None:
        """Bring all parts up to date, none of which waits for another; at first the browser is asked for its zone."""
        if not self._is_asked:
            self._is_asked = True
            await self._learn()
        self._look()

    def _look(self) -> list[asyncio.Task[Any]]:
        idle = [part for part in self._parts if not part.is_looking]
        return [background_tasks.create(part.refresh(), name="part of a page") for part in idle]

    async def do(self, action: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """Do something on a thread and tell the viewer what went wrong; None then."""
        try:
            return await run.io_bound(lambda: action(self.viewer, *arguments, **more))
        except TidemillError as error:
            tell(error.message + (f" ({error.hint})" if error.hint else ""), "negative")
            return None

    async def _learn(self) -> None:
        try:
            zone = str(await ui.run_javascript(_SAY_ZONE, timeout=3.0))
        except TimeoutError:
            return
        if self._set_zone(zone):
            for part in self._parts:
                part.forget()
                background_tasks.create(part.refresh(), name="part of a page in another zone")

    def _set_zone(self, zone: str) -> bool:
        """Show times in a zone; whether it is another one. What is no zone is left alone."""
        try:
            now = ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            return False
        if now.key == self.times.zone.key:
            return False
        self.times.zone = now
        if self._foot is not None:
            self._foot.set_text(self._zone_words)
        return True

    def foot(self) -> None:
        """The last line of the page."""
        self._foot = Text(self._zone_words)

    @property
    def _zone_words(self) -> str:
        return f"times in {self.times.zone.key}"


@asynccontextmanager
async def frame(app: App, request: Request, title: str, model: str = "", tab: str = "") -> AsyncIterator[Page]:
    """A page within the frame; in the block its parts are made."""
    page = Page(app, request.state.viewer, request.cookies.get(_ZONE, ""))
    client = ui.context.client
    app.owners[client.id] = page.viewer.name
    client.on_delete(lambda: app.owners.pop(client.id, None))
    ui.page_title(f"{title} · Tidemill")
    ui.add_css(_STYLE)
    ui.colors(primary=_COLOUR)
    dark = ui.dark_mode({"dark": True, "light": False}.get(request.cookies.get(_LIGHT, "")))
    with box("tm-top", "header"), box("tm-bar"):
        link("Tidemill", "/", "tm-mark")
        with box("tm-nav", "nav") as nav:
            nav.props["aria-label"] = "pages"
            for name, word in _TABS if model else ():
                made = link(word, f"/models/{model}" + (f"/{name}" if name else ""), "")
                if name == tab:
                    made.props["aria-current"] = "page"
        Text(f"{page.viewer.name} · {page.viewer.role}", classes="tm-who")
        button("Light / dark", lambda: _turn(dark))
    with box("tm-page"):
        yield page
        with box("tm-foot"):
            page.foot()
    ui.timer(_EVERY_S, page.look)
    await page.look_first()


async def _turn(dark: ui.dark_mode) -> None:
    is_dark = await ui.run_javascript("document.body.classList.contains('body--dark')")
    dark.set_value(not is_dark)
    ui.run_javascript(f"document.cookie = '{_LIGHT}={'light' if is_dark else 'dark'}{_KEPT}'")
