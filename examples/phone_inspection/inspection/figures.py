"""From a recording to figures: rollouts as they were seen, accuracies, runs, and the time of each phase."""

from typing import Any, Literal

import msgspec

from tidemill.events.records import Decision

from .recording import Recording

__all__ = [
    "Moments",
    "Phase",
    "RolloutSeen",
    "ShareSeen",
    "accuracies",
    "phases",
    "rollout_after",
    "runs",
    "seconds_between",
]


class Moments(msgspec.Struct, kw_only=True):
    """When the parts of the story began, in milliseconds since the epoch; None: they did not."""

    started: int
    stack_ready: int | None = None
    history_sent: int | None = None
    serving: int | None = None
    """The first version had all traffic, and the line began to run."""
    light_changed: int | None = None
    returned_sent: int | None = None
    """The second act: the returned phones were entered."""
    line_stopped: int | None = None
    ended: int | None = None


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the story: when it began, in seconds after the start of the demo, and how long it took."""

    name: str
    since_s: float
    seconds: float
    part: Literal["story", "from the change of light to 100 %", "bad candidate"] = "story"


class ShareSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A share of the traffic that a candidate had."""

    weight: int
    """Percent, as seen at the proxy."""
    answered: float | None
    """Percent of the answers meanwhile that it gave."""
    answers: int
    """All answers meanwhile."""
    seconds: float


class RolloutSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate's way, as it was seen."""

    version: str
    started_at: int
    first_share_at: int | None
    ended_at: int | None
    result: Literal["promoted", "rolled back", "under way"]
    reason: str
    gates_skipped: bool
    steps: tuple[ShareSeen, ...]


def rollout_after(recording: Recording, moment: int | None) -> RolloutSeen | None:
    """The first rollout that started after a moment; None if there was none."""
    started = recording.decided("start-rollout", after=moment) if moment is not None else []
    if not started:
        return None
    begin, version = started[0], started[0].subject
    ends = recording.decided("promote", "rolled-back", after=begin.time, subject=version)
    end = ends[0] if ends else None
    to_all = [
        one
        for one in recording.decided("set-traffic", after=begin.time, subject=version)
        if one.figures.get("weight") == 100
    ]
    verdicts = recording.decided("roll-back", after=begin.time, subject=version) or to_all
    steps = _steps(recording, version, begin.time, end)
    first = recording.weights_of(version, begin.time)
    return RolloutSeen(
        version=version,
        started_at=begin.time,
        first_share_at=first[0][0] if first else None,
        ended_at=end.time if end else None,
        result="under way" if end is None else ("promoted" if end.kind == "promote" else "rolled back"),
        reason=verdicts[0].reason if verdicts else "",
        gates_skipped=bool(begin.figures.get("skip_gates")),
        steps=steps,
    )


def _steps(recording: Recording, version: str, since: int, end: Decision | None) -> tuple[ShareSeen, ...]:
    """The shares that the proxy had, until the rollout was over."""
    until = None if end is None else end.time + 1000
    seen = recording.weights_of(version, since, until)
    last = end.time if end else (recording.traffic[-1][0] if recording.traffic else since)
    ends = [at for at, _ in seen[1:]] + [max(last, seen[-1][0])] if seen else []
    found = []
    for (at, weight), over in zip(seen, ends, strict=True):
        answers = recording.between(at, over)
        mine = sum(one.version == version for one in answers)
        found.append(
            ShareSeen(
                weight=weight,
                answered=round(100 * mine / len(answers), 1) if answers else None,
                answers=len(answers),
                seconds=round((over - at) / 1000, 2),
            )
        )
    return tuple(found)


def accuracies(
    recording: Recording, moments: Moments, good: RolloutSeen | None, bad: RolloutSeen | None
) -> tuple[dict[str, float | None], dict[str, int]]:
    """Accuracy before, drifted and after, and on how many answers each rests.

    Each is of one version with all traffic: until the light changes; from then until a candidate gets a share; and
    from the promotion until the next candidate gets one.
    """
    spans: dict[str, tuple[int, int | None] | None] = {
        "before": (moments.serving, moments.light_changed or moments.line_stopped) if moments.serving else None,
        "drifted": (moments.light_changed, good.first_share_at if good else None) if moments.light_changed else None,
        "after": (good.ended_at, bad.first_share_at if bad else None) if good and good.ended_at else None,
    }
    found = {name: recording.accuracy(*span) if span else (None, 0) for name, span in spans.items()}
    shares = {name: None if share is None else round(share, 4) for name, (share, _) in found.items()}
    return shares, {name: count for name, (_, count) in found.items()}


