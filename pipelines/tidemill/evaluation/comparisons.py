"""The gates `answers`, `fresh`, `frozen` and `robustness.drifts`.

Does the candidate answer, is it no worse than the champion, is it good enough?

Each bound holds with 95 % by itself (`tidemill.evaluation.bootstrap`): a candidate that is exactly as much worse as the
margin allows, or exactly as good as a level asks, passes in at most 5 % of cases. Too few rows refuse: of n rows on
which both say the same it is only known that they differ on less than 3/n of all.
"""

from collections.abc import Iterator

from tidemill.evaluation.bootstrap import Bounds, difference_bounds, figure_bounds, units_of
from tidemill.evaluation.metrics import Sample
from tidemill.evaluation.scoring import Compared, Evaluation
from tidemill.spec.gates import FreshGate, FrozenGate, GateMetric, RobustnessGate
from tidemill.training.verdict import GateVerdict, Value, not_applicable

__all__ = ["answers", "drifts", "fresh", "frozen"]

NO_CHAMPION = "no champion"


def answers(evaluation: Evaluation) -> GateVerdict:
    """Passed when every fresh row was answered as declared: finite numbers, one of the classes, one answer a row."""
    candidate, champion = evaluation.candidate, evaluation.champion
    rows = len(candidate.losses)
    figures: dict[str, Value] = {"rows": rows, "unanswered": candidate.unanswered}
    if champion is not None:
        figures["champion_unanswered"] = champion.unanswered
    if not candidate.unanswered:
        reason = f"each of {rows} rows is answered with finite numbers and what is declared"
        return GateVerdict(gate="answers", passed=True, reason=reason, figures=figures)
    reason = f"{candidate.unanswered} of {rows} rows have no answer as declared: {'; '.join(candidate.problems)}"
    return GateVerdict(gate="answers", passed=False, reason=reason, figures=figures)


def fresh(gate: FreshGate, evaluation: Evaluation) -> Iterator[GateVerdict]:
    """The verdicts on the fresh rows: against the champion, and against the limit if there is one."""
    on = f"the {len(evaluation.candidate.losses)} newest rows"
    yield _not_worse("fresh", gate.metric, gate.margin, evaluation, evaluation.fresh, on)
    if gate.at_most is not None:
        yield _at_most("fresh.atMost", gate.at_most, evaluation, evaluation.fresh, on)


def frozen(gate: FrozenGate, evaluation: Evaluation) -> Iterator[GateVerdict]:
    """The verdicts on the frozen dataset; refused where it is not there."""
    compared = evaluation.frozen
    if compared is None:
        why = evaluation.frozen_problem or f"{gate.dataset} was not evaluated"
        yield GateVerdict(gate="frozen", passed=False, reason=why, figures={"dataset": gate.dataset})
        return
    on = f"{len(compared.candidate.losses)} rows of {compared.name}"
    yield _not_worse("frozen", gate.metric, gate.margin, evaluation, compared, on)
    if gate.at_most is not None:
        yield _at_most("frozen.atMost", gate.at_most, evaluation, compared, on)
    if gate.at_least is not None:
        yield _at_least(gate.at_least, gate.metric, evaluation, compared, on)


def drifts(gate: RobustnessGate, evaluation: Evaluation) -> Iterator[GateVerdict]:
    """The verdict on what came with each earlier drift: what was learnt of it is not lost."""
    if gate.drifts and evaluation.drifts == ():
        yield not_applicable("robustness.drifts", "no run before this one answered a drift")
    for number, compared in enumerate(evaluation.drifts or (), 1):
        on = f"{len(compared.candidate.losses)} rows of {compared.name}"
        yield _not_worse(f"robustness.drifts.{number}", "error", gate.margin, evaluation, compared, on)


def _not_worse(
    gate: str, metric: GateMetric, margin: float, evaluation: Evaluation, compared: Compared, on: str
) -> GateVerdict:
    """Passed when the lower bound of how much better the candidate is, is at least -margin."""
    candidate, champion = compared.candidate, compared.champion
    if champion is None:
        value = float(Sample.of(evaluation, compared.rows, [candidate]).figure(metric)[0])
        figures: dict[str, Value] = {f"candidate_{metric}": value, "rows": len(candidate.losses)}
        return not_applicable(gate, NO_CHAMPION, figures)
    sample = Sample.of(evaluation, compared.rows, [candidate, champion])
    bounds = difference_bounds(sample, metric, units_of(compared.rows.entities))
    first, second = (float(value) for value in sample.figure(metric))
    passed = bounds.lower >= -margin
    reason = (
        f"{metric} {first:.3f} against the champion's {second:.3f} on {on}: better by {bounds.value:+.3f}, "
        f"at least {bounds.lower:+.3f} with 95 % confidence; {_said(passed, bounds.value, margin)}"
    )
    figures = {
        f"candidate_{metric}": first,
        f"champion_{metric}": second,
        "difference": bounds.value,
        "lower_95": bounds.lower,
        "margin": margin,
        **_counted(bounds),
        "champion": champion.version,
    }
    return GateVerdict(gate=gate, passed=passed, reason=reason, figures=figures)


def _said(passed: bool, difference: float, margin: float) -> str:
    if passed:
        return f"not worse by more than the margin of {margin:g}"
    if difference < -margin:
        return f"that is worse by more than the margin of {margin:g}"
    return f"that may be worse by more than the margin of {margin:g}; only more rows could tell"


def _at_most(gate: str, limit: float, evaluation: Evaluation, compared: Compared, on: str) -> GateVerdict:
    """Passed when the upper bound of the candidate's error is at most the limit."""
    bounds = _alone("error", evaluation, compared)
    passed = bounds.upper <= limit
    reason = (
        f"error {bounds.value:.3f} on {on}, at most {bounds.upper:.3f} with 95 % confidence: "
        f"{'within' if passed else 'above'} the limit of {limit:g}"
    )
    figures = {"candidate_error": bounds.value, "upper_95": bounds.upper, "at_most": limit, **_counted(bounds)}
    return GateVerdict(gate=gate, passed=passed, reason=reason, figures=figures)


def _at_least(level: float, metric: GateMetric, evaluation: Evaluation, compared: Compared, on: str) -> GateVerdict:
    """Passed when the lower bound of the candidate's figure reaches the level."""
    bounds = _alone(metric, evaluation, compared)
    passed = bounds.lower >= level
    reason = (
        f"{metric} {bounds.value:.3f} on {on}, at least {bounds.lower:.3f} with 95 % confidence: "
        f"{'reaches' if passed else 'below'} the level of {level:g}"
    )
    figures = {f"candidate_{metric}": bounds.value, "lower_95": bounds.lower, "at_least": level, **_counted(bounds)}
    return GateVerdict(gate="frozen.atLeast", passed=passed, reason=reason, figures=figures)


def _alone(metric: GateMetric, evaluation: Evaluation, compared: Compared) -> Bounds:
    sample = Sample.of(evaluation, compared.rows, [compared.candidate])
    return figure_bounds(sample, metric, units_of(compared.rows.entities))


def _counted(bounds: Bounds) -> dict[str, Value]:
    """How many rows, and where entities were weighted, how many of these."""
    counted: dict[str, Value] = {"rows": bounds.rows}
    return counted | ({"entities": bounds.units} if bounds.units < bounds.rows else {})
