"""How much evidence a rollout needs, told before it begins (STATISTICS 2, "Power is shown before").

A betting process against "worse by the margin" grows by about (m − Δ)²/2V a block, where Δ is the true difference and V
the variance of a block's difference, so that ln(1/risk) is reached after n ≈ 2 V ln(1/risk)/(m − Δ)² outcomes of the
candidate, with V = σ²(1 + w/(1 − w)), since a block has the mean of 1/w − 1 outcomes of the champion. That is the
growth of the best single bet; a test holds what is told against simulated rollouts.

On copies a block is one request with both answers, so that V is at most 2σ²; it is the less, the more errors the two
versions share. What is told is that most.
"""

import math

import msgspec

from tidemill.rollout.history import HistorySeen
from tidemill.rollout.plan import REQUEST
from tidemill.spec.model import ContinualModel

__all__ = ["ASSUMED_ERROR", "Power", "power_of", "shadow_advice", "too_few_keys"]

_SEEN_OFTEN = 10
"""Requests a key from which on the history has met nearly all keys that there are."""
ASSUMED_ERROR = 0.1
"""Where no champion has been judged yet."""


class Power(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate that is as good as the champion needs, at the largest share that is still a test."""

    weight: int
    """That share, in percent; 0: it is judged on copies (`rollout.shadow`)."""
    outcomes: int
    """Of the candidate; on copies, the requests that they are of."""
    error: float
    """The champion's, by which this is told."""
    hours: float | None = None
    """None where it is not known how fast outcomes come."""
    fits: bool | None = None
    """Whether the declared timeout is enough."""

    def words(self) -> str:
        """All of it in a sentence."""
        where = (
            f"{self.outcomes:,} outcomes at {self.weight} %" if self.weight else f"{self.outcomes:,} copied requests"
        )
        said = f"a candidate as good as the champion needs {'' if self.weight else 'at most '}about {where}"
        if self.hours is not None:
            took = f"{self.hours:.1f} h" if self.hours < 48 else f"{self.hours / 24:.0f} days"
            said += f", {took} at the present rate"
        return f"{said} (error {self.error:.2g})" + ("" if self.fits is not False else ": more than its timeout allows")


def power_of(resource: ContinualModel, history: HistorySeen) -> Power | None:
    """The power of the declared rollout for what is known of the champion; None where nothing is tested."""
    rollout = resource.spec.rollout
    weights = [step.weight for step in rollout.steps if step.weight < 100]
    if not weights and not rollout.shadow:
        return None
    weight = 0 if rollout.shadow else weights[-1]
    analysis, share = rollout.analysis, weight / 100 or 1.0
    # A champion that was never wrong may be so in the next of its outcomes.
    least = 1 / (history.outcomes + 2)
    error = ASSUMED_ERROR if history.error is None else min(max(history.error, least), 0.5)
    variance = error * (1 - error) * (2 if rollout.shadow else 1 + share / (1 - share))
    outcomes = math.ceil(2 * variance * math.log(1 / analysis.risk) / analysis.margin**2)
    outcomes = max(outcomes, analysis.min_outcomes)
    if not history.per_second:
        return Power(weight=weight, outcomes=outcomes, error=error)
    seconds = outcomes / (share * history.per_second)
    fits = seconds <= analysis.timeout.total_seconds()
    return Power(weight=weight, outcomes=outcomes, error=error, hours=seconds / 3600, fits=fits)


def shadow_advice(resource: ContinualModel, history: HistorySeen) -> str | None:
    """Why `rollout.shadow` would be better, in words; None where it is on, or nothing says that it can be."""
    spec = resource.spec
    rollout = spec.rollout
    may = spec.labels.control == 1.0 and rollout.cohorts.key == REQUEST and spec.serving.driver != "knative"
    now = power_of(resource, history)
    if rollout.shadow or not may or now is None:
        return None
    changed = rollout.model_copy(update={"shadow": True})
    on = power_of(resource.model_copy(update={"spec": spec.model_copy(update={"rollout": changed})}), history)
    if on is None:
        return None
    return (
        "labels.control: 1.0 says that all predictions are labelled whatever the answer: with rollout.shadow: true the "
        f"candidate would be judged first on copies of at most about {on.outcomes:,} requests, before any user gets "
        f"its answer; without, it answers users in about {round(now.outcomes * 100 / now.weight):,} requests meanwhile"
    )


def too_few_keys(resource: ContinualModel, history: HistorySeen) -> str | None:
    """Why a rollout by `rollout.cohorts.key` can come to no verdict, with the number of keys needed; None: it may.

    A key counts once. Where the history has met each key many times, few more are to come.
    """
    header, power = resource.spec.rollout.cohorts.key, power_of(resource, history)
    if header == REQUEST or power is None or not history.outcomes:
        return None
    if not history.keys:
        return f"no request of the champion carried the header {header}, whose keys are to be counted"
    needed = math.ceil(power.outcomes / (power.weight / 100))
    if history.keys >= needed or history.outcomes < _SEEN_OFTEN * history.keys:
        return None
    return (
        f"{history.keys:,} keys of {header} were seen in {history.outcomes:,} outcomes, and about {needed:,} are "
        f"needed: each counts once, and {power.outcomes:,} must be the candidate's at {power.weight} %"
    )
