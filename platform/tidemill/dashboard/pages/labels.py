"""The page of labels: what to label next and why, how far labellers agree, and which classes they mix up."""

from collections.abc import Mapping
from functools import partial

from nicegui import run
from starlette.requests import Request

from tidemill.core.errors import TidemillError
from tidemill.dashboard.pages.editor import Editor
from tidemill.dashboard.pages.frame import App, Page, frame
from tidemill.dashboard.pages.model import head, known
from tidemill.dashboard.pages.parts import Text, badge, box, button, fact, panel, state, table, tell
from tidemill.dashboard.pages.tiles import ANSWER, shot
from tidemill.dashboard.pages.undoing import Undoing
from tidemill.dashboard.pictures import Shown
from tidemill.dashboard.queries.browse import Thing
from tidemill.dashboard.sources import Queue
from tidemill.labels.agreement import Agreement, MixedUp, PairAgreement, Place
from tidemill.labels.waiting import Waiting
from tidemill.spec.model import ContinualModel

__all__ = ["labels_page"]


async def labels_page(app: App, request: Request, model: str) -> None:
    """Labels of a model."""
    resource = await known(app, request, model)
    if resource is None:
        return
    async with frame(app, request, f"Labels of {model}", model, "labels") as page:
        with box("tm-head"):
            head(page, resource)
        with box("tm-grid"):
            with panel("Agreement", "tm-5", "of the labels of the last 7 days"):
                page.live(app.sources.agreement.of(model).get, _agreement)
            with panel("Mixed up", "tm-7", "classes that labellers call the same thing by"):
                mixed = box("tm-col")
            with panel("What to label next", about="from the top to the end: what is left out makes estimates wrong"):
                queue = box("tm-col")
        undoing = Undoing(page)
        editor = Editor(page, resource, undoing, app.sources.queue.of(model).forget)
        with mixed:
            page.live(app.sources.agreement.of(model).get, partial(_mixed_up, page, resource, editor))
        with queue:
            _Queue(page, resource, editor)


def _agreement(found: Agreement | None) -> None:
    if found is None:
        state("Nobody has labelled anything in the last 7 days.")
        return
    tone = {True: "good", False: "bad", None: ""}[found.trusted]
    with box("tm-row"):
        Text("—" if found.alpha is None else f"{found.alpha:.2f}", classes="tm-big")
        badge({True: "trusted", False: "not trusted", None: "not known"}[found.trusted], tone)
    Text(found.verdict)
    with box("tm-facts"):
        fact("last words", f"{found.labels:,}")
        fact("things", f"{found.items:,}")
        fact("by two or more", f"{found.compared:,}")
    labellers = [
        (one.name or "nobody", f"{one.labels:,}", _figure(one.same), _figure(one.overlap)) for one in found.labellers
    ]
    table(("labeller", "labels", "says what others say", "boxes overlap"), labellers, numbers=(1, 2, 3))
    pairs = [
        (" and ".join(one.labellers), f"{one.items:,}", _figure(one.same)) for one in sorted(found.pairs, key=_same)[:6]
    ]
    if pairs:
        table(("those who differ most", "both labelled", "same"), pairs, numbers=(1, 2))
    for note in found.notes:
        Text(note, classes="tm-sub")


def _same(one: PairAgreement) -> float:
    """Those who differ most first."""
    return 2.0 if one.same is None else one.same


def _figure(value: float | None) -> str:
    return "—" if value is None else f"{value:.2f}"


def _mixed_up(page: Page, resource: ContinualModel, editor: Editor, found: Agreement | None) -> None:
    if found is None or not found.mixed_up:
        state("No two classes are mixed up.")
        return
    for one in found.mixed_up:
        _mixed(page, resource, editor, one)


def _mixed(page: Page, resource: ContinualModel, editor: Editor, one: MixedUp) -> None:
    Text(one.question, "strong")
    rows = [(name, ", ".join(f"{word}: {count}" for word, count in said.items())) for name, said in one.sides.items()]
    table(("labeller", f"of {one.items:,} that both were said of"), rows)
    looked = [(place, ", ".join(f"{name}: {word}" for name, word in place.said.items())) for place in one.examples]
    shown = [(said, partial(_look_button, page, resource, editor, place)) for place, said in looked]
    if shown:
        table(("said", ""), shown)


def _look_button(page: Page, resource: ContinualModel, editor: Editor, place: Place) -> None:
    button("Side by side", partial(_look, page, resource, editor, place))


async def _look(page: Page, resource: ContinualModel, editor: Editor, place: Place) -> None:
    try:
        seen = await run.io_bound(page.app.sources.look_at, resource.id, place)
    except TidemillError as error:
        tell(error.message, "negative")
        return
    if seen and seen[0]:
        editor.open(*seen)
    else:
        tell("its prediction is not in the lake any more", "warning")


class _Queue:
    """The queue. A round is recorded before it is shown, so only who may label begins one."""

    def __init__(self, page: Page, resource: ContinualModel, editor: Editor) -> None:
        self._page, self._resource, self._editor = page, resource, editor
        self._place = box("tm-col")
        with self._place:
            if page.viewer.may("label"):
                with box("tm-row"):
                    button("Show the queue", self._show, "main")
            else:
                state("A labeller opens the queue: what it shows is recorded as asked for.")

    async def _show(self) -> None:
        page, model = self._page, self._resource.id
        self._place.clear()
        with self._place:
            box("tm-wait")
        seen = await page.app.sources.queue.of(model).get()
        self._place.clear()
        with self._place:
            if seen.value is None:
                words = "There is no prediction yet." if seen.error is None else seen.error.message
                state(words, "bad" if seen.error else "")
                return
            await page.do(page.app.desk.note_picks, self._resource, seen.value[0].records)
            self._draw(seen.value)

    def _draw(self, queue: Queue) -> None:
        asked, found, shown = queue
        things = [one for one in found if one is not None]
        with box("tm-row"):
            Text(f"{asked.total:,} wait to be labelled", "strong")
            picked = f"{asked.picks.considered:,} new ones were considered, {len(asked.picks.reasons):,} picked"
            Text(picked, "span", "tm-dim")
            box().style("flex:1")
            if things:
                button("Label from the top", partial(self._editor.open, things, shown), "main")
            button("Look again", self._show)
        if not asked.lines:
            state("Nothing waits to be labelled.")
            return
        with box("tm-tiles"):
            for line, thing in zip(asked.lines, found, strict=True):
                self._tile(line, thing, things, shown)

    def _tile(self, line: Waiting, thing: Thing | None, things: list[Thing], shown: Mapping[str, Shown]) -> None:
        with box("tm-tile", "button") as tile:
            if thing is not None:
                shot(shown.get(thing.prediction_id), [(thing.box, ANSWER, True)], f"event of {thing.entity}")
            with box("t"):
                answer = line.answer or (thing.answer if thing else "?")
                Text(answer if line.confidence is None else f"{answer} {line.confidence:.2f}", "strong")
                Text(", ".join(f"{name} {share:.2g}" for name, share in line.reasons.items()))
                Text(line.entity, classes="tm-dim")
        if thing is not None:
            tile.on("click", partial(self._editor.open, things, shown, things.index(thing)))
