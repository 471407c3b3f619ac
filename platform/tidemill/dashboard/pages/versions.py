"""The page of runs and versions: why each was made, what its gates said, how two compare, and their model cards."""

from collections.abc import Sequence
from functools import partial

from nicegui import ui
from starlette.requests import Request

from tidemill.core.errors import TidemillError
from tidemill.dashboard.pages.frame import App, Page, frame
from tidemill.dashboard.pages.model import head, known
from tidemill.dashboard.pages.parts import Text, badge, box, button, fact, panel, state, table
from tidemill.dashboard.queries.versions import VersionRow, compare, lineage_of, runs_of
from tidemill.dashboard.sources import ModelView

__all__ = ["versions_page"]

_PLACES = {"champion": "good", "candidate": "run", "previous": ""}
_VERDICTS = {"passed": "good", "refused": "bad", "not applicable": ""}


def versions_page(app: App, request: Request, model: str) -> None:
    """Runs and versions of a model."""
    resource = known(app, request, model)
    if resource is None:
        return
    with frame(app, request, f"Versions of {model}", model, "versions") as page:
        with box("tm-head"):
            head(page, resource)
        with panel("Runs", about="the newest; each is a version's name"):
            page.live(app.sources.model.of(model).get, partial(_runs, page))
        with panel("Versions"):
            page.live(app.sources.versions.of(model).get, partial(_versions, page))
        chosen = _Chosen(page, model)
        with panel("Two versions beside each other"):
            page.live(app.sources.versions.of(model).get, chosen.draw)


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


def _versions(page: Page, found: Sequence[VersionRow]) -> None:
    if not found:
        state("No version was made yet.")
        return
    rows = [
        (
            partial(_name, one),
            page.times.full(one.created_at),
            f"{one.cause}: {one.reason}",
            partial(_data, one),
            partial(_gates, one),
            partial(_more, one, found),
        )
        for one in found
    ]
    table(("version", "made", "why", "data", "gates", ""), rows)


def _name(one: VersionRow) -> None:
    Text(one.version, classes="tm-mono")
    if one.place:
        badge(one.place, _PLACES.get(one.place, ""))


def _data(one: VersionRow) -> None:
    Text(one.snapshot[:12], classes="tm-mono")
    Text(f"weights from {one.warm_from}" if one.warm_from else "from scratch", classes="tm-sub")


def _gates(one: VersionRow) -> None:
    with box("tm-row"):
        for gate in one.gates:
            badge(gate.name, _VERDICTS.get(gate.verdict, "")).tooltip(f"{gate.verdict}: {gate.reason}")


def _more(one: VersionRow, known: Sequence[VersionRow]) -> None:
    made = button("Card", partial(_card, one, known))
    made.props["aria-label"] = f"model card of {one.version}"


def _card(one: VersionRow, known: Sequence[VersionRow]) -> None:
    # Beside the live parts of the page: within one, its next showing would take the dialog away.
    with ui.context.client.content, ui.dialog() as dialog, box("tm-dialog tm-col").style("width:860px"):
        Text(f"Model card of {one.version}", "h2", "tm-title")
        made_from, went_into = lineage_of(one.version, known)
        with box("tm-facts"):
            fact("learnt from the snapshot", one.snapshot[:12] or "—")
            fact("started from the weights of", " ← ".join(made_from) or "none: from scratch")
            fact("its weights went into", ", ".join(went_into) or "nothing yet")
        with box("tm-scroll"):
            for gate in one.gates:
                with box("tm-row"):
                    badge(gate.verdict, _VERDICTS.get(gate.verdict, ""))
                    Text(f"{gate.name}: {gate.reason}" if gate.reason else gate.name)
        card = Text(one.card or "This version has no model card.", classes="tm-card")
        card.props["tabindex"] = "0"
        button("Close", dialog.close)
    dialog.on("hide", dialog.delete)
    dialog.open()


class _Chosen:
    """Which two versions are compared: at first the two newest."""

    def __init__(self, page: Page, model: str) -> None:
        self._page, self._model = page, model

    def draw(self, found: Sequence[VersionRow]) -> None:
        """Two choices, and what differs."""
        if len(found) < 2:
            state("There are not two versions yet.")
            return
        names = [one.version for one in found]
        by_name = {one.version: one for one in found}
        with box("tm-row"):
            one = ui.select(names, value=names[1], label="one").props("outlined dense").classes("tm-field")
            other = ui.select(names, value=names[0], label="the other").props("outlined dense").classes("tm-field")
        place = box("tm-col")

        async def show() -> None:
            try:
                points = (await self._page.app.sources.quality.of(self._model).get()).loaded[1]
            except TidemillError:
                points = ()
            place.clear()
            with place:
                rows = compare(by_name[one.value], by_name[other.value], points)
                table(("", one.value, other.value), [(row.name, row.one, row.other) for row in rows])

        one.on_value_change(show)
        other.on_value_change(show)
        ui.timer(0.1, show, once=True)
