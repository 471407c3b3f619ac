"""The page to look at predictions: of a slice, by confidence, kind of error, station and time; and to repair labels."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from nicegui import ui
from starlette.requests import Request

from tidemill.dashboard.desk import Change
from tidemill.dashboard.pages.editor import Editor
from tidemill.dashboard.pages.frame import App, Page, frame
from tidemill.dashboard.pages.model import head, known
from tidemill.dashboard.pages.parts import Live, Text, box, button, panel, state
from tidemill.dashboard.pages.tiles import ANSWER, TRUE, caption, shot
from tidemill.dashboard.pages.undoing import Undoing
from tidemill.dashboard.pictures import Shown
from tidemill.dashboard.queries.browse import KINDS, Kind, Thing, Wanted
from tidemill.dashboard.queries.groups import groups_of
from tidemill.dashboard.queries.labelling import before_of, choices_of, is_repair, value_of
from tidemill.dashboard.shared import Seen
from tidemill.dashboard.sources import PAGE, FoundShown
from tidemill.spec.model import ContinualModel

__all__ = ["browse_page"]

_TIMES = {0: "any time", 15: "last 15 minutes", 60: "last hour", 24 * 60: "last day", 7 * 24 * 60: "last week"}
_ORDERS = ("newest", "least sure", "surest")
_ANY = "any"


async def browse_page(app: App, request: Request, model: str) -> None:
    """Predictions of a model."""
    resource = await known(app, request, model)
    if resource is None:
        return
    async with frame(app, request, f"Browse {model}", model, "browse") as page:
        with box("tm-head"):
            head(page, resource)
        _Browser(page, resource, _wanted(request))


def _wanted(request: Request) -> Wanted:
    """What a link asks for: an entity, and a kind."""
    asked = request.query_params
    kind: Kind = next((one for one in KINDS if one == asked.get("kind")), "any")
    return Wanted(entity=asked.get("entity", "")[:200], kind=kind)


class _Browser:
    """What is looked for, a page of it, and what is chosen of that."""

    def __init__(self, page: Page, resource: ContinualModel, wanted: Wanted) -> None:
        self._page, self._resource = page, resource
        self._wanted, self._skip = wanted, 0
        self._chosen: dict[str, Thing] = {}
        self._things: Sequence[Thing] = ()
        self._shown: dict[str, Shown] = {}
        self._choosing = False
        self._held: Seen[FoundShown] | None = None
        """What is shown while things are chosen: it must not move under the hand."""
        self._tiles: dict[str, ui.element] = {}
        self._fields: dict[str, ui.select] = {}
        self._groups: dict[str, ui.select] = {}
        with panel("What to look at"):
            self._draw_filters()
        with panel("Predictions"):
            self._part: Live[FoundShown] = page.live(self._read, self._draw)
        self._bulk = box("tm-bulk")
        self._bulk.set_visibility(False)
        self._undoing = Undoing(page)
        self._editor = Editor(page, resource, self._undoing)

    async def _read(self) -> Seen[FoundShown]:
        if self._held is not None and self._choosing:
            return self._held
        self._held = await self._page.app.sources.found.of((self._resource.id, self._wanted, self._skip)).get()
        return self._held

    def _draw_filters(self) -> None:
        entity = self._resource.spec.events.entity.name
        with box("tm-row"):
            self._select("entity", entity, [self._wanted.entity or _ANY])
            self._select("kind", "kind", list(KINDS))
            for name in groups_of(self._resource):
                self._select_group(name)
            self._select("answer", "answer", [_ANY])
            self._select("version", "version", [_ANY])
            times = ui.select(_TIMES, value=0, label="time", on_change=lambda e: self._want(minutes=e.value))
            times.props("outlined dense").classes("tm-field")
            order = ui.select(
                list(_ORDERS), value="newest", label="order", on_change=lambda e: self._want(order=e.value)
            )
            order.props("outlined dense").classes("tm-field")
            for name, label in (("least", "confidence from"), ("most", "to")):
                self._bound(name, label)

    def _bound(self, name: str, label: str) -> None:
        """One end of the confidence that is looked for."""

        def typed(event: Any) -> None:
            if isinstance(event.value, int | float):
                self._want(**{name: float(event.value)})

        made = ui.number(label, value=getattr(self._wanted, name), min=0, max=1, step=0.05, on_change=typed)
        made.props("outlined dense debounce=400").classes("tm-field")

    def _select(self, name: str, label: str, options: list[str]) -> None:
        value = str(getattr(self._wanted, name)) or _ANY

        def chosen(event: Any) -> None:
            self._want(**{name: event.value if name == "kind" or event.value != _ANY else ""})

        made = ui.select(options, value=value, label=label, on_change=chosen).props("outlined dense")
        self._fields[name] = made.classes("tm-field")

    def _select_group(self, name: str) -> None:
        """A slice that the resource declares, by the value of a field."""

        def chosen(event: Any) -> None:
            others = tuple(one for one in self._wanted.groups if one[0] != name)
            self._want(groups=others if event.value == _ANY else (*others, (name, str(event.value))))

        value = dict(self._wanted.groups).get(name, _ANY)
        made = ui.select([value], value=value, label=name, on_change=chosen).props("outlined dense")
        self._groups[name] = made.classes("tm-field")

    def _want(self, **changes: Any) -> None:
        self._wanted, self._skip = replace(self._wanted, **changes), 0
        self._look()

    def _look(self) -> None:
        self._held = None
        self._part.forget()
        ui.timer(0.01, self._part.refresh, once=True)

    def _draw(self, seen: FoundShown) -> None:
        found, shown = seen
        self._things, self._shown = found.things, dict(shown)
        self._offer("entity", found.entities)
        self._offer("answer", found.answers)
        self._offer("version", found.versions)
        for name, values in found.groups:
            now = dict(self._wanted.groups).get(name, _ANY)
            self._groups[name].set_options(list(dict.fromkeys((_ANY, now, *values))), value=now)
        with box("tm-row"):
            first = self._skip + 1 if found.things else 0
            Text(f"{first:,} to {self._skip + len(found.things):,} of {found.total:,}", "strong")
            Text(f"among the newest {found.looked_at:,} predictions", "span", "tm-dim")
            box().style("flex:1")
            self._bar = box("tm-row")
            self._draw_bar(found.total)
        self._tiles = {}
        if not found.things:
            state("Nothing is like that. Look for something wider.")
            return
        with box("tm-tiles"):
            for place, thing in enumerate(found.things):
                self._tile(place, thing)

    def _offer(self, name: str, values: Sequence[str]) -> None:
        now = str(getattr(self._wanted, name)) or _ANY
        self._fields[name].set_options(list(dict.fromkeys((_ANY, now, *values))), value=now)

    def _draw_bar(self, total: int) -> None:
        self._bar.clear()
        with self._bar:
            if self._page.viewer.may("label"):
                button("Done choosing" if self._choosing else "Choose several", partial(self._turn, total))
                if self._choosing:
                    button("Choose all shown", self._all)
            for word, step in (("← Newer", -PAGE), ("Older →", PAGE)):
                made = button(word, partial(self._turn_page, step))
                if not 0 <= self._skip + step < total:
                    made.props("disable")

    def _turn_page(self, step: int) -> None:
        self._skip = max(0, self._skip + step)
        self._look()

    def _turn(self, total: int) -> None:
        """Begin to choose, or end it."""
        self._choosing = not self._choosing
        self._chosen = {}
        self._mark()
        self._draw_bar(total)

    def _all(self) -> None:
        self._chosen |= {one.prediction_id: one for one in self._things}
        self._mark()

    def _mark(self) -> None:
        """Show what is chosen, in place: a click on what is just drawn anew would be lost."""
        for name, tile in self._tiles.items():
            is_chosen = name in self._chosen
            tile.classes(add="chosen") if is_chosen else tile.classes(remove="chosen")
            tile.props["aria-pressed"] = "true" if is_chosen else "false"
        self._draw_bulk()

    def _tile(self, place: int, thing: Thing) -> None:
        is_chosen = thing.prediction_id in self._chosen
        with box(f"tm-tile {'chosen' if is_chosen else ''}", "button") as tile:
            self._tiles[thing.prediction_id] = tile
            tile.props["aria-pressed"] = "true" if is_chosen else "false"
            drawn = [(thing.box, ANSWER, True), (thing.label_box, TRUE, False)]
            shot(self._shown.get(thing.prediction_id), drawn, f"{thing.entity}, answered {thing.answer}")
            caption(thing)
        tile.on("click", partial(self._open, place, thing))

    def _open(self, place: int, thing: Thing) -> None:
        if not self._choosing:
            self._editor.open(self._things, self._shown, place)
            return
        if self._chosen.pop(thing.prediction_id, None) is None:
            self._chosen[thing.prediction_id] = thing
        self._mark()

    def _draw_bulk(self) -> None:
        self._bulk.clear()
        self._bulk.set_visibility(self._choosing)
        with self._bulk:
            Text(f"{len(self._chosen):,} chosen: they are", "strong")
            for name in choices_of(self._resource):
                made = button(name, partial(self._say, name), "main")
                if not self._chosen:
                    made.props("disable")
            Text("a box that is there stays", "span", "tm-dim")

    async def _say(self, name: str) -> None:
        changes = [
            Change(
                one.about,
                value_of(self._resource, name, one.label_box or one.box),
                before_of(self._resource, one),
                is_repair(one),
            )
            for one in self._chosen.values()
        ]
        batch = await self._page.do(self._page.app.desk.say, self._resource, changes)
        if batch is not None:
            self._undoing.offer(batch, len(changes))
            self._choosing, self._chosen = False, {}
            self._draw_bulk()
            self._look()
