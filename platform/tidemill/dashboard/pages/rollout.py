"""The page of a rollout: its steps, what was asked and is seen, and the evidence on its way to a verdict."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nicegui import ui
from nicegui.events import ValueChangeEventArguments
from starlette.requests import Request

from tidemill.dashboard.desk import Asking
from tidemill.dashboard.pages import asking
from tidemill.dashboard.pages.charts import Chart, trail_chart
from tidemill.dashboard.pages.frame import App, Page, frame
from tidemill.dashboard.pages.model import head, known
from tidemill.dashboard.pages.parts import Live, Text, badge, box, fact, panel, percent, state, table
from tidemill.dashboard.queries.groups import slices_by
from tidemill.dashboard.queries.rollout import Arm, RolloutView, TrailPoint
from tidemill.dashboard.shared import Seen
from tidemill.dashboard.sources import ModelView
from tidemill.outcomes.quality import ENTITY
from tidemill.rollout.report import ArmReport, Lift
from tidemill.spec.model import ContinualModel

__all__ = ["rollout_page"]

_FEW = 2
"""Points that make no line."""
_PHASES = {"awaiting-approval": "warn", "rolling-back": "bad"}
_Trail = tuple[RolloutView | None, tuple[TrailPoint, ...], bool]


async def rollout_page(app: App, request: Request, model: str) -> None:
    """The rollout of a model."""
    resource = await known(app, request, model)
    if resource is None:
        return
    async with frame(app, request, f"Rollout of {model}", model, "rollout") as page:
        with box("tm-head"):
            head(page, resource)
        with panel("Where it stands"):
            page.live(app.sources.model.of(model).get, partial(_stand, page, resource))
        with box("tm-grid"):
            with panel(
                "Evidence on its way to the verdict",
                "tm-7",
                "e-values: the odds that bets against “it is worse” and “it is no worse” have won so far",
            ):
                page.live(partial(_trail_of, app, model), _trail)
            with panel("The two versions", "tm-5", "what was asked for and what is seen at the proxy"):
                page.live(app.sources.model.of(model).get, _arms)
            _Report(page, resource)
            with panel("What was decided", "tm-12"):
                page.live(app.sources.model.of(model).get, partial(_decided, page))


async def _trail_of(app: App, model: str) -> Seen[_Trail]:
    view, trail = await app.sources.model.of(model).get(), await app.sources.trail.of(model).get()
    if view.value is None or trail.value is None:
        return Seen(None, view.error or trail.error)
    return Seen((view.value[4], *trail.value), trail.error)


def _stand(page: Page, resource: ContinualModel, view: ModelView) -> None:
    rollout = view[4]
    if rollout is None:
        state("control has not seen this model yet; is it running?")
        return
    if rollout.active:
        with box("tm-row"):
            Text(rollout.candidate, "strong", "tm-mono")
            Text(f"against {rollout.champion}" if rollout.champion else "the first version", "span", "tm-dim")
            badge(rollout.phase.replace("-", " "), _PHASES.get(rollout.phase, "run"))
            if rollout.paused:
                badge("paused", "warn")
    else:
        last = rollout.last
        state(
            "No rollout is under way." + (f" The last one: {last.kind} {last.subject}: {last.reason}" if last else "")
        )
    with box("tm-steps"):
        for step in rollout.steps:
            Text(f"{step.weight} %", classes=f"tm-step {step.state}")
    if rollout.reason:
        Text(rollout.reason)
    with box("tm-facts"):
        if rollout.active:
            fact("outcomes of this step", f"{rollout.step_outcomes:,} of at least {rollout.min_outcomes:,}")
            fact("its time is over", page.times.full(rollout.deadline) or "not begun")
        fact("margin", f"{rollout.margin:.3g}")
        fact("evidence needed", f"{rollout.needed:g}")
    Text(rollout.power or "nothing is tested: there is one step alone", classes="tm-sub")
    if rollout.active:
        waits = rollout.phase == "awaiting-approval"
        which: list[Asking] = ["approve"] if waits else []
        which += ["resume" if rollout.paused else "pause", "promote", "abort"]
        asking.buttons(page, resource, which)


def _trail(found: _Trail) -> Callable[[_Trail], bool] | None:
    view, points, _ = found
    if view is None or not view.active:
        state("There is no rollout whose evidence could be drawn.")
        return None
    if len(points) < _FEW:
        state("No outcomes of both versions have come yet.")
        return None
    words = Text(_evidence_words(found))
    chart = Chart(trail_chart(points, view), "tall")

    def update(new: _Trail) -> bool:
        if new[0] is None or not new[0].active or len(new[1]) < _FEW:
            return False
        words.set_text(_evidence_words(new))
        return chart.show(trail_chart(new[1], new[0]))

    return update


def _evidence_words(found: _Trail) -> str:
    view, points, has_more = found
    if view is None:
        return ""
    told = f"to promote {view.e_promote:.3g}, to roll back {view.e_roll_back:.3g}, to go on from this step "
    told += f"{view.e_step:.3g}; {view.needed:g} is needed. {points[-1].blocks:,} matched blocks"
    return told + ("; more outcomes are being read" if has_more else "")


def _arms(view: ModelView) -> None:
    rollout = view[4]
    if rollout is None or not rollout.arms:
        state("Nothing is served yet.")
        return
    head_ = ("", *(one.version for one in rollout.arms))
    rows = [
        ("asked for", *(f"{one.asked} %" for one in rollout.arms)),
        ("seen", *("—" if one.seen is None else f"{one.seen} %" for one in rollout.arms)),
        ("server", *(one.state for one in rollout.arms)),
        ("requests", *(f"{one.requests:,}" for one in rollout.arms)),
        ("failed", *(f"{one.errors:,}" for one in rollout.arms)),
        ("99 % within", *(_ms(one) for one in rollout.arms)),
        ("outcomes judged", *("—" if one.judged is None else f"{one.judged:,}" for one in rollout.arms)),
        ("error", *(percent(one.error, 2) for one in rollout.arms)),
    ]
    table(head_, rows, numbers=range(1, len(head_)))


def _ms(one: Arm) -> str:
    return "—" if one.p99_ms is None else f"{one.p99_ms:.1f} ms"


class _Report:
    """The A/B report, of all outcomes and by slice."""

    def __init__(self, page: Page, resource: ContinualModel) -> None:
        self._page, self._model, self._by = page, resource.id, ""
        about = "error of the candidate less that of the champion, over the same mixture of moments: for one look"
        with panel("A/B report", "tm-12", f"{about}; verdicts have their own evidence"):
            names = {name: name for name in slices_by(resource)} | {ENTITY: resource.spec.events.entity.name}
            choices = {"": "none", **names}
            made = ui.select(choices, value="", label="slices", on_change=self._choose)
            made.props("outlined dense").classes("tm-field").style("align-self:flex-start")
            self._part: Live[Sequence[Lift]] = page.live(self._read, self._draw)

    async def _read(self) -> Seen[Sequence[Lift]]:
        return await self._page.app.sources.report.of((self._model, self._by)).get()

    async def _choose(self, event: ValueChangeEventArguments[Any]) -> None:
        self._by = str(event.value or "")
        await self._part.refresh()

    def _draw(self, lines: Sequence[Lift]) -> None:
        if not lines:
            state("No outcome of a rollout that compares two versions has come of age yet.")
            return
        head_ = ("slice", "version", "outcomes", "labelled", "error", "lift", "95 % interval")
        rows: list[Sequence[object]] = []
        for line in lines:
            rows.append((line.slice or "all", *_arm_cells(line.champion), "", ""))
            rows.append(("", *_arm_cells(line.candidate), partial(_lift, line), _lift_interval(line)))
        table(head_, rows, numbers=(2, 3, 4, 5, 6))


def _arm_cells(one: ArmReport) -> tuple[object, ...]:
    return (
        partial(Text, one.version, classes="tm-mono"),
        f"{one.outcomes:,}",
        f"{one.labelled:,}",
        percent(one.error, 2),
    )


def _lift(line: Lift) -> None:
    """Green where the candidate is surely better, red where it is surely worse."""
    if line.lift is None:
        Text("—")
        return
    low, high = line.interval or (-1.0, 1.0)
    badge(_signed(line.lift), "good" if high < 0 else "bad" if low > 0 else "")


def _lift_interval(line: Lift) -> str:
    return f"{_signed(line.interval.low)} to {_signed(line.interval.high)}" if line.interval else "too few"


def _signed(share: float) -> str:
    return f"{share * 100:+.1f} %"


_OF_ROLLOUTS = frozenset(
    {"start-rollout", "await-approval", "approve", "set-traffic", "step-began", "go-on", "hold", "pause", "resume"}
    | {"shadow", "shadow-began", "roll-back", "rolled-back", "promote", "abort", "watch-ended", "refuse"}
)


def _decided(page: Page, view: ModelView) -> None:
    entries = [one for one in view[3] if one.kind in _OF_ROLLOUTS]
    if not entries:
        state("Nothing was decided yet.")
        return
    rows = [(page.times.full(one.time), partial(badge, one.kind, one.tone), one.subject, one.reason) for one in entries]
    table(("when", "what", "of", "why"), rows[:20])
