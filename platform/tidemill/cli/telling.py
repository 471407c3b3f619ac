"""A model's status in words and tables. Pure: from a resource, its status and the time to what is shown."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from tidemill.cli.output import table
from tidemill.control.hindrances import spent
from tidemill.control.state import LoopStatus, Run, Version
from tidemill.control.words import age, figures_text, shares
from tidemill.core.clock import from_ms, to_ms
from tidemill.events.records import Decision, Signal
from tidemill.rollout.power import power_of
from tidemill.spec.model import ContinualModel
from tidemill.spec.quantities import format_duration

if TYPE_CHECKING:
    from tidemill.rollout.report import Lift

__all__ = ["COLUMNS", "answer", "described", "lift_story", "rollout_story", "summary"]

COLUMNS = ("name", "champion", "candidate", "traffic", "phase", "drift", "age")


def summary(model: str, status: LoopStatus | None, now: datetime) -> tuple[str | None, ...]:
    """One row of `tidemill get`."""
    if status is None:
        return (model, None, None, None, "Pending", None, None)
    champion, candidate = _name(status.champion), _name(status.candidate)
    drift = ", ".join(signal.feature for signal in status.drift.alarms) or "none"
    traffic = shares(status)
    return (model, champion, candidate, traffic, status.phase, drift, age(status.created_at, now))


def described(
    resource: ContinualModel, status: LoopStatus, why_not: Sequence[str], now: datetime
) -> list[RenderableType]:
    """All that a person wants to know: where it stands, and why."""
    parts: list[RenderableType] = [
        _head(resource, status, now),
        *_traffic(status),
        *_run(status.run, now, status.seen.progress),
    ]
    parts += rollout_story(status)
    parts += _section("drift", [_signal(one, now) for one in (*status.drift.alarms, *status.drift.states)])
    if status.run is None and status.candidate is None:
        power = power_of(resource, status.seen.history) if status.champion else None
        parts += _section("a rollout", [power.words()] if power else [])
        parts += _section("why no run starts now", why_not or ("one starts at the next tick",))
    parts += _section("what could not be seen or done", status.seen.troubles)
    parts += _section("last decisions", [line for one in status.decisions for line in _decision(one)])
    return parts


def lift_story(lines: Sequence["Lift"], by: str | None) -> list[RenderableType]:
    """The A/B report, for people."""
    if not lines:
        return ["no outcome of this rollout has come of age yet"]
    head = [*([by] if by else []), "version", "outcomes", "labelled", "error", "lift", "95 % interval"]
    rows = []
    for line in lines:
        place = [line.slice or "(all)"] if by else []
        for arm in (line.champion, line.candidate):
            error = "" if arm.error is None else f"{arm.error:.4f}"
            cells = [*place, arm.version, f"{arm.outcomes:,}", f"{arm.labelled:,}", error]
            rows.append([*cells, *(_lift(line) if arm is line.candidate else ["", ""])])
    note = "lift: error of the candidate less that of the champion, over the same mixture of moments; for one look"
    return [table(head, rows), f"\n{note}: verdicts have their own evidence"]


def _lift(line: "Lift") -> list[str]:
    interval = f"{line.interval.low:+.4f} to {line.interval.high:+.4f}" if line.interval else "too few"
    return ["" if line.lift is None else f"{line.lift:+.4f}", interval]


def rollout_story(status: LoopStatus) -> list[RenderableType]:
    """How the rollout stands, with its figures so far."""
    if status.rollout is None:
        return []
    plan, told = status.rollout.plan, status.seen.rollout
    champion = f" against {plan.champion.name}" if plan.champion else ""
    steps = " → ".join(f"{weight}" for weight in plan.weights)
    lines = [
        f"{plan.candidate.name}{champion}: {status.rollout.phase}{', paused' if status.rollout.paused else ''}, "
        f"{status.rollout.weight} % of steps {steps} %",
    ]
    if told.get("reason"):
        lines.append(f"{told.get('verdict') or status.rollout.phase}: {told['reason']}")
    more = {name: value for name, value in told.items() if name not in {"phase", "weight", "reason", "verdict"}}
    return _section("rollout", lines + ([figures_text(more)] if more else []))


def answer(decision: Decision) -> list[RenderableType]:
    """What control said to a request."""
    return [Text(f"{decision.kind} {decision.subject}: {decision.reason}")]


def _name(version: Version | None) -> str | None:
    return version.version if version else None


def _head(resource: ContinualModel, status: LoopStatus, now: datetime) -> RenderableType:
    rows: list[tuple[str, object]] = [("name", resource.id), ("phase", status.phase)]
    for place, found in (
        ("champion", status.champion),
        ("candidate", status.candidate),
        ("previous", status.previous),
    ):
        if found is not None:
            rows.append((place, f"{found.version}, for {age(found.since, now)}, {found.artifact}"))
    if resource.spec.paused:
        rows.append(("paused", "yes: nothing is decided (spec.paused)"))
    if status.seen.labelled is not None:
        rows.append(("labelled", f"{status.seen.labelled:,} events for the next run"))
    budget = spent(resource, status, now)
    per = format_duration(resource.spec.triggers.budget.per)
    frees = (
        f"; room for one more in {age(2 * to_ms(now) - budget.frees_at, now)}" if budget.frees_at is not None else ""
    )
    rows.append(("budget", f"{budget.used} of {budget.runs} runs started in the last {per}{frees}"))
    if status.seen.traffic.endpoint:
        rows.append(("endpoint", status.seen.traffic.endpoint))
    return table(("", ""), rows)


def _traffic(status: LoopStatus) -> list[RenderableType]:
    revisions = status.seen.traffic.revisions
    if not revisions:
        return []
    rows = [
        (
            one.version,
            "copies" if one.version == status.seen.traffic.mirror else f"{one.share} %",
            "ready" if one.ready else one.failed or "not ready",
            one.requests,
            one.errors,
            None if one.latency_p99_ms is None else f"{one.latency_p99_ms:.1f} ms",
        )
        for one in revisions
    ]
    return [Text("\ntraffic", style="bold"), table(("version", "share", "state", "requests", "errors", "p99"), rows)]


def _run(run: Run | None, now: datetime, progress: str) -> list[RenderableType]:
    if run is None:
        return []
    step = f"at step {run.step}" if run.step else "waiting for its first step"
    step += f" ({progress})" if progress else ""
    granted = "granted" if run.grant else "not granted yet"
    gates = ", its gates are skipped" if run.skip_gates else ""
    return _section(
        "run",
        [f"{run.run} ({run.cause}, by {run.by}) for {age(run.started_at, now)}: {step}, {granted}{gates}", run.reason],
    )


def _signal(signal: Signal, now: datetime) -> str:
    return f"{signal.message} ({age(signal.time, now)} ago, evidence {signal.evidence:.3g})"


def _decision(decision: Decision) -> list[str]:
    at = from_ms(decision.time).astimezone()
    lines = [f"{at:%Y-%m-%d %H:%M:%S}  {decision.kind} {decision.subject}: {decision.reason}"]
    figures = figures_text(decision.figures)
    return [*lines, f"{'':21}{figures}"] if figures else lines


def _section(title: str, lines: Sequence[str]) -> list[RenderableType]:
    if not lines:
        return []
    return [Text(f"\n{title}", style="bold"), *(Text(f"  {line}") for line in lines)]
