"""A lost status, found again: from the registry's aliases, the traffic that is seen, and the decisions.

The decisions are the loop's own account and say most; where they are gone, too, the aliases name the versions,
and where those are gone, the traffic does. A model without any of them is new.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from tidemill.control import hindrances, schedule
from tidemill.control.decide import new_status
from tidemill.control.signals import newest, said_once
from tidemill.control.state import KEPT_DECISIONS, Agreed, Drift, Grant, LoopStatus, Run, Schedule, Version
from tidemill.control.turn import Observed, Turn
from tidemill.core.clock import to_ms
from tidemill.events.records import Decision, Signal
from tidemill.registry import Alias, RegisteredVersion
from tidemill.rollout import machine
from tidemill.rollout.driver import RevisionWanted, TrafficSeen, TrafficWanted
from tidemill.rollout.late import RolloutWatch
from tidemill.rollout.machine import RolloutPlan, RolloutState
from tidemill.rollout.plan import Span
from tidemill.rollout.state import decided
from tidemill.spec.model import ContinualModel

__all__ = ["Traces", "last_rollout", "rebuild"]

_RUN_ENDS = frozenset({"run-failed", "run-finished", "start-rollout"})
_ROLLOUT_ENDS = frozenset({"promote", "rolled-back"})


class Traces(NamedTuple):
    """What a loop without a status finds."""

    decisions: Sequence[Decision]
    """Oldest first, each once."""
    aliases: Mapping[Alias, str]
    versions: Sequence[RegisteredVersion]
    traffic: TrafficSeen
    signals: Sequence[Signal] = ()


def rebuild(resource: ContinualModel, traces: Traces, now: datetime) -> LoopStatus:
    """The status that fits the traces, with a decision that says so; a new one where there are none."""
    said = traces.decisions
    champion = _champion(traces)
    if not said and champion is None:
        return new_status(now)
    rollout, starts = _rollout(said), _starts(said)
    if rollout is not None and champion is not None and champion.version == rollout.plan.candidate.name:
        champion = None  # the first version has traffic before it is promoted
    status = LoopStatus(
        created_at=said[0].time if said else to_ms(now),
        champion=champion,
        candidate=_candidate(said, rollout),
        previous=_named(traces, _before(traces, champion)),
        run=_run(said),
        stopping=_stopping(said),
        last_run=max((one.subject for one in said if one.kind == "start-run"), default=""),
        rollout=rollout,
        watching=_watching(said),
        traffic=_traffic(champion, rollout),
        drift=_drift(traces, champion),
        starts=hindrances.kept_starts(starts, resource),
        schedule=_schedule(said, starts),
        agreement=_agreement(said),
        quiet_from=max((one.time for one in said if one.kind in _RUN_ENDS | _ROLLOUT_ENDS), default=None),
        decisions=tuple(said[-KEPT_DECISIONS:]),
    )
    turn = Turn(resource=resource, status=status, observed=Observed(), now=now)
    found = {
        "decisions": len(said),
        "aliases": dict(traces.aliases),
        "seen": [one.version for one in traces.traffic.revisions],
    }
    turn = turn.say("rebuild", resource.id, f"the status was lost; {_in_words(status)}", found)
    return turn.close()


def _champion(traces: Traces) -> Version | None:
    promoted = next((one for one in reversed(traces.decisions) if one.kind == "promote"), None)
    if promoted is not None:
        return _version(traces, promoted.subject, str(promoted.figures.get("artifact", "")), promoted.time)
    if "champion" in traces.aliases:
        return _named(traces, traces.aliases["champion"])
    seen = max(traces.traffic.revisions, key=lambda one: one.share, default=None)
    return _named(traces, seen.version) if seen is not None and seen.share else None


def _before(traces: Traces, champion: Version | None) -> str | None:
    """The version that served before the champion."""
    if champion is None:
        return None
    promoted = next((one for one in reversed(traces.decisions) if one.kind == "promote"), None)
    if promoted is None:
        return traces.aliases.get("previous")
    previous = promoted.figures.get("previous")
    return previous if isinstance(previous, str) else None


def _named(traces: Traces, name: str | None) -> Version | None:
    """A version that the registry knows."""
    known = next((one for one in traces.versions if one.version == name), None)
    return _version(traces, known.version, known.artifact, known.created_at) if known else None


def _version(traces: Traces, name: str, artifact: str, since: int) -> Version:
    granted = next((one.time for one in traces.decisions if one.kind == "grant" and one.subject == name), None)
    return Version(version=name, artifact=artifact, since=since, data_until=granted)


def _run(said: Sequence[Decision]) -> Run | None:
    """The run that was started or granted, and has not ended."""
    over = {_run_of(one) for one in said if one.kind in _RUN_ENDS}
    begun = [one for one in said if one.kind in {"start-run", "grant"} and one.subject not in over]
    if not begun:
        return None
    last = begun[-1]
    figures = last.figures
    run = Run(
        run=last.subject,
        cause=figures.get("cause", "pipeline"),
        reason=str(figures.get("reason", last.reason)),
        started_at=int(figures.get("started_at", last.time)),
        by=str(figures.get("by", "control")),
        since=figures.get("since"),
        force=bool(figures.get("force")),
        skip_gates=bool(figures.get("skip_gates")),
        snapshot=str(figures.get("snapshot", "")),
        image=str(figures.get("image", "")),
        ours=bool(figures.get("ours", True)),
    )
    if last.kind == "start-run":
        return run
    grant = Grant(
        token=str(figures["token"]),
        granted_at=last.time,
        expires_at=int(figures["expires_at"]),
        claim=last.answers or "",
    )
    return msgspec.structs.replace(run, grant=grant)


def _stopping(said: Sequence[Decision]) -> tuple[str, ...]:
    """The runs that were to be ended: those that are over by now are forgotten once their runner shows it."""
    return tuple(dict.fromkeys(one.subject for one in said if one.kind == "run-failed" and one.figures.get("stopped")))


def _starts(said: Sequence[Decision]) -> list[int]:
    """When the runs started, in order: those that control started, and those that claimed by themselves."""
    begun: dict[str, int] = {}
    for one in said:
        if one.kind in {"start-run", "grant"}:
            begun.setdefault(one.subject, int(one.figures.get("started_at", one.time)))
    return sorted(begun.values())


def _schedule(said: Sequence[Decision], starts: Sequence[int]) -> Schedule | None:
    """The schedule that was declared last, as far as the runs since have answered it."""
    declared = next((one for one in reversed(said) if one.kind == schedule.DECISION), None)
    if declared is None or not declared.figures:
        return None
    found: Schedule | None = msgspec.convert(declared.figures, Schedule)
    for start in starts:
        found = schedule.answered(found, start)
    return found


def _agreement(said: Sequence[Decision]) -> Agreed | None:
    """What the labellers' agreement was when it last began to hold runs, or no longer did; newer words may follow."""
    last = next((one for one in reversed(said) if one.kind in {hindrances.HOLD, hindrances.RELEASE}), None)
    return None if last is None else msgspec.convert(last.figures, Agreed)


