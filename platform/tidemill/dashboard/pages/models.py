"""The page of all models."""

import re
from collections.abc import Callable, Sequence
from functools import partial

from nicegui import background_tasks
from starlette.requests import Request

from tidemill.dashboard.pages.frame import App, Page, frame
from tidemill.dashboard.pages.parts import Text, badge, box, link, panel, percent, state, table
from tidemill.dashboard.queries.models import Headline, ModelRow
from tidemill.dashboard.shared import Seen

__all__ = ["models_page", "phase_badge", "traffic_bar"]

PHASES = {
    "Serving": "good",
    "Watching": "good",
    "Retraining": "run",
    "Shadowing": "run",
    "Canary": "run",
    "Promoting": "run",
    "AwaitingApproval": "warn",
    "RollingBack": "bad",
}
_HEAD = ("model", "phase", "champion", "traffic", "error", "drift", "freshness", "labels to come", "next")


async def models_page(app: App, request: Request) -> None:
    """All models at a glance."""
    async with frame(app, request, "Models") as page:
        with box("tm-head"):
            Text("Models", "h1")
        with panel("All models", about="error: of the last day's answers of the champion, with its 95 % band"):
            page.live(partial(_read, app), partial(_draw, page))


async def _read(app: App) -> Seen[Sequence[ModelRow]]:
    seen = await app.sources.models.of("").get()
    # Figures that take longer come into the rows as they are there, one after the other: others read, too.
    background_tasks.create_lazy(app.sources.read_headlines([row.id for row in seen.value or ()]), name="headlines")
    return seen


def _draw(page: Page, rows: Sequence[ModelRow]) -> Callable[[Sequence[ModelRow]], bool] | None:
    if not rows:
        state("No model is declared yet: `tidemill apply -f FILE` declares one.")
        return None
    draws = table(_HEAD, [_row(page, row) for row in rows])
    shown = list(rows)

    def update(new: Sequence[ModelRow]) -> bool:
        if [row.id for row in new] != [row.id for row in shown]:
            return False
        for draw, before, row in zip(draws, shown, new, strict=True):
            if row != before:
                draw(_row(page, row))
        shown[:] = new
        return True

    return update


def _row(page: Page, row: ModelRow) -> list[object]:
    return [
        lambda: link(row.name, f"/models/{row.id}", "tm-link tm-name"),
        lambda: phase_badge(row),
        lambda: _champion(page, row),
        lambda: traffic_bar(row),
        lambda: error_words(row.headline),
        lambda: [badge(name, "warn") for name in row.drift] or Text("none", classes="tm-dim"),
        lambda: freshness(row),
        "—" if row.backlog is None else f"{row.backlog:,}",
        lambda: _next(row),
    ]


def _champion(page: Page, row: ModelRow) -> None:
    Text(row.champion or "none yet", classes="tm-mono")
    if row.champion_since:
        Text(page.times.ago(row.champion_since, page.now), classes="tm-sub")


def phase_badge(row: ModelRow) -> None:
    """The phase in words."""
    words = "paused" if row.paused else re.sub(r"(?<=[a-z])(?=[A-Z])", " ", row.phase).capitalize()
    badge(words, "warn" if row.paused else PHASES.get(row.phase, ""))


def traffic_bar(row: ModelRow) -> None:
    """The shares of the requests, the candidate's in another colour, and in words."""
    with box("tm-traffic") as bar:
        bar.props["aria-hidden"] = "true"
        for one in row.traffic:
            box("candidate" if one.is_candidate else "", "i").style(f"width: {one.percent}%")
    Text(" / ".join(f"{one.percent} %" for one in row.traffic) or "no traffic", classes="tm-sub")


def error_words(headline: Headline | None) -> None:
    """The error with its interval."""
    if headline is None or headline.error is None:
        Text("—")
        return
    Text(percent(headline.error, 2), classes="tm-nowrap")
    if headline.kind != "labelled only":
        Text(f"{percent(headline.low)} to {percent(headline.high)}", classes="tm-sub tm-nowrap")


def freshness(row: ModelRow) -> None:
    """How old the newest online values are."""
    if row.fresh_s is None:
        Text("—")
        return
    badge(f"{row.fresh_s:.1f} s" if row.fresh_s < 100 else f"{row.fresh_s / 60:.0f} min", _fresh_tone(row))
    if row.behind:
        Text(f"{row.behind:,} behind", classes="tm-sub")


def _fresh_tone(row: ModelRow) -> str:
    return {True: "good", False: "bad", None: ""}[row.fresh_ok]


def _next(row: ModelRow) -> None:
    Text(row.next, classes="tm-words")
    if row.more:
        Text(f"and {row.more} more", classes="tm-sub")
    for trouble in row.troubles:
        Text(trouble, classes="tm-sub")
