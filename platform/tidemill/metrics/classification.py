"""Quality of classes and their probabilities: what an outcome adds to the sums, and the figures from them.

Exact: accuracy, precision, recall, F1, log loss, Brier score, and the calibration error as it is defined, over 15
bins of equal width. On a grid: AUC, with its bound (`tidemill.metrics.grid`).

An answer's `probabilities` {class: p} are used where it has them (each in [0, 1], adding up to 1 within 0.001);
else its `confidence` in [0, 1], which with two classes says both probabilities, and with more only how sure the
answer is: then log loss and Brier score are of the statement "the answer is right", there is no AUC, and
`probabilistic` says so. Scores that are missing or none at all are counted as `not_scored`, and so is every score
where the truth is a class that is not declared; the class of the answer counts all the same.

Sums of one cell: at most (C + 1)^2 pairs, 512 C scores and 45 for the calibration error, for C classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tidemill.metrics.grid import BINS, Binned, Counts, auc, bin_of
from tidemill.metrics.losses import true_class
from tidemill.metrics.sums import Sums, Terms, exact
from tidemill.spec.model import LabelField, Prediction

__all__ = ["CALIBRATION_BINS", "NO_CLASS", "UNKNOWN", "ClassQuality", "Classes", "ClassificationFigures"]

UNKNOWN = "(unknown)"
"""Stands for every class of a label that the resource does not declare, so that a cell stays small."""
NO_CLASS = "(none)"
"""Stands for an answer without a declared class; it is wrong."""
CALIBRATION_BINS = 15
"""Bins of the calibration error (Guo et al. 2017, "On calibration of modern neural networks", use as many)."""

_SURE = 2.0**-52
"""Probabilities are kept this far from 0 and 1 in the log loss, which is at most 36 then."""
_SUM_ERROR = 1e-3


@dataclass(frozen=True, slots=True)
class ClassQuality:
    """One class; figures are None where nothing says them."""

    truths: int
    answers: int
    precision: float | None
    recall: float | None
    f1: float | None
    auc: Binned | None
    """Against all other classes."""


@dataclass(frozen=True, slots=True)
class ClassificationFigures:
    """Figures over the labelled outcomes of a cell."""

    accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    """Means over the declared classes that were true or answered; what is undefined counts 0."""
    macro_auc: float | None
    classes: Mapping[str, ClassQuality]
    confusion: Mapping[str, Mapping[str, int]]
    """Outcomes by truth, then answer; `(unknown)` and `(none)` where they occur."""
    unknown: int
    """Outcomes whose true class is not declared."""
    scored: int
    not_scored: int
    probabilistic: Literal["class", "answer"] | None
    """What the three below are of: the probability of the true class, or that the answer is right."""
    log_loss: float | None
    brier: float | None
    """Half the sum of squared differences over classes, in [0, 1]; for two classes (p - y)^2."""
    calibration_error: float | None
    """Mean distance of confidence and accuracy, over bins of confidence."""


class Classes:
    """Scores classes as a resource declares them.

    Args:
        prediction: `spec.prediction`, which has classes.
        fields: `spec.labels.fields`. With a `bool` and no `class` there are two classes: nothing, and something.
    """

    def __init__(self, prediction: Prediction, fields: Sequence[LabelField]) -> None:
        self._fields = fields
        self._declared = prediction.classes
        self.nothing = prediction.classes[0]
        self._folds = not any(field.type == "class" for field in fields)
        something = prediction.classes[1] if len(prediction.classes) == 2 else "found"
        self.names = (self.nothing, something) if self._folds else prediction.classes

    def truth(self, label: Mapping[str, Any]) -> str:
        """The true class, or `(unknown)`; raises `InvalidInput` where the label does not say."""
        said = true_class(self._fields, label)
        if isinstance(said, bool):
            return self.names[1] if said else self.nothing
        return said if said in self.names else UNKNOWN

    def answer(self, output: Mapping[str, Any]) -> str:
        """The class that was answered, or `(none)`."""
        said = output.get("class")
        if said not in self._declared:
            return NO_CLASS
        return str(said) if said == self.nothing or not self._folds else self.names[1]

    def terms(self, output: Mapping[str, Any], label: Mapping[str, Any]) -> Terms:
        """What one labelled outcome adds; raises `InvalidInput` where the label does not say a class."""
        truth, answer = self.truth(label), self.answer(output)
        found: Terms = [(("pair", truth, answer), 1)]
        chances = self._chances(output, answer)
        confidence = chances.get(answer) if chances else _share(output.get("confidence"))
        no_chances = chances is None and (output.get("probabilities") is not None or answer == NO_CLASS)
        if truth == UNKNOWN or confidence is None or no_chances:
            return [*found, (("not scored",), 1)]
        right = float(answer == truth)
        slot = min(int(confidence * CALIBRATION_BINS), CALIBRATION_BINS - 1)
        found += [(("calibration", slot), 1), (("confidence", slot), exact(confidence)), (("right", slot), int(right))]
        if not chances:
            said = confidence if right else 1.0 - confidence
            return [*found, *_costs("answer", said, (confidence - right) ** 2)]
        for name in self.names:
            found.append((("score", name, int(name == truth), bin_of(chances.get(name, 0.0))), 1))
        squares = sum((chance - (name == truth)) ** 2 for name, chance in chances.items())
        squares += 1.0 if truth not in chances else 0.0
        return [*found, *_costs("class", chances.get(truth, 0.0), squares / 2)]

    def _chances(self, output: Mapping[str, Any], answer: str) -> dict[str, float] | None:
        """The probability of each class; None where the answer does not say them."""
        said = output.get("probabilities")
        if isinstance(said, Mapping):
            known = {name: _share(said[name]) for name in self._declared if name in said}
            chances = {name: chance for name, chance in known.items() if chance is not None}
            if len(chances) < len(known) or abs(sum(chances.values()) - 1.0) > _SUM_ERROR:
                return None
            if self._folds:
                none = chances.get(self.nothing, 0.0)
                chances = {self.nothing: none, self.names[1]: max(0.0, 1.0 - none)}
            return chances if answer in chances else None
        confidence = _share(output.get("confidence"))
        if confidence is None or len(self.names) != 2 or answer not in self.names:
            return None
        other = self.names[1 - self.names.index(answer)]
        return {answer: confidence, other: 1.0 - confidence}

    def figures(self, sums: Sums) -> ClassificationFigures | None:
        """The figures; None where there is no labelled outcome."""
        confusion: dict[str, dict[str, int]] = {}
        scores: dict[tuple[str, int], Counts] = {}
        for key, count in sums.items():
            if key[0] == "pair":
                confusion.setdefault(str(key[1]), {})[str(key[2])] = count
            elif key[0] == "score":
                counts = scores.setdefault((str(key[1]), int(key[2])), np.zeros(BINS, dtype=np.int64))
                counts[int(key[3])] = count
        if not confusion:
            return None
        outcomes = sum(count for row in confusion.values() for count in row.values())
        classes = {name: _quality(name, confusion, scores) for name in self.names}
        seen = [one for one in classes.values() if one.truths or one.answers]
        areas = [one.auc.value for one in classes.values() if one.auc is not None]
        of = next((of for of in ("class", "answer") if sums.count("costs", of)), None)
        return ClassificationFigures(
            accuracy=sum(confusion.get(name, {}).get(name, 0) for name in self.names) / outcomes,
            macro_precision=_mean([one.precision for one in seen]),
            macro_recall=_mean([one.recall for one in seen]),
            macro_f1=_mean([one.f1 for one in seen]),
            macro_auc=_mean(areas) if areas else None,
            classes=classes,
            confusion=confusion,
            unknown=sum(confusion.get(UNKNOWN, {}).values()),
            scored=outcomes - sums.count("not scored"),
            not_scored=sums.count("not scored"),
            probabilistic=of,  # type: ignore[arg-type]  # one of the two words, or None
            log_loss=sums.mean(("log loss", of), ("costs", of)) if of else None,
            brier=sums.mean(("brier", of), ("costs", of)) if of else None,
            calibration_error=_calibration_error(sums),
        )


def _costs(of: str, chance: float, squares: float) -> Terms:
    loss = -math.log(min(max(chance, _SURE), 1.0 - _SURE))
    return [(("costs", of), 1), (("log loss", of), exact(loss)), (("brier", of), exact(squares))]


def _share(value: Any) -> float | None:
    """A number in [0, 1], or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        return None
    return float(value)


def _quality(
    name: str, confusion: Mapping[str, Mapping[str, int]], scores: Mapping[tuple[str, int], Counts]
) -> ClassQuality:
    truths = sum(confusion.get(name, {}).values())
    answers = sum(row.get(name, 0) for row in confusion.values())
    right = confusion.get(name, {}).get(name, 0)
    none = np.zeros(BINS, dtype=np.int64)
    return ClassQuality(
        truths=truths,
        answers=answers,
        precision=right / answers if answers else None,
        recall=right / truths if truths else None,
        f1=2 * right / (truths + answers) if truths + answers else None,
        auc=auc(scores.get((name, 1), none), scores.get((name, 0), none)),
    )


def _mean(values: Sequence[float | None]) -> float:
    """The mean; what is undefined counts 0, and so does the mean of nothing."""
    return sum(value or 0.0 for value in values) / len(values) if values else 0.0


def _calibration_error(sums: Sums) -> float | None:
    scored = distance = 0.0
    for slot in range(CALIBRATION_BINS):
        scored += sums.count("calibration", slot)
        distance += abs(sums.total("confidence", slot) - sums.count("right", slot))
    return distance / scored if scored else None