def _run_of(decision: Decision) -> str:
    return str(decision.figures.get("run", decision.subject)) if decision.kind == "start-rollout" else decision.subject


def _candidate(said: Sequence[Decision], rollout: RolloutState | None) -> Version | None:
    if rollout is None:
        return None
    plan = rollout.plan
    # A version that is brought back was granted long before others.
    granted = next((one.time for one in said if one.kind == "grant" and one.subject == plan.candidate.name), None)
    return Version(
        version=plan.candidate.name, artifact=plan.candidate.artifact, since=plan.started_at, data_until=granted
    )


def _rollout(said: Sequence[Decision]) -> RolloutState | None:
    """The rollout that was started and has not ended, where its moves have brought it."""
    state, moves = last_rollout(said)
    return None if any(one.kind in _ROLLOUT_ENDS for one in moves) else state


def _watching(said: Sequence[Decision]) -> RolloutWatch | None:
    """The watch of the last rollout, if it has begun and not ended."""
    state, moves = last_rollout(said)
    began = next((one for one in moves if one.kind == "watch-began"), None)
    if state is None or began is None or any(one.kind == "watch-ended" for one in moves):
        return None
    return RolloutWatch(plan=state.plan, spans=state.shares, **began.figures)


def last_rollout(said: Sequence[Decision]) -> tuple[RolloutState | None, list[Decision]]:
    """The last rollout that was started, where its moves have brought it; and what was said of it.

    None where its start is not among the decisions, oldest first.
    """
    at = next((index for index, one in reversed(list(enumerate(said))) if one.kind == "start-rollout"), None)
    if at is None:
        return None, []
    moves = [one for one in said[at:] if one.subject == said[at].subject]
    plan = msgspec.convert(said[at].figures, RolloutPlan, strict=False)
    (state, _) = machine.start(plan)
    for move in moves[1:]:
        state = _moved(state, move)
    return msgspec.structs.replace(state, moves=len(moves)), moves