def runs(recording: Recording) -> list[dict[str, Any]]:
    """Every run that was started, with its cause, and the seconds of its steps."""
    found = []
    for one in recording.decided("start-run"):
        steps = {
            step.step: round((step.until - step.since) / 1000, 2) for step in recording.steps if step.run == one.subject
        }
        found.append({"run": one.subject, "cause": one.figures.get("cause"), "reason": one.reason, "steps": steps})
    return found


def phases(recording: Recording, moments: Moments, good: RolloutSeen | None, bad: RolloutSeen | None) -> list[Phase]:
    """The time of each phase: of the story, of the way from the change of light to 100 %, of the bad candidate's."""
    first_run = recording.decided("start-run")
    story = [
        ("the stack starts", moments.started, moments.stack_ready),
        ("history is entered", moments.stack_ready, moments.history_sent),
        ("the first version is trained and serves", first_run[0].time if first_run else None, moments.serving),
        ("the line runs in normal light", moments.serving, moments.light_changed or moments.line_stopped),
        ("new light: drift, retrain, rollout", moments.light_changed, good.ended_at if good else None),
        ("a bad candidate is taken back", moments.returned_sent, bad.ended_at if bad else None),
        ("the books are closed, the stack ends", moments.line_stopped, moments.ended),
    ]
    found = [_phase(moments, *one, "story") for one in story]
    drift_run = next((one for one in first_run if one.figures.get("cause") == "drift"), None)
    if good is not None and drift_run is not None:
        found += _way(recording, moments, good, moments.light_changed, drift_run, "from the change of light to 100 %")
    asked = [one for one in recording.decided("start-run", after=moments.returned_sent or 0) if moments.returned_sent]
    if bad is not None and asked:
        found += _way(recording, moments, bad, moments.returned_sent, asked[0], "bad candidate")
    return [one for one in found if one is not None]


def _way(
    recording: Recording, moments: Moments, rollout: RolloutSeen, begin: int | None, run: Decision, part: Any
) -> list[Phase | None]:
    first = next(
        (at for at, one in recording.signals if one.kind == "drift" and begin is not None and at >= begin), None
    )
    signalled = part != "bad candidate" and first is not None
    found = [_phase(moments, "drift grows until it is signalled", begin, first, part)] if signalled else []
    found.append(_phase(moments, "a run is decided", first if signalled else begin, run.time, part))
    steps = [step for step in recording.steps if step.run == run.subject]
    if steps:
        found.append(_phase(moments, "the run's process starts", run.time, steps[0].since, part))
    for number, step in enumerate(steps):
        over = steps[number + 1].since if number + 1 < len(steps) else rollout.started_at
        found.append(_phase(moments, f"run: {step.step}", step.since, over, part))
    found.append(_phase(moments, "the model server starts", rollout.started_at, rollout.first_share_at, part))
    at = rollout.first_share_at
    for share in rollout.steps:
        if at is not None and share.weight < 100:
            over = at + round(share.seconds * 1000)
            found.append(_phase(moments, f"at {share.weight} %", at, over, part))
            at = over
    last = "to 100 %" if rollout.result == "promoted" else "back to 0 %"
    found.append(_phase(moments, last, at, rollout.ended_at, part))
    return found


def _phase(moments: Moments, name: str, since: int | None, until: int | None, part: Any) -> Phase | None:
    if since is None or until is None or until < since:
        return None
    return Phase(
        name=name, since_s=(since - moments.started) / 1000, seconds=round((until - since) / 1000, 2), part=part
    )


def seconds_between(since: int | None, until: int | None) -> float | None:
    """Seconds from one moment to another; None where one of them is missing."""
    return None if since is None or until is None else round((until - since) / 1000, 2)
