"""Where a rollout stands, what is observed of it, and what it decides: the values the machine works on."""

from typing import Any, Literal

import msgspec

from tidemill.rollout.cells import Evidence
from tidemill.rollout.driver import RevisionSeen, RevisionWanted, Sticky, TrafficSeen, TrafficWanted
from tidemill.rollout.plan import SHADOW, RolloutPlan, Span, Version

__all__ = ["Counters", "Move", "Observation", "Phase", "RolloutState", "decided", "wanted"]

Phase = Literal["starting", "awaiting-approval", "shadowing", "canary", "promoting", "rolling-back", "done"]


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """A revision's counters at the proxy when its copies, or its canary, began; what came before does not count."""

    requests: int = 0
    errors: int = 0

    @classmethod
    def of(cls, seen: RevisionSeen | None) -> "Counters":
        """The counters as seen now."""
        return cls(requests=seen.requests, errors=seen.errors) if seen else cls()

    def since(self, seen: RevisionSeen | None) -> "Counters":
        """What was added since; all that is there where the proxy has started counting anew."""
        now = Counters.of(seen)
        if now.requests < self.requests or now.errors < self.errors:
            return now
        return Counters(requests=now.requests - self.requests, errors=now.errors - self.errors)

    @property
    def error_share(self) -> float:
        """Share of the requests that failed."""
        return self.errors / self.requests if self.requests else 0.0


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen of a rollout now. `evidence` is None while it has not been read (again)."""

    traffic: TrafficSeen
    evidence: Evidence | None = None


class RolloutState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a rollout remembers. With the plan, the traffic it wants follows from it (`wanted`).

    Times are milliseconds. Kept in the loop's status, written before anything is done.
    """

    plan: RolloutPlan
    phase: Phase
    step: int = 0
    """Index into the plan's weights, in phase `canary`."""
    spans: tuple[Span, ...] = ()
    phase_since: int
    paused: bool = False
    held: str | None = None
    """Why it is held, as last told; told once per reason."""
    unready_since: int | None = None
    """Since when the candidate's server has not answered, in phases in which it must."""
    slow_at: int | None = None
    """When the last look found its answers slower than the plan allows; None where it saw none, or they were not."""
    slow_ms: int = 0
    """How long they have been so, by the looks that showed answers."""
    judged_since: int | None = None
    """When its copies, or its first step, were asked for: the plan's timeout counts from here for each of the two, not
    while people think."""
    candidate_before: Counters | None = None
    champion_before: Counters | None = None
    result: Literal["promoted", "rolled back"] | None = None
    reason: str = ""
    """Why it is promoting or rolling back, or has done so."""
    figures: dict[str, Any] = {}
    moves: int = 0
    """Moves so far: the next one's number is one more."""

    @property
    def shares(self) -> tuple[Span, ...]:
        """The spans in which users were answered by both versions."""
        return tuple(span for span in self.spans if span.step != SHADOW)

    @property
    def weight(self) -> int:
        """The candidate's share that is wanted now, in percent."""
        return next(
            (one.share for one in wanted(self).revisions if one.version == self.plan.candidate.name),
            0,
        )


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One thing decided: a kind, its reason in words, its figures, and the traffic wanted from then on.

    Kinds: `start-rollout` (figures: the plan), `await-approval`, `approve`, `shadow` (copies are asked for),
    `shadow-began` (they are seen), `set-traffic` (a share is asked for), `step-began` (it is seen), `go-on`, `hold`,
    `pause`, `resume`, `roll-back` (decided), `rolled-back` (seen),
    `promote` (all traffic is seen on the candidate; figures: `artifact`). `number` counts the rollout's moves from 1,
    so that the same move gets the same id after a crash.
    """

    number: int
    kind: str
    reason: str
    figures: dict[str, Any] = {}
    wanted: TrafficWanted


def wanted(state: RolloutState) -> TrafficWanted:
    """The traffic that the state asks for; the candidate's share is one of the plan's weights, or 0."""
    plan, champion = state.plan, state.plan.champion
    if champion is None:
        if state.phase == "rolling-back" or state.result == "rolled back":
            return TrafficWanted()
        return TrafficWanted((_revision(plan.candidate, 100),))
    if state.phase == "done":
        return TrafficWanted((_revision(plan.candidate if state.result == "promoted" else champion, 100),))
    weight = {"canary": plan.weights[state.step], "promoting": 100}.get(state.phase, 0)
    sticky = Sticky(header=plan.cohort, salt=plan.rollout, first=plan.candidate.name) if plan.keyed else None
    mirror = plan.candidate.name if state.phase == "shadowing" else None
    return TrafficWanted((_revision(champion, 100 - weight), _revision(plan.candidate, weight)), sticky, mirror)


def _revision(version: Version, share: int) -> RevisionWanted:
    return RevisionWanted(version=version.name, artifact=version.artifact, share=share)


def decided(state: RolloutState) -> TrafficWanted:
    """The same with the decision that it follows from: the phase, and the step in it."""
    return msgspec.structs.replace(wanted(state), decision=f"{state.plan.rollout} {state.phase} {state.step}")
