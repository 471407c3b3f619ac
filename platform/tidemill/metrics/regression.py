"""Quality of numbers: what an outcome adds to the sums, and the figures from them. All are exact.

An answer is `{"value": 1.2}`; with `"quantiles": {"0.1": 0.7, "0.9": 1.9}` it also says how sure it is. A value that
is missing, not finite or beyond 1e100 is counted as not scored (and is wrong); so is each such quantile. Levels are
thousandths between 0 and 1; a level between those is not scored: a cell holds at most 999.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.metrics.losses import number, true_number
from tidemill.metrics.sums import Sums, Terms, exact
from tidemill.spec.model import LabelField, Prediction

__all__ = ["Numbers", "QuantileQuality", "RegressionFigures"]

_LEVELS = 1000


@dataclass(frozen=True, slots=True)
class QuantileQuality:
    """One quantile of the answers."""

    scored: int
    loss: float
    """Mean quantile (pinball) loss: max(q (y - v), (q - 1)(y - v))."""
    below: float
    """Share of truths at or below it: the level itself where it is calibrated."""


@dataclass(frozen=True, slots=True)
class RegressionFigures:
    """Figures over the labelled outcomes of a cell; None where no answer was scored."""

    scored: int
    not_scored: int
    within_tolerance: float
    """Share of the labelled outcomes that is right."""
    mae: float | None
    rmse: float | None
    bias: float | None
    """Mean of answer - truth."""
    quantiles: Mapping[str, QuantileQuality]
    """By level."""


class Numbers:
    """Scores numbers as a resource declares them.

    Args:
        prediction: `spec.prediction` of type regression.
        fields: `spec.labels.fields`.
    """

    def __init__(self, prediction: Prediction, fields: Sequence[LabelField]) -> None:
        self._fields = fields
        self._tolerance = prediction.tolerance or 0.0

    def terms(self, output: Mapping[str, Any], label: Mapping[str, Any]) -> Terms:
        """What one labelled outcome adds; raises `InvalidInput` where the label has no number."""
        truth, answer = true_number(self._fields, label), number(output.get("value"))
        found: Terms = [(("numbers",), 1)]
        if answer is not None:
            off = answer - truth
            found += [(("scored",), 1), (("absolute",), exact(abs(off))), (("squared",), exact(off * off))]
            found += [(("off",), exact(off)), (("within",), int(abs(off) <= self._tolerance))]
        said = output.get("quantiles")
        for name, value in said.items() if isinstance(said, Mapping) else ():
            level, quantile = _level(name), number(value)
            if level is not None and quantile is not None:
                over = truth - quantile
                loss = max(over * level / _LEVELS, over * (level / _LEVELS - 1))
                found += [(("quantile", level), 1), (("pinball", level), exact(loss))]
                found.append((("below", level), int(over <= 0)))
        return found

    def figures(self, sums: Sums) -> RegressionFigures | None:
        """The figures; None where there is no labelled outcome."""
        outcomes, scored = sums.count("numbers"), sums.count("scored")
        if not outcomes:
            return None
        squared = sums.mean(("squared",), ("scored",))
        levels = sorted(int(key[1]) for key, _ in sums.items() if key[0] == "quantile")
        return RegressionFigures(
            scored=scored,
            not_scored=outcomes - scored,
            within_tolerance=sums.count("within") / outcomes,
            mae=sums.mean(("absolute",), ("scored",)),
            rmse=None if squared is None else squared**0.5,
            bias=sums.mean(("off",), ("scored",)),
            quantiles={f"{level / _LEVELS:g}": _quantile(sums, level) for level in levels},
        )


def _quantile(sums: Sums, level: int) -> QuantileQuality:
    scored = sums.count("quantile", level)
    loss = sums.mean(("pinball", level), ("quantile", level))
    return QuantileQuality(scored, loss or 0.0, sums.count("below", level) / scored)


def _level(name: Any) -> int | None:
    """Thousandths of a level such as "0.1"; None for what is none."""
    try:
        thousandths = float(name) * _LEVELS
    except (TypeError, ValueError):
        return None
    if not 0 < thousandths < _LEVELS or abs(thousandths - round(thousandths)) > 1e-6:
        return None
    return round(thousandths)
