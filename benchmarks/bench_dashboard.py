"""The dashboard with a lot to show: each page opened in Chromium, and the queries behind them on a large lake.

*First*: a dashboard that has just started and has read nothing but what it imports, a browser without a cache. *Again*:
the same browser, the same dashboard. *Another*: the next person's browser, without a cache, the same dashboard.
A page is there when what somebody comes for is: the rows of the models, the champion's error, the evidence, the newest
predictions, the labellers, the versions, the lineage. The clock is the browser's, from its navigation on. Kafka and
Redis are not asked by any of this.

A part is read on threads, once for all who look: so of a query counts how long somebody waits for a part that nobody
has looked at yet.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.dashboard.opening import Opened, browsing, open_page, show_queue
from benchmarks.dashboard.site import BIG, serving, write_site
from benchmarks.dashboard.tables import CANDIDATE, CHAMPION, Amount, resource_of
from benchmarks.report import Figure, Report, environment
from playwright.sync_api import Browser

from tidemill.control.store import LocalResourceStore
from tidemill.core.clock import SystemClock
from tidemill.core.settings import Settings
from tidemill.dashboard.queries.browse import Wanted, browse
from tidemill.dashboard.queries.differing import differing
from tidemill.dashboard.queries.models import headline_of, model_row
from tidemill.dashboard.queries.quality import newest_slices, quality_over_time
from tidemill.dashboard.sources import LABELS
from tidemill.labels.recent import recent_agreement
from tidemill.spec.model import ContinualModel

__all__ = ["run"]

SIZES = {"small": Amount(50_000, 2_000), "full": Amount(1_000_000, 10_000)}
MODELS = 100
GOAL_S = 1.0
OF = f"/models/{BIG}"
PAGES = {
    "models": ("/", f"other-{MODELS - 2}"),
    "overview": (OF, "95 % interval"),
    "rollout": (f"{OF}/rollout", "matched blocks"),
    "browse": (f"{OF}/browse", "among the newest"),
    "labels": (f"{OF}/labels", "says what others say"),
    "runs & versions": (f"{OF}/versions", "weights from"),
    "a version": (f"{OF}/versions/{CANDIDATE}", "made from"),
}
"""By name: its path, and what it shows once its main part is there."""
_TIMES = {"small": 1, "full": 3}


def run(size_name: str) -> Report:
    """Write the site, ask its lake, open its pages."""
    amount = SIZES[size_name]
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as folder:
        settings = write_site(Path(folder), amount, MODELS)
        figures = [*_queries(settings), *_pages(settings, _TIMES[size_name])]
    ran = {"predictions": amount.predictions, "pictures": amount.pictures, "models": MODELS}
    return Report("bench", "dashboard", size_name, ran, figures, environment(("polars", "deltalake", "nicegui")))


def _pages(settings: Settings, times: int) -> Iterator[Figure]:
    with browsing() as browser:
        for name, (path, text) in PAGES.items():
            rounds = [_opened(browser, settings, path, text) for _ in range(times)]
            for word, places in (("first", slice(0, 1)), ("again", slice(1, 3)), ("another", slice(3, None))):
                yield _figure(f"{name}, {word}", [one for opened in rounds for one in opened[places]])
        with serving(settings) as server:
            took, worked = show_queue(browser.new_page(), server, f"{OF}/labels")
            yield Figure("the queue, asked for", took, "s", note=f"processor {worked:.2f} s")


def _opened(browser: Browser, settings: Settings, path: str, text: str) -> list[Opened]:
    """A page opened three times, by a browser and of a dashboard that know nothing, and once by another browser."""
    opened = []
    with serving(settings) as server:
        for times in (3, 1):
            with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
                page = context.new_page()
                opened += [open_page(page, server, path, text) for _ in range(times)]
    return opened


def _figure(name: str, opened: list[Opened]) -> Figure:
    there, filled, server, drawn = (
        statistics.median(of)
        for of in zip(*((one.there, one.filled, one.server, one.browser) for one in opened), strict=True)
    )
    note = f"all parts {filled:.2f} s; processor: dashboard {server:.2f} s, browser {drawn:.2f} s"
    return Figure(name, there, "s", f"< {GOAL_S:g}", there < GOAL_S, note)


def _queries(settings: Settings) -> list[Figure]:
    """What the pages ask, each by itself; the slowest of three counts."""
    lake, now = settings.lake_uri, SystemClock().now()
    resource, stored = resource_of(BIG.removeprefix("default.")), LocalResourceStore(settings.state / "resources")
    big = stored.get(BIG)
    asked: dict[str, Callable[[], Any]] = {
        "browse, the newest": lambda: _browse(lake, resource, Wanted()),
        "browse, errors of a station": lambda: _browse(lake, resource, Wanted(entity="s3", kind="wrong")),
        "browse, a declared slice": lambda: _browse(lake, resource, Wanted(groups=(("shift", "night"),))),
        "quality over time": lambda: quality_over_time(lake, resource),
        "slices": lambda: newest_slices(lake, resource),
        "agreement": lambda: recent_agreement(lake, resource, now, most=LABELS),
        "where two versions differ": lambda: differing(lake, resource, CHAMPION, CANDIDATE),
        "the headline of a model": lambda: headline_of(lake, big, now),
        f"the rows of {MODELS} models": lambda: [model_row(one, now, None, None) for one in stored.list()],
    }
    return [_timed(name, ask) for name, ask in asked.items()]


def _browse(lake: str, resource: ContinualModel, wanted: Wanted) -> None:
    found = browse(lake, resource, wanted, SystemClock().now(), limit=24)
    if len(found.things) != 24:
        raise AssertionError(f"{wanted} found {len(found.things)}")


def _timed(name: str, ask: Callable[[], Any]) -> Figure:
    took, worked = [], []
    for _ in range(3):
        begun, began = time.perf_counter(), time.process_time()
        ask()
        took.append(time.perf_counter() - begun)
        worked.append(time.process_time() - began)
    note = f"{max(worked):.2f} s of processor"
    return Figure(name, max(took), "s", f"< {GOAL_S:g}", max(took) < GOAL_S, note)
