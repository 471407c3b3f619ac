"""The page of one model: the loop, what happened and why, how right it is, what moved, and where it is worse."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nicegui import ui
from starlette.requests import Request

from tidemill.core.errors import NotFound, TidemillError
from tidemill.dashboard.pages import asking
from tidemill.dashboard.pages.charts import Chart, drift_bars, quality_chart
from tidemill.dashboard.pages.frame import App, Page, frame
from tidemill.dashboard.pages.loop_picture import loop_picture
from tidemill.dashboard.pages.models import phase_badge
from tidemill.dashboard.pages.parts import Text, badge, box, fact, link, panel, percent, state, table
from tidemill.dashboard.queries.drift import FeatureDrift
from tidemill.dashboard.queries.models import Headline
from tidemill.dashboard.queries.quality import QualityPoint
from tidemill.dashboard.sources import ModelView
from tidemill.outcomes.slices import GroupGap, SliceReport
from tidemill.spec.model import ContinualModel
from tidemill.watch.health import Line

__all__ = ["head", "known", "model_page"]

_TONES = {"ok": "good", "warn": "warn", "bad": "bad", "unknown": ""}


async def model_page(app: App, request: Request, model: str) -> None:
    """One model at a glance."""
    resource = await known(app, request, model)
    if resource is None:
        return
    sources = app.sources
    async with frame(app, request, model, model) as page:
        with box("tm-head"):
            head(page, resource)
            asking.buttons(page, resource, ("retrain", "revert"))
        with panel("The loop"):
            page.live(sources.model.of(model).get, _loop)
        with box("tm-grid"):
            with panel("Why not now", "tm-5", "what stands against a run, and what each trigger waits for"):
                page.live(sources.model.of(model).get, _why)
            with panel("How right it is", "tm-7", "of the champion's answers of the last day"):
                page.live(sources.headlines.of(model).get, _headline)
            with panel(
                "Quality over time", "tm-7", "the error of each version with its 95 % band; below, what has no label"
            ):
                page.live(sources.quality.of(model).get, _quality)
            with panel("What happened, and why", "tm-5"):
                page.live(sources.model.of(model).get, partial(_timeline, page))
            with panel("Drift", about="votes of the newest events beside those that the champion was made with"):
                page.live(sources.drift.of(model).get, _drift)
            with panel("Slices", "tm-7", "where answers are worse, among the newest"):
                page.live(sources.slices.of(model).get, _slices)
            with panel("System", "tm-5", "processes, data and labels as `tidemill health` has them"):
                page.live(sources.health.of(model).get, _health)


async def known(app: App, request: Request, model: str) -> ContinualModel | None:
    """The resource; None after a page that says that there is none."""
    try:
        return app.sources.resource(model)
    except TidemillError as error:
        async with frame(app, request, "Not found"):
            Text("There is no such model" if isinstance(error, NotFound) else "This model cannot be shown", "h1")
            state(error.message, "bad")
            link("All models", "/")
        return None


def head(page: Page, resource: ContinualModel) -> None:
    """The model's name and how it stands, kept up to date."""
    Text(resource.metadata.name, "h1")
    page.live(page.app.sources.model.of(resource.id).get, _phase)


def _phase(view: ModelView) -> None:
    row = view[0]
    with box("tm-row"):
        phase_badge(row)
        for name in row.drift:
            badge(f"drift: {name}", "warn")


def _loop(view: ModelView) -> None:
    row, status, *_ = view
    # Drawn on the server, with everything in it escaped; the browser's cleaning would take its markers.
    ui.html(loop_picture(row, status), sanitize=False)
    for trouble in row.troubles:
        state(trouble, "bad")


def _why(view: ModelView) -> None:
    _, status, why, *_ = view
    if status is None:
        state("control has not seen this model yet; is it running?")
        return
    with box("tm-list tm-why", "ul"):
        for reason in why or ("nothing: a run starts at the next tick",):
            Text(reason, "li")


def _headline(seen: Headline | None) -> None:
    if seen is None:
        state("No answer has come of age yet.")
        return
    with box("tm-row"):
        Text(percent(seen.error, 2), classes="tm-big")
        Text("error", classes="tm-dim")
    with box("tm-facts"):
        is_sure = seen.kind != "labelled only"
        fact("95 % interval", f"{percent(seen.low)} to {percent(seen.high)}" if is_sure else "none")
        fact("answers that came of age", f"{seen.outcomes:,}")
        fact("with a label", f"{seen.labelled:,}")
        fact("labels to come", f"{seen.waiting:,}")
    Text(seen.version, classes="tm-sub tm-mono")
    if seen.kind == "labelled only":
        Text("of the labelled answers alone (labels.control: 0): it may be far from that of all", classes="tm-sub")