def _moved(state: RolloutState, move: Decision) -> RolloutState:
    """The state after one of its moves was decided."""
    changes: dict[str, Any] = {}
    if move.kind == "await-approval":
        changes = {"phase": "awaiting-approval", "phase_since": move.time}
    elif move.kind == "shadow" or (move.kind == "approve" and state.plan.shadow):
        changes = {"phase": "shadowing", "phase_since": move.time, "judged_since": move.time}
    elif move.kind in {"set-traffic", "approve"}:
        full = move.figures.get("weight") == 100
        changes = {"phase": "promoting" if full else "canary", "phase_since": move.time, "reason": move.reason}
        changes |= {"figures": move.figures} if full else {"judged_since": move.time}
    elif move.kind in {"step-began", "shadow-began"}:
        # One that is still open was interrupted, and nobody knows when: nothing in it counts.
        closed = tuple(span for span in state.spans if span.until is not None)
        begun = Span(step=move.figures["step"], weight=move.figures["weight"], since=move.figures["since"])
        return msgspec.structs.replace(state, step=max(begun.step, 0), spans=(*closed, begun))
    elif move.kind == "go-on":
        changes = {"step": state.step + 1}
    elif move.kind == "roll-back":
        changes = {"phase": "rolling-back", "phase_since": move.time, "reason": move.reason, "figures": move.figures}
    elif move.kind in {"pause", "resume"}:
        return msgspec.structs.replace(state, paused=move.kind == "pause")
    if not changes:
        return state
    spans = tuple(
        span if span.until is not None else msgspec.structs.replace(span, until=max(span.since, move.time))
        for span in state.spans
    )
    return msgspec.structs.replace(state, spans=spans, **changes)


def _traffic(champion: Version | None, rollout: RolloutState | None) -> TrafficWanted:
    """What is wanted; where no rollout is under way, as a decision of its own: which one it was is not known."""
    if rollout is not None:
        return decided(rollout)
    if champion is None:
        return TrafficWanted()
    return TrafficWanted((RevisionWanted(version=champion.version, artifact=champion.artifact, share=100),))


def _drift(traces: Traces, champion: Version | None) -> Drift:
    """What the watch said of the champion. An alarm that nobody answered comes again.

    What is said only once is pending: whether a run has answered it is not known, and one too many is better than none.
    """
    if champion is None:
        return Drift()
    found = [one for one in traces.signals if one.version == champion.version]
    return Drift(
        alarms=newest(one for one in found if one.kind != "state"),
        pending=newest(one for one in said_once(found) if one.time >= champion.since),
        states=newest(one for one in found if one.kind == "state"),
    )


def _in_words(status: LoopStatus) -> str:
    champion = f"champion {status.champion.version}" if status.champion else "no champion"
    run = f", run {status.run.run} under way" if status.run else ""
    candidate = (
        f", candidate {status.candidate.version} at {status.rollout.weight} %"
        if status.candidate and status.rollout
        else ""
    )
    return f"found again: {champion}{run}{candidate}"
