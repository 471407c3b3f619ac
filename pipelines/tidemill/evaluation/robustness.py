"""The gate `robustness`: what may be missing in service is taken from the fresh rows, and they are answered again.

That is each number or category that an event may lack, by itself, and all features of the store together, which rows
lack while it does not answer. A candidate that fails on such rows has lost them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tidemill.evaluation.bootstrap import mean_bounds, units_of
from tidemill.evaluation.scoring import Evaluation, Stress
from tidemill.spec.gates import RobustnessGate
from tidemill.spec.model import ContinualModel
from tidemill.training.protocols import Row
from tidemill.training.verdict import GateVerdict, Value, not_applicable

__all__ = ["robustness", "stressed"]

_AMONG = (-2.0, 2.0)
"""A difference of two rises of losses in [0, 1]."""


def stressed(
    rows: Sequence[Row], resource: ContinualModel, service: Sequence[str] = ()
) -> Iterator[tuple[str, list[Row]]]:
    """What is done to the rows, in words, and the changed rows; nothing that would change none of them.

    `service` names the features of the user's FeatureService.
    """
    optional = [one.name for one in resource.spec.events.fields if not one.required and one.type != "image"]
    stresses: list[tuple[str, tuple[str, ...]]] = [(f"without {name}", (name,)) for name in optional]
    stresses.append(("without the features of the store", (*resource.spec.features.window_names, *service)))
    for said, names in stresses:
        if any(row[name] is not None for row in rows for name in names):
            missing: dict[str, Any] = dict.fromkeys(names)
            yield said, [{**row, **missing} for row in rows]


def robustness(gate: RobustnessGate, evaluation: Evaluation, stresses: Sequence[Stress]) -> GateVerdict:
    """Refused where the candidate's error may rise by more than the champion's and the margin under any stress.

    The bound is that of `fresh`, of the difference of both rises row by row. All must hold, so that each is taken at
    95 % by itself.
    """
    if not stresses:
        return not_applicable("robustness", "no input of the fresh rows may be missing")
    figures: dict[str, Value] = {"stresses": len(stresses), "margin": gate.margin}
    rises = {one.name: _rise(one.candidate, evaluation.candidate.losses) for one in stresses}
    figures |= {f"rise.{name}": float(rise.mean()) for name, rise in rises.items()}
    champion = evaluation.champion
    if champion is None:
        return not_applicable("robustness", "no champion", figures)
    units = units_of(evaluation.rows.entities)
    refusals = []
    for one in stresses:
        of_champion = _rise(one.champion or (), champion.losses)
        bounds = mean_bounds(of_champion - rises[one.name], _AMONG, units)
        figures |= {f"champion_rise.{one.name}": float(of_champion.mean()), f"lower_95.{one.name}": bounds.lower}
        if bounds.lower < -gate.margin:
            sure = "" if bounds.value < -gate.margin else "; only more rows could tell"
            refusals.append(
                f"{one.name} the error rises by {rises[one.name].mean():+.3f} against the champion's "
                f"{of_champion.mean():+.3f}, by up to {-bounds.lower:.3f} more with 95 % confidence: more than the "
                f"margin of {gate.margin:g}{sure}"
            )
    fine = f"under none of {len(stresses)} stresses does the error rise by more than the champion's and {gate.margin:g}"
    reason = "; ".join(refusals) or fine
    return GateVerdict(gate="robustness", passed=not refusals, reason=reason, figures=figures)


def _rise(changed: Sequence[float], plain: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(changed, dtype=np.float64) - np.array(plain, dtype=np.float64)