def _quality(found: tuple[int, tuple[QualityPoint, ...]]) -> Callable[[Any], bool] | None:
    if not found[1]:
        state("No answer has come of age yet.")
        return None
    chart = Chart(quality_chart(found[1]), "tall")
    return lambda new: bool(new[1]) and chart.show(quality_chart(new[1]))


def _timeline(page: Page, view: ModelView) -> None:
    entries = view[3]
    if not entries:
        state("Nothing has happened yet.")
        return
    with box("tm-list tm-events", "ol") as around:
        around.props["tabindex"] = "0"
        for one in entries:
            with box(tag="li"):
                Text(page.times.full(one.time), "time")
                box(f"tm-dot {one.tone}", "span")
                with box():
                    with box("tm-row"):
                        Text(one.kind, "strong")
                        Text(one.subject, "span", "tm-mono tm-dim")
                    Text(one.reason)
                    if one.figures:
                        Text(one.figures, classes="tm-sub tm-clamp").tooltip(one.figures)


def _drift(found: Sequence[FeatureDrift]) -> Callable[[Sequence[FeatureDrift]], bool] | None:
    if not found:
        state("Nothing is watched yet: there is no champion, or the resource declares no triggers.drift.")
        return None
    with box("tm-features"):
        cards = [_Feature(one) for one in found]

    def update(new: Sequence[FeatureDrift]) -> bool:
        if [(one.name, one.state) for one in new] != [(one.name, one.state) for one in found]:
            return False
        shown = [card.show(one) for card, one in zip(cards, new, strict=True)]
        return all(shown)

    return update


class _Feature:
    """The card of one quantity."""

    def __init__(self, one: FeatureDrift) -> None:
        words = {"alarm": "moved", "ok": "as before"}
        with box(f"tm-feature {one.state}"):
            with box("tm-row"):
                Text(one.name, "h3")
                badge(words.get(one.state, "not watched"), {"alarm": "warn", "ok": "good"}.get(one.state, ""))
            self._figures = Text("", classes="tm-sub")
            self._chart = Chart(drift_bars(one), "small") if one.bars else None
            self._told = [Text("", classes="tm-sub") for _ in range(2)]
        self.show(one)

    def show(self, one: FeatureDrift) -> bool:
        """Bring it up to date; whether it could be."""
        figures = [f"evidence {one.evidence:.2g} of 1"]
        if one.before is not None:
            figures.append(f"mean {one.before:.3g}" + ("" if one.now is None else f" → {one.now:.3g}"))
        self._figures.set_text(", ".join(figures))
        for place, text in zip(self._told, (one.reason or one.finds, one.note), strict=True):
            place.set_text(text)
            place.set_visibility(bool(text))
        if self._chart is None:
            return not one.bars
        return bool(one.bars) and self._chart.show(drift_bars(one))


def _slices(found: SliceReport | None) -> None:
    if found is None:
        state("No answer has come of age yet.")
        return
    for gap in found.gaps:
        _groups(gap)
    if found.found:
        rows = [
            (
                one.name,
                percent(one.error),
                f"{percent(one.interval.low)} to {percent(one.interval.high)}",
                percent(one.elsewhere),
                f"{one.outcomes:,}",
            )
            for one in found.found
        ]
        table(("worst slices", "error", "95 % interval", "elsewhere", "outcomes"), rows, numbers=(1, 2, 3, 4))
    else:
        looked = f"{found.candidates:,} slices were looked at in {found.outcomes:,} outcomes"
        state(f"No slice is surely worse than elsewhere: {looked}.")


def _groups(gap: GroupGap) -> None:
    rows = [
        (one.name, f"{one.outcomes:,}", percent(one.mean), _interval(one.is_judged, one.interval)) for one in gap.groups
    ]
    table((gap.by, "outcomes", "error", "95 % interval"), rows, numbers=(1, 2, 3))


def _interval(is_judged: bool, interval: tuple[float, float]) -> str:
    return f"{percent(interval[0])} to {percent(interval[1])}" if is_judged else "too few"


def _health(lines: Sequence[Line]) -> None:
    order = ("bad", "warn", "unknown", "ok")
    shown = sorted(lines, key=lambda one: order.index(one.state))
    wrong = [one for one in shown if one.state in {"bad", "warn"}]
    with box("tm-row"):
        for name in order:
            count = sum(one.state == name for one in lines)
            if count:
                badge(f"{count} {name}", _TONES[name])
    if not wrong:
        state("Nothing is wrong.")
        return
    table(
        ("", "what", "why"),
        [(partial(badge, one.state, _TONES[one.state]), one.what, f"{one.why} {one.do}".strip()) for one in wrong[:12]],
    )
