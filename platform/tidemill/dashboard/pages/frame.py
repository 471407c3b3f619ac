"""The frame of every page: who is there, where they are, their clock and their light, and what keeps the page live."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from nicegui import run, ui
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
_COLOUR = "#12857b"
_TABS = (
    ("", "Overview"),
    ("rollout", "Rollout"),
    ("browse", "Browse"),
    ("labels", "Labels"),
    ("versions", "Runs & versions"),
)
_ABOUT_VIEWER = (
    "({zone: Intl.DateTimeFormat().resolvedOptions().timeZone, light: localStorage.getItem('tidemill-light') || ''})"
)


class App:
    """What every page is given."""

    def __init__(self, sources: Sources, desk: Desk, pictures: Pictures) -> None:
        self.sources, self.desk, self.pictures = sources, desk, pictures
        self.owners: dict[str, str] = {}
        """Names of the viewers for whom pages were made, by NiceGUI's client."""


class Page:
    """One page that somebody looks at."""

    def __init__(self, app: App, viewer: Viewer) -> None:
        self.app, self.viewer, self.times = app, viewer, Times()
        self._parts: list[Live[Any]] = []
        self._known = False

    @property
    def now(self) -> Any:
        """The time."""
        return self.app.sources.machine.clock.now()

    def live(self, read: Callable[[], Awaitable[Any]], draw: Callable[[Any], Any]) -> Live[Any]:
        """A part that is kept up to date while the page is open."""
        part = Live(read, draw)
        self._parts.append(part)
        return part

    async def look(self) -> None:
        """Bring all parts up to date; before the first time the browser is asked for its zone."""
        if not self._known:
            self._known = True
            await self._learn()
        await asyncio.gather(*(part.refresh() for part in self._parts))

    async def do(self, action: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """Do something on a thread and tell the viewer what went wrong; None then."""
        try:
            return await run.io_bound(lambda: action(self.viewer, *arguments, **more))
        except TidemillError as error:
            tell(error.message + (f" ({error.hint})" if error.hint else ""), "negative")
            return None

    async def _learn(self) -> None:
        try:
            told = await ui.run_javascript(_ABOUT_VIEWER, timeout=3.0)
            self.times.zone = ZoneInfo(str(told["zone"]))
            self._zone_text.set_text(f"times in {self.times.zone.key}")
            if told["light"] in {"dark", "light"}:
                self._dark.set_value(told["light"] == "dark")
        except (TimeoutError, ZoneInfoNotFoundError, TypeError, KeyError, ValueError):
            return  # UTC it is, and the browser's own light

    def chrome(self, dark: ui.dark_mode, zone: Text) -> None:
        """The parts of the frame that follow the browser."""
        self._dark, self._zone_text = dark, zone


@contextmanager
def frame(app: App, request: Request, title: str, model: str = "", tab: str = "") -> Iterator[Page]:
    """A page within the frame; in the block its parts are made."""
    page = Page(app, request.state.viewer)
    client = ui.context.client
    app.owners[client.id] = page.viewer.name
    client.on_delete(lambda: app.owners.pop(client.id, None))
    ui.page_title(f"{title} · Tidemill")
    ui.add_css(_STYLE)
    ui.colors(primary=_COLOUR)
    dark = ui.dark_mode(None)
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
            zone = Text("times in UTC")
    page.chrome(dark, zone)
    ui.timer(_EVERY_S, page.look)


async def _turn(dark: ui.dark_mode) -> None:
    is_dark = await ui.run_javascript("document.body.classList.contains('body--dark')")
    dark.set_value(not is_dark)
    ui.run_javascript(f"localStorage.setItem('tidemill-light', '{'light' if is_dark else 'dark'}')")
