"""The page of one version: what made it, what it went into, what its gates said, and its model card."""

from collections.abc import Sequence
from functools import partial
from urllib.parse import quote

from starlette.requests import Request

from tidemill.dashboard.pages.frame import App, Page, frame
from tidemill.dashboard.pages.model import head, known
from tidemill.dashboard.pages.parts import Text, badge, box, fact, link, panel, state, table
from tidemill.dashboard.pages.versions import PLACES, VERDICTS, elsewhere
from tidemill.dashboard.queries.lineage import Step
from tidemill.dashboard.queries.versions import VersionRow
from tidemill.dashboard.shared import Seen

__all__ = ["version_page"]

_SHORT = 16
"""Characters of a digest that are shown."""


async def version_page(app: App, request: Request, model: str, version: str) -> None:
    """One version of a model."""
    resource = await known(app, request, model)
    if resource is None:
        return
    async with frame(app, request, f"{version} of {model}", model, "versions") as page:
        with box("tm-head"):
            head(page, resource)

        async def read() -> Seen[VersionRow | None]:
            seen = await app.sources.versions.of(model).get()
            return Seen(next((one for one in seen.value or () if one.version == version), None), seen.error)

        with panel("Version"):
            page.live(read, partial(_version, page, version))
            elsewhere(app, model)
        with panel("Lineage", about="what made it, and what it went into; the nearest first"):
            page.live(app.sources.lineage.of((model, version)).get, partial(_lineage, page, model))
        with box("tm-grid"):
            with panel("Gates", "tm-5"):
                page.live(read, _gates)
            with panel("Model card", "tm-7"):
                page.live(read, _card)


def _version(page: Page, name: str, one: VersionRow | None) -> None:
    with box("tm-row"):
        Text(name, "strong", "tm-mono")
        if one is not None and one.place:
            badge(one.place, PLACES.get(one.place, ""))
    if one is None:
        state("The registry has no such version among its newest.", "bad")
        return
    with box("tm-facts"):
        fact("made", page.times.full(one.created_at))
        fact("cause", one.cause or "—")
        fact("data", one.snapshot[:12] or "—")
        fact("weights from", one.warm_from or "scratch")
    Text(one.reason)


def _lineage(page: Page, model: str, steps: Sequence[Step]) -> None:
    if not steps:
        state("Nothing is known of where it came from, or went.")
        return
    rows = [(one.way, one.kind, partial(_step, model, one), one.told, page.times.full(one.since)) for one in steps]
    table(("", "what", "which", "known of it", "since"), rows)


def _step(model: str, one: Step) -> None:
    if one.kind == "version":
        link(one.id, f"/models/{model}/versions/{quote(one.id, safe='')}", "tm-link tm-mono")
    else:
        Text(one.id[:_SHORT], classes="tm-mono")


def _gates(one: VersionRow | None) -> None:
    if one is None or not one.gates:
        state("Its gates are not known.")
        return
    rows = [
        (partial(badge, gate.verdict, VERDICTS.get(gate.verdict, "")), gate.name, gate.reason or "—")
        for gate in one.gates
    ]
    table(("", "gate", "why"), rows)


def _card(one: VersionRow | None) -> None:
    card = Text(one.card if one and one.card else "This version has no model card.", classes="tm-card")
    card.props["tabindex"] = "0"
