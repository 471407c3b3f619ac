"""One tick of pure decisions over 1,000 models that serve, with every trigger declared and nothing due."""

import time

from benchmarks.report import Figure, Report, environment

from tidemill.control.decide import decide
from tidemill.control.turn import Observed
from tidemill.testing.loop import LoopBench, example_resource

__all__ = ["run"]

MODELS = 1000
GOAL_S = 1.0
ROUNDS = {"small": 5, "full": 50}


def run(size_name: str) -> Report:
    """Time the ticks; the slowest counts."""
    triggers = {
        "schedule": {"cron": "0 3 * * *"},
        "drift": {"every": "1s"},
        "performance": {},
        "volume": {"newLabels": 1000},
        "newClass": {},
    }
    bench = LoopBench(example_resource(triggers=triggers))
    bench.bootstrap()
    statuses, now = [bench.status for _ in range(MODELS)], bench.clock.now()
    observed = Observed(runs=(), traffic=bench.driver.observe(), labelled=12, new_classes={"fold": 3})
    took = []
    for _ in range(ROUNDS[size_name]):
        begun = time.perf_counter()
        for status in statuses:
            decide(bench.resource, status, observed, now)
        took.append(time.perf_counter() - begun)
    slowest = max(took)
    figures = [Figure("one tick of decisions, the slowest", slowest, "s", f"< {GOAL_S:g}", slowest < GOAL_S)]
    return Report("bench", "decide", size_name, {"models": MODELS}, figures, environment(("msgspec",)))
