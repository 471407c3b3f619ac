"""The parts that pages are made of: text, panels, tables, states, and parts that are drawn anew when something changed.

Whatever is shown is set as text: none of it is ever taken for HTML.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, Generic, Literal, TypeVar
from zoneinfo import ZoneInfo

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from tidemill.core.clock import from_ms, to_ms
from tidemill.dashboard.shared import Seen

__all__ = [
    "Live",
    "Text",
    "Times",
    "away",
    "badge",
    "box",
    "button",
    "fact",
    "link",
    "panel",
    "percent",
    "state",
    "table",
    "tell",
]

T = TypeVar("T")
_SHORT = 24
"""Characters of a cell that is not broken into lines."""


class Text(TextElement):
    """An element that holds text alone."""

    def __init__(self, text: object, tag: str = "div", classes: str = "") -> None:
        super().__init__(tag=tag, text="" if text is None else str(text))
        if classes:
            self.classes(classes)


class Times:
    """Times as the viewer's own clock has them; UTC until their browser has told its zone."""

    def __init__(self) -> None:
        self.zone = ZoneInfo("UTC")

    def full(self, at_ms: int | None) -> str:
        """Day and time, such as `26 Nov 14:03:22`."""
        return "" if at_ms is None else from_ms(at_ms).astimezone(self.zone).strftime("%d %b %H:%M:%S")

    @staticmethod
    def ago(at_ms: int | None, now: datetime) -> str:
        """How long ago, in the largest unit."""
        if at_ms is None:
            return ""
        return _length(max(0, (to_ms(now) - at_ms) / 1000)) + " ago"


def _length(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def box(classes: str = "", tag: str = "div") -> ui.element:
    """An element that holds others."""
    return ui.element(tag).classes(classes)


@contextmanager
def panel(title: str, classes: str = "tm-12", about: str = "") -> Iterator[ui.element]:
    """A part of a page under a heading."""
    with box(f"tm-panel {classes}", "section") as made:
        Text(title, "h2")
        if about:
            Text(about, classes="tm-sub")
        yield made


def badge(text: str, tone: str = "") -> Text:
    """A word with a colour: `good`, `bad`, `warn`, `run`, `accent`, or none."""
    return Text(text, "span", f"tm-badge {tone}")


def button(word: str, on_click: Callable[..., Any], look: Literal["main", "quiet", "harm"] = "quiet") -> ui.button:
    """A button, in the colours of the page and not of the library."""
    return ui.button(word, on_click=on_click, color=None).classes(f"tm-btn-{look}").props("unelevated no-caps")


def fact(key: str, value: object) -> None:
    """A figure and what it is."""
    with box("tm-fact"):
        Text(key, classes="k")
        Text(value, classes="v")


def link(text: str, target: str, classes: str = "tm-link") -> Text:
    """A link within the dashboard."""
    made = Text(text, "a", classes)
    made.props["href"] = target
    return made


def away(text: str, address: str) -> Text:
    """A link to another site, which is not told where it was followed."""
    made = link(text, address)
    made.props["target"], made.props["rel"] = "_blank", "noopener noreferrer"
    return made


def state(text: str, tone: str = "") -> Text:
    """What stands where there is nothing to show."""
    made = Text(text, classes=f"tm-state {tone}")
    made.props["role"] = "status"
    return made


def tell(words: str, tone: Literal["positive", "negative", "warning"]) -> None:
    """Say what came of something, for some seconds at the top of the page."""
    ui.notify(words, type=tone, multi_line=True, position="top")


def table(
    head: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[int] = ()
) -> list[Callable[[Sequence[object]], None]]:
    """A plain table; a cell that can be called draws itself. `numbers`: columns that stand to the right.

    Returns of each row what draws it anew with other cells.
    """
    with box("tm-scroll") as around, box("tm-table", "table"):
        around.props["tabindex"] = "0"
        with box(tag="thead"), box(tag="tr"):
            for place, name in enumerate(head):
                Text(name, "th", "tm-num" if place in numbers else "").props["scope"] = "col"
        with box(tag="tbody"):
            lines = [box(tag="tr") for _ in rows]
    draws: list[Callable[[Sequence[object]], None]] = [partial(_draw_row, line, numbers) for line in lines]
    for draw, row in zip(draws, rows, strict=True):
        draw(row)
    return draws


def _draw_row(line: ui.element, numbers: Sequence[int], row: Sequence[object]) -> None:
    line.clear()
    with line:
        for place, cell in enumerate(row):
            is_short = isinstance(cell, str) and len(cell) <= _SHORT
            classes = " ".join(["tm-num"] * (place in numbers) + ["tm-nowrap"] * is_short)
            if callable(cell):
                with box(classes, "td"):
                    cell()
            else:
                Text(cell, "td", classes)


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent; a dash where it is not known."""
    return "—" if value is None else f"{value * 100:.{digits}f} %"


class Live(Generic[T]):
    """A part that is drawn anew where what it shows has changed; before that it waits, and it says what went wrong.

    Args:
        read: what is known now.
        draw: draws it into the part. What it returns, if anything, brings what is drawn up to date with another value,
            or says that it cannot: charts that are drawn anew every second would flicker.
    """

    def __init__(self, read: Callable[[], Awaitable[Seen[T]]], draw: Callable[[T], Callable[[T], bool] | None]) -> None:
        self._read, self._draw = read, draw
        self._shown: tuple[object, str] | None = None
        self._asked = self._looking = self._least = 0
        """Looks so far, those under way, and the first whose answer is still of use."""
        self._update: Callable[[T], bool] | None = None
        self._box = box("tm-col")
        with self._box:
            box("tm-wait").props.update({"role": "status", "aria-label": "loading"})

    @property
    def is_looking(self) -> bool:
        """Whether a look is under way."""
        return self._looking > 0

    async def refresh(self) -> None:
        """Look again. Of looks that overtake each other the last one counts."""
        mine = self._asked = self._asked + 1
        self._looking += 1
        try:
            seen = await self._read()
        finally:
            self._looking -= 1
        if mine >= self._least:
            self._least = mine
            self._show(seen)

    def _show(self, seen: Seen[T]) -> None:
        error = "" if seen.error is None else seen.error.message
        now = (seen.value, error)
        if now == self._shown or self._box.is_deleted:
            return
        was_wrong, self._shown = self._shown is not None and bool(self._shown[1]), now
        value: T = seen.value  # type: ignore[assignment]  # None is a value where T allows it
        if self._update is not None and not error and not was_wrong and self._update(value):
            return
        self._box.clear()
        self._update = None
        with self._box:
            if error:
                state(f"This cannot be read now: {error}", "bad")
            if seen.value is not None or seen.error is None:
                self._update = self._draw(value)

    def forget(self) -> None:
        """Draw anew at the next look, whatever has changed; what was asked before is of no use any more."""
        self._shown = self._update = None
        self._least = self._asked + 1
