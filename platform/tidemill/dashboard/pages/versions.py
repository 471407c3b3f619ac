"""The page of runs and versions: why each was made, what its gates said, and how two compare."""

import asyncio
from collections.abc import Sequence
from functools import partial
from urllib.parse import quote

from nicegui import ui
from starlette.requests import Request

from tidemill.dashboard.pages.frame import App, Page, frame
from tidemill.dashboard.pages.model import head, known
from tidemill.dashboard.pages.parts import Text, away, badge, box, link, panel, percent, state, table
from tidemill.dashboard.pages.tiles import ANSWER, OTHER, shot, sure
from tidemill.dashboard.queries.links import links_of
from tidemill.dashboard.queries.sides import Side, SlicePair
from tidemill.dashboard.queries.versions import VersionRow, compare, runs_of
from tidemill.dashboard.shared import Seen
from tidemill.dashboard.sources import DifferingShown, ModelView

__all__ = ["PLACES", "VERDICTS", "elsewhere", "versions_page"]

PLACES = {"champion": "good", "candidate": "run", "previous": ""}
VERDICTS = {"passed": "good", "refused": "bad", "not applicable": ""}


async def versions_page(app: App, request: Request, model: str) -> None:
    """Runs and versions of a model."""
    resource = await known(app, request, model)
    if resource is None:
        return
    async with frame(app, request, f"Versions of {model}", model, "versions") as page:
        with box("tm-head"):
            head(page, resource)
        with panel("Runs", about="the newest; each is a version's name"):
            elsewhere(app, model)
            page.live(app.sources.model.of(model).get, partial(_runs, page))
        with panel("Versions"):
            page.live(app.sources.versions.of(model).get, partial(_versions, page, model))
        chosen = _Chosen(page, model)
        with panel("Two versions beside each other"):
            page.live(app.sources.versions.of(model).get, chosen.draw)


def elsewhere(app: App, model: str) -> None:
    """Links to where else the runs and versions of a model are shown, if anywhere."""
    found = links_of(app.sources.machine.settings, model)
    if found:
        with box("tm-row"):
            for words, address in found:
                away(words, address)


def _runs(page: Page, view: ModelView) -> None:
    runs = runs_of(view[1])
    if not runs:
        state("No run is among the last decisions.")
        return
    tone = {True: "bad", False: ""}
    rows = [
        (
            page.times.full(one.began),
            partial(Text, one.run, "div", "tm-mono"),
            one.cause,
            one.reason,
            partial(Text, one.ended or "goes on", "div", f"tm-state-text {tone[one.failed]}"),
        )
        for one in runs
    ]
    table(("began", "run", "cause", "why", "what became of it"), rows)


def _versions(page: Page, model: str, found: Sequence[VersionRow]) -> None:
    if not found:
        state("No version was made yet.")
        return
    rows = [
        (
            partial(_name, model, one),
            page.times.full(one.created_at),
            f"{one.cause}: {one.reason}",
            partial(_data, one),
            partial(_gates, one),
        )
        for one in found
    ]
    table(("version", "made", "why", "data", "gates"), rows)


def _name(model: str, one: VersionRow) -> None:
    link(one.version, f"/models/{model}/versions/{quote(one.version, safe='')}", "tm-link tm-mono")
    if one.place:
        badge(one.place, PLACES.get(one.place, ""))


def _data(one: VersionRow) -> None:
    Text(one.snapshot[:12], classes="tm-mono")
    Text(f"weights from {one.warm_from}" if one.warm_from else "from scratch", classes="tm-sub")


def _gates(one: VersionRow) -> None:
    with box("tm-row"):
        for gate in one.gates:
            badge(gate.name, VERDICTS.get(gate.verdict, "")).tooltip(f"{gate.verdict}: {gate.reason}")


class _Chosen:
    """Which two versions are compared: at first the two newest."""

    def __init__(self, page: Page, model: str) -> None:
        self._page, self._model = page, model

    def draw(self, found: Sequence[VersionRow]) -> None:
        """Two choices, what differs, and what they answered differently."""
        if len(found) < 2:
            state("There are not two versions yet.")
            return
        names = [one.version for one in found]
        by_name = {one.version: one for one in found}
        with box("tm-row"):
            one = ui.select(names, value=names[1], label="one").props("outlined dense").classes("tm-field")
            other = ui.select(names, value=names[0], label="the other").props("outlined dense").classes("tm-field")
        place, slices, examples = box("tm-col"), box("tm-col"), box("tm-col")

        async def show() -> None:
            chosen = one.value, other.value
            points = (await self._page.app.sources.quality.of(self._model).get()).value or (0, ())
            place.clear()
            with place:
                rows = compare(by_name[chosen[0]], by_name[chosen[1]], points[1])
                table(("", *chosen), [(row.name, row.one, row.other) for row in rows])
            slices.clear()
            examples.clear()
            with slices:
                box("tm-wait").props.update({"role": "status", "aria-label": "loading"})
            sources, key = self._page.app.sources, (self._model, *chosen)
            beside, seen = await asyncio.gather(sources.sides.of(key).get(), sources.differing.of(key).get())
            if chosen == (one.value, other.value) and not examples.is_deleted:
                slices.clear()
                examples.clear()
                with slices:
                    _slices(beside, chosen)
                with examples:
                    _differing(seen, chosen)

        one.on_value_change(show)
        other.on_value_change(show)
        ui.timer(0.1, show, once=True)


def _slices(seen: Seen[tuple[SlicePair, ...]], chosen: tuple[str, str]) -> None:
    Text("How right they are", "h3", "tm-title")
    if not seen.value:
        state(seen.error.message if seen.error else "No answer has come of age yet.", "bad" if seen.error else "")
        return
    Text("error of the newest outcomes of each, with its 95 % interval; the furthest apart first", classes="tm-sub")
    rows: list[Sequence[object]] = [
        (f"{one.by} {one.name}".strip() or "all", *_side(one.one), *_side(one.other)) for one in seen.value
    ]
    table(("slice", chosen[0], "outcomes", chosen[1], "outcomes"), rows, numbers=(1, 2, 3, 4))


def _side(side: Side | None) -> tuple[str, str]:
    if side is None:
        return "—", "0"
    return f"{percent(side.error)} ({percent(side.low)} to {percent(side.high)})", f"{side.outcomes:,}"


def _differing(seen: Seen[DifferingShown], chosen: tuple[str, str]) -> None:
    Text("Where they differ", "h3", "tm-title")
    if seen.value is None:
        state(seen.error.message if seen.error else "", "bad")
        return
    found, shown = seen.value
    if found.note:
        state(found.note, "bad")
    if not found.both:
        state("No event among the newest was answered by both. With rollout.shadow a candidate answers copies of all.")
        return
    told = f"{found.differ:,} of the {found.both:,} requests that both answered got different answers"
    Text(told + (f"; {found.copies:,} by a copy, which no user saw" if found.copies else ""), classes="tm-sub")
    with box("tm-tiles"):
        for pair in found.pairs:
            with box("tm-tile").style("cursor:default"):
                drawn = [(pair.one.box, ANSWER, True), (pair.other.box, OTHER, True)]
                shot(shown.get(pair.one.prediction_id), drawn, f"event of {pair.one.entity}")
                with box("t"):
                    for version, thing in zip(chosen, (pair.one, pair.other), strict=True):
                        Text(f"{thing.answer}{sure(thing)}", "strong")
                        Text(version, classes="tm-mono tm-dim")
                    label = pair.other.label or pair.one.label
                    Text(f"true: {label}" if label else "no label yet")
                    if pair.is_copy:
                        badge("a copy")
