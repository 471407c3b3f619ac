"""Rollouts under load: rejected, promoted by hand, and the version before brought back; who answered what meanwhile."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.rollout.load import Load, Sent
from benchmarks.rollout.stand import FIRST_SHARE, Stand

from tidemill.core.clock import to_ms
from tidemill.events.records import Decision

__all__ = ["WITHIN_S", "Left", "Live", "Share", "last_answer_s", "live"]

WITHIN_S = 5.0
"""Goal: after a version is rejected, nothing goes to it."""
_SIGMAS = 4.5
"""A true share is outside of so many standard deviations once in 150,000."""


@dataclass(frozen=True)
class Share:
    """How many of the requests a candidate answered while its share was seen at the proxy."""

    version: str
    percent: int
    answered: int
    of: int

    @property
    def bounds(self) -> tuple[int, int]:
        """Of a binomial."""
        middle, spread = (
            self.of * self.percent / 100,
            _SIGMAS * math.sqrt(self.of * self.percent * (100 - self.percent)) / 100,
        )
        return math.floor(middle - spread), math.ceil(middle + spread)

    @property
    def holds(self) -> bool:
        """Whether it is within them."""
        return self.of > 0 and self.bounds[0] <= self.answered <= self.bounds[1]


@dataclass(frozen=True)
class Left:
    """A version that is to have no requests any more: when the last one was sent that it answered."""

    version: str
    because: str
    after_s: float
    """From control's decision; below 0 where it had none since."""
    answered: int
    """Requests sent since the decision that it answered."""


@dataclass
class Live:
    """What was seen."""

    sent: Sequence[Sent] = ()
    shares: list[Share] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    restarted_s: float = 0.0
    """Until the version before was ready again: its server had been ended, and the other answered meanwhile."""

    @property
    def failed(self) -> list[Sent]:
        """Requests without a good answer."""
        return [one for one in self.sent if one.status != 200]


def live(stand: Stand, *, per_second: float, step_s: float) -> Live:
    """A rollout that is aborted, one that is promoted, and a revert; a candidate stays `step_s` in its first step."""
    found = Live()
    stand.serve_first()
    load = stand.load(per_second)
    with load.running():
        stand.clock.sleep(2.0)
        found.shares.append(_first_step(stand, load, "v2", step_s))
        found.left.append(_leave(stand, load, "v2", stand.ask("abort", reason="not wanted")))
        found.shares.append(_first_step(stand, load, "v3", step_s))
        promoted = stand.ask("promote", reason="wanted")
        found.left.append(_leave(stand, load, "v1", promoted, "v3 is promoted"))
        stand.decided("v3", "promote")
        asked = stand.ask("revert", reason="not wanted any more")
        ready = stand.decided("v1", "set-traffic", since=asked.time)
        found.restarted_s = (ready.time - asked.time) / 1000
        found.left.append(_leave(stand, load, "v3", ready, "v1 is brought back, and ready"))
    found.sent = load.sent
    return found


def last_answer_s(sent: Sequence[Sent], version: str, decision: Decision) -> float:
    """Seconds from a decision until the last request was sent that the version answered; -1: none since."""
    after = [one.at for one in sent if one.version == version and one.at >= decision.time]
    return (max(after) - decision.time) / 1000 if after else -1.0


def _first_step(stand: Stand, load: Load, version: str, step_s: float) -> Share:
    """Propose, wait for the first step, and count who answers in it."""
    stand.propose(version)
    stand.decided(version, "step-began")
    stand.ask("pause")  # else the labels decide
    since = to_ms(stand.clock.now())
    stand.clock.sleep(step_s)
    until = to_ms(stand.clock.now())
    stand.clock.sleep(0.5)  # the last of them are answered
    answers = [one.version for one in load.between(since, until) if one.version]
    return Share(version, FIRST_SHARE, answers.count(version), len(answers))


def _leave(stand: Stand, load: Load, version: str, decision: Decision, because: str = "") -> Left:
    """Wait until no rollout is under way, and some seconds more; who answered since."""
    stand.over()
    stand.clock.sleep(WITHIN_S)
    since = [one for one in list(load.sent) if one.version == version and one.at >= decision.time]
    return Left(version, because or decision.reason, last_answer_s(since, version, decision), len(since))
