"""Lines, their states, and the limits that hold where a resource says nothing."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec

from tidemill.watch.health.scraped import Share

__all__ = ["ALWAYS", "LIMITS", "NO_CASES", "Grading", "Limits", "Line", "State", "graded", "of_share", "worst"]

NO_CASES = "there was no case yet"

State = Literal["ok", "warn", "bad", "unknown"]
_ORDER: dict[State, int] = {"ok": 0, "warn": 1, "unknown": 2, "bad": 3}


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be well or not."""

    what: str
    value: float | None
    unit: str
    state: State
    why: str
    do: str = ""
    """What helps; empty where all is well, or nothing is known: a process that does not answer has its own line."""
    about: str
    """Heading of docs/how-to/watch-the-system.md that says more."""


@dataclass(frozen=True)
class Limits:
    """Where a resource says nothing. The alerts of manifests/prometheus/rules.yaml hold the same numbers."""

    memory_warn_bytes: float = 2 * 2**30
    memory_bad_bytes: float = 4 * 2**30
    cores_warn: float = 0.95
    """A role is one Python process: at one core it is as fast as it gets."""
    freshness_warn_s: float = 600.0
    """Where the resource has no features.freshness."""
    catch_up_warn_s: float = 10.0
    catch_up_bad_s: float = 60.0
    """Time that reading what waits would take at the present pace."""
    measured_s: float = 60.0
    """Age at which a measurement of the lag says nothing any more."""
    quarantined_warn: float = 0.01
    not_found_warn: float = 0.05
    unavailable_bad: float = 0.01
    nulls_warn: float = 0.5
    skew_age_s: float = 3 * 3600.0
    """Served features are compared with the lake each hour."""
    log_loss_bad: float = 0.01
    refused_labels_warn: float = 0.01
    outcomes_lag_warn: float = 20_000.0
    outcomes_lag_bad: float = 200_000.0
    failed_warn: float = 0.005
    failed_bad: float = 0.02
    refused_warn: float = 0.05
    latency_warn_s: float = 0.1
    latency_bad_s: float = 0.5
    watch_behind_warn_s: float = 60.0
    watch_behind_bad_s: float = 600.0
    evidence_warn: float = 0.5
    turn_warn_s: float = 1.0
    turn_age_warn_s: float = 10.0
    turn_age_bad_s: float = 60.0
    failures_bad: float = 3.0


LIMITS = Limits()

ALWAYS = -math.inf
"""A limit that every value is beyond: for conditions that are no matter of the value alone."""


@dataclass(frozen=True)
class Grading:
    """Where a value is no longer well; None: it never is. Both are the last value that still is better."""

    warn: float | None = None
    bad: float | None = None

    def of(self, value: float | None) -> State:
        """The state of a value; `unknown` of none, and of not a number."""
        if value is None or math.isnan(value):
            return "unknown"
        if self.bad is not None and value > self.bad:
            return "bad"
        return "warn" if self.warn is not None and value > self.warn else "ok"


def graded(
    what: str,
    value: float | None,
    unit: str,
    grading: Grading,
    *,
    why: str,
    do: str,
    about: str,
    missing: str = "it was not told",
) -> Line:
    """A line about a value; `missing` says why there is none."""
    state = grading.of(value)
    if state == "unknown":
        return Line(what=what, value=None, unit=unit, state=state, why=missing, about=about)
    return Line(what=what, value=value, unit=unit, state=state, why=why, do=do if state != "ok" else "", about=about)


def of_share(
    what: str, share: Share | None, grading: Grading, *, cases: str = "", said: str = "", **words: str
) -> Line:
    """A line about a share of `cases`; `said` comes before their number. `words` are those of `graded`."""
    if share is None:
        return graded(what, None, "share", grading, why="", **words)
    of = " ".join(filter(None, (f"of {share.of:,.0f}", cases, share.when)))
    return graded(what, share.value, "share", grading, why=f"{said}{of}", **words)


def worst(lines: Iterable[Line]) -> State:
    """The worst state: bad, then unknown, then warn, then ok. Of no line: unknown."""
    return max((line.state for line in lines), key=_ORDER.__getitem__, default="unknown")
