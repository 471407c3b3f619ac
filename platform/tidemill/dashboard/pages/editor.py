"""The editor: one thing at a time, its label chosen by a key or a button, its box drawn with the mouse.

Keys: 1 to 9 a class, D no box, Enter save and go on, arrows the next or the one before, Esc close.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from nicegui import events, run, ui

from tidemill.core.errors import TidemillError
from tidemill.dashboard.desk import Change
from tidemill.dashboard.pages.frame import Page
from tidemill.dashboard.pages.parts import Text, box, button, tell
from tidemill.dashboard.pages.tiles import ANSWER, TRUE, boxes, shot
from tidemill.dashboard.pages.undoing import Undoing
from tidemill.dashboard.pictures import Shown
from tidemill.dashboard.queries.browse import Box, Thing
from tidemill.dashboard.queries.labelling import before_of, choices_of, drawn_box, is_repair, value_of
from tidemill.dashboard.queries.said import Said
from tidemill.spec.model import ContinualModel

__all__ = ["Editor"]

_CORNERS = ("left", "top", "right", "bottom")
_SIDE = 8
"""Labellers that are shown side by side."""


class Editor:
    """A dialog over some things.

    Args:
        page: whose it is.
        resource: the model.
        undoing: where what was said can be taken back.
        on_said: called after each label.
    """

    def __init__(
        self, page: Page, resource: ContinualModel, undoing: Undoing, on_said: Callable[[], None] = lambda: None
    ) -> None:
        self._page, self._resource, self._undoing, self._on_said = page, resource, undoing, on_said
        self._things: Sequence[Thing] = ()
        self._shown: Mapping[str, Shown] = {}
        self._at = 0
        self._choice = ""
        self._sees = False
        """Whether the page shows what others said of the thing."""
        self._box: Box | None = None
        self._begin: tuple[float, float] | None = None
        self._has_box = any(field.type == "box" for field in resource.spec.labels.fields)
        self._choices = choices_of(resource)
        with ui.dialog() as self._dialog:
            self._place = box("tm-dialog").style("width:1060px;max-width:96vw")
        self._keys = ui.keyboard(on_key=self._key, active=False)
        self._dialog.on("hide", lambda: self._keys.props.update(active=False))

    def open(self, things: Sequence[Thing], shown: Mapping[str, Shown], at: int = 0) -> None:
        """Show the things, from one of them on."""
        self._things, self._shown, self._at = tuple(things), shown, at
        self._keys.active = True
        self._dialog.open()
        self._draw()

    @property
    def _thing(self) -> Thing:
        return self._things[self._at]

    def _draw(self) -> None:
        thing = self._thing
        self._sees = is_repair(thing)
        self._choice = thing.label if thing.label is not None else thing.answer
        self._box = thing.label_box if thing.label is not None else thing.box
        self._place.clear()
        with self._place, box("tm-editor"):
            with box("tm-col"):
                self._draw_picture(thing)
            with box("tm-col"):
                self._draw_choice(thing)
                self._side = box("tm-col")
                with self._side:
                    box("tm-wait")
        ui.timer(0.05, self._draw_said, once=True)

    def _draw_picture(self, thing: Thing) -> None:
        shown = self._shown.get(thing.prediction_id)
        self._image: ui.interactive_image | None = None
        if shown is None or not self._page.viewer.may("label"):
            shot(shown, [(thing.box, ANSWER, True), (thing.label_box, TRUE, False)], f"event of {thing.entity}")
        else:
            wanted = ["mousedown", "mousemove", "mouseup"] if self._has_box else []
            self._image = ui.interactive_image(
                shown.source, on_mouse=self._mouse, events=wanted, cross=False, sanitize=False
            ).classes("tm-canvas")
            self._image.props["alt"] = f"picture of {thing.entity}"
            self._redraw()
        with box("tm-row tm-sub"):
            Text("dashed: the answer", "span").style(f"border-bottom:2px dashed {ANSWER}")
            Text("solid: what is true", "span").style(f"border-bottom:2px solid {TRUE}")
            if self._image is not None and self._has_box:
                Text("draw a box with the mouse", "span")

    def _draw_choice(self, thing: Thing) -> None:
        sure = "" if thing.confidence is None else f", {thing.confidence:.3f} sure"
        with box("tm-row"):
            Text(f"{thing.entity}: answered {thing.answer}{sure}", "h2", "tm-title")
            Text(f"{self._at + 1} of {len(self._things)}", "span", "tm-dim")
        Text(f"{thing.event_id or thing.prediction_id} · {thing.version}", classes="tm-sub tm-mono")
        Text(self._page.times.full(thing.at), classes="tm-sub")
        may = self._page.viewer.may("label")
        with box("tm-row") as self._buttons:
            self._draw_buttons()
        if self._has_box and may:
            with box("tm-row"):
                self._corners = [
                    ui.number(name, value=self._corner(place), format="%.1f", on_change=self._typed)
                    .props("outlined dense hide-bottom-space")
                    .style("width:92px")
                    for place, name in enumerate(_CORNERS)
                ]
                button("No box (D)", self._no_box)
        with box("tm-row"):
            save = button("Save and go on (Enter)", self._save, "main")
            if not may:
                save.props("disable")
                save.tooltip("takes a labeller")
            for word, step in (("← Before", -1), ("Next →", 1)):
                button(word, partial(self._go, step))
            button("Close", self._dialog.close)

    def _draw_buttons(self) -> None:
        self._buttons.clear()
        with self._buttons:
            if not self._choices:
                made = ui.number("value", value=_number(self._choice), on_change=self._numbered)
                made.props("outlined dense")
            for number, name in enumerate(self._choices, start=1):
                look: Literal["main", "quiet"] = "main" if name == self._choice else "quiet"
                made_button = button(f"{number}  {name}", partial(self._choose, name), look)
                made_button.props["aria-pressed"] = "true" if name == self._choice else "false"

    async def _draw_said(self) -> None:
        thing = self._thing
        try:
            said = await run.io_bound(self._page.app.sources.said, self._resource.id, thing) or ()
        except TidemillError:
            said = ()
        if thing is not self._thing or self._side.is_deleted:
            return
        self._sees = self._sees or bool(said)  # a label that has not come of age yet is shown, too
        self._side.clear()
        with self._side:
            Text("What labellers said" if said else "Nobody has labelled it yet", "h3", "tm-title")
            with box("tm-side"):
                for one in said[:_SIDE]:
                    self._draw_word(thing, one)

    def _draw_word(self, thing: Thing, one: Said) -> None:
        with box("tm-tile").style("cursor:default"):
            if self._shown:
                shot(self._shown.get(thing.prediction_id), [(one.box, TRUE, False)], f"as {one.labeller} has it")
            with box("t"):
                Text(one.labeller, "strong")
                Text(one.label)
                Text(self._page.times.full(one.at), classes="tm-dim")

    def _mouse(self, event: events.MouseEventArguments) -> None:
        at = event.image_x, event.image_y
        shown = self._shown.get(self._thing.prediction_id)
        if shown is None:
            return
        if event.type == "mousedown":
            self._begin = at
        elif self._begin is not None:
            found = drawn_box(self._begin, at, shown.width, shown.height)
            if event.type == "mouseup":
                self._begin = None
            if found is not None:
                self._set_box(found)
                if self._choices and self._choice in {self._choices[0], ""} and event.type == "mouseup":
                    self._choose(self._choices[1])  # what has a box was found

    def _set_box(self, found: Box | None) -> None:
        self._box = found
        for place, corner in enumerate(self._corners):
            corner.set_value(self._corner(place))
        self._redraw()

    def _redraw(self) -> None:
        shown = self._shown.get(self._thing.prediction_id)
        if self._image is not None and shown is not None:
            self._image.content = boxes([(self._thing.box, ANSWER, True), (self._box, TRUE, False)], shown.width)

    def _corner(self, place: int) -> float | None:
        return None if self._box is None else round(self._box[place], 1)

    def _typed(self) -> None:
        typed = [corner.value for corner in self._corners]
        shown = self._shown.get(self._thing.prediction_id)
        if shown is not None and all(isinstance(one, int | float) for one in typed):
            x0, y0, x1, y1 = map(float, typed)
            self._box = drawn_box((x0, y0), (x1, y1), shown.width, shown.height)
            self._redraw()

    def _numbered(self, event: events.ValueChangeEventArguments[Any]) -> None:
        self._choice = "" if event.value is None else str(event.value)

    def _no_box(self) -> None:
        self._set_box(None)

    def _choose(self, name: str) -> None:
        self._choice = name
        self._draw_buttons()

    def _go(self, step: int) -> None:
        self._at = (self._at + step) % len(self._things)
        self._draw()

    async def _save(self) -> None:
        thing = self._thing
        try:
            value = value_of(self._resource, self._choice, self._box)
        except ValueError:
            tell(f"{self._choice!r} is no number", "negative")
            return
        change = Change(thing.about, value, before_of(self._resource, thing), self._sees)
        batch = await self._page.do(self._page.app.desk.say, self._resource, [change])
        if batch is not None:
            self._undoing.offer(batch, 1)
            self._on_said()
            self._go(1)

    async def _key(self, event: events.KeyEventArguments) -> None:
        if not event.action.keydown or event.action.repeat:
            return
        name = event.key.name
        if name.isdecimal() and 0 < int(name) <= len(self._choices):
            self._choose(self._choices[int(name) - 1])
        elif name in {"ArrowRight", "ArrowLeft"}:
            self._go(1 if name == "ArrowRight" else -1)
        elif name.lower() == "d" and self._has_box and self._page.viewer.may("label"):
            self._no_box()
        elif name == "Enter":
            await self._save()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
