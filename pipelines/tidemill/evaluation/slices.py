"""The gates `slices`: how far groups are apart, and whether any of them is worse off than under the champion.

Bounds of all groups of a gate hold together with 95 %: each is taken at 5 % over their number (Bonferroni), half of it
for each side of a gap (`tidemill.metrics.gaps`). A refusal is sure, then, whichever group looks worst; what is not sure
passes. Groups of fewer than 30 rows are not judged, and the verdict names them.
"""

from collections.abc import Mapping

import numpy as np

from tidemill.evaluation.bootstrap import CONFIDENCE, difference_bounds, figure_bounds, units_of
from tidemill.evaluation.metrics import Sample
from tidemill.evaluation.scoring import Evaluation
from tidemill.metrics.gaps import SMALLEST_GROUP, Gap, Group, gap_of
from tidemill.spec.gates import SliceGate
from tidemill.stats.confidence import Interval
from tidemill.training.verdict import GateVerdict, Value, not_applicable

__all__ = ["slices"]

_SHOWN = 5

Places = np.ndarray[tuple[int], np.dtype[np.intp]]


def slices(gate: SliceGate, evaluation: Evaluation) -> GateVerdict:
    """Refused where the gap is surely too large, or a group surely worse than under the champion by the margin."""
    name, all_groups = f"slices.{gate.by}", _groups(evaluation, gate.by)
    judged = {group: at for group, at in all_groups.items() if len(at) >= SMALLEST_GROUP}
    small = sorted(all_groups.keys() - judged.keys())
    left_out = f"; of fewer than {SMALLEST_GROUP} rows and not judged: {_listed(small)}" if small else ""
    figures: dict[str, Value] = {"metric": gate.metric, "groups": len(judged), "not_judged": len(small)}
    if not judged:
        return not_applicable(name, f"no {gate.by} has {SMALLEST_GROUP} rows{left_out}", figures)
    said, refusals = [], []
    gap = _gap(gate, evaluation, judged)
    if gap is not None:
        figures |= {"gap": gap.difference, "gap_lower_95": gap.interval.low, "max_gap": gate.max_gap}
        apart = (
            f"{gate.metric} of {gap.largest} and {gap.smallest} is {gap.difference:.3f} apart, at least "
            f"{gap.interval.low:.3f} with 95 % confidence"
        )
        said.append(apart)
        if gate.max_gap is not None and gap.interval.low > gate.max_gap:
            refusals.append(f"{apart}: more than {gate.max_gap:g}")
    for group, (value, upper) in _changes(gate, evaluation, judged).items():
        figures |= {f"difference.{group}": value, f"upper_95.{group}": upper}
        if upper < -gate.margin:
            refusals.append(
                f"{gate.by} {group} is worse than under the champion by {-value:.3f}, at least {-upper:.3f} with 95 % "
                f"confidence over all: more than the margin of {gate.margin:g}"
            )
    fine = "; ".join([f"none of {len(judged)} groups is surely worse than is allowed", *said])
    reason = ("; ".join(refusals) or fine) + left_out
    return GateVerdict(gate=name, passed=not refusals, reason=reason, figures=figures)


def _groups(evaluation: Evaluation, by: str) -> dict[str, Places]:
    """The rows of each group."""
    said = np.array(evaluation.rows.groups.get(by, ()))
    return {str(group): np.flatnonzero(said == group) for group in sorted(set(said.tolist()))}


def _gap(gate: SliceGate, evaluation: Evaluation, judged: Mapping[str, Places]) -> Gap | None:
    """The candidate's gap; None with fewer than two groups."""
    sample = Sample.of(evaluation, evaluation.rows, [evaluation.candidate])
    confidence = 1 - (1 - CONFIDENCE) / (2 * len(judged))
    groups = []
    for group, at in judged.items():
        found = figure_bounds(sample.part(at), gate.metric, _units(evaluation, at), confidence=confidence)
        interval = Interval(found.lower, found.upper)
        groups.append(Group(group, len(at), len(at), found.value, interval, True))
    return gap_of(groups)


def _changes(gate: SliceGate, evaluation: Evaluation, judged: Mapping[str, Places]) -> dict[str, tuple[float, float]]:
    """How much better each group is than under the champion, as measured and at most; empty without a champion."""
    if evaluation.champion is None:
        return {}
    sample = Sample.of(evaluation, evaluation.rows, [evaluation.candidate, evaluation.champion])
    confidence = 1 - (1 - CONFIDENCE) / len(judged)
    found = {}
    for group, at in judged.items():
        bounds = difference_bounds(sample.part(at), gate.metric, _units(evaluation, at), confidence=confidence)
        found[group] = (bounds.value, bounds.upper)
    return found


def _units(evaluation: Evaluation, at: Places) -> Places | None:
    entities = evaluation.rows.entities
    return units_of([entities[place] for place in at]) if entities else None


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
