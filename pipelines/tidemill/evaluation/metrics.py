"""The metrics of gates as functions of sums over rows, so that a resample is a weighting of rows and costs one product.

`error` is the mean loss. The others are macro averages over classes, as `tidemill.metrics.classification` has them: of
the classes that were true or answered, what is undefined counting 0. A hit is an answer of the true class whose loss is
0; so a box that is elsewhere is no hit, and its answer counts against precision and recall both. For detection the
class that says "nothing found" is left out, as in `tidemill.metrics.detection`: it is there to be told from the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from tidemill.evaluation.scoring import Evaluation, Rows, Scores
from tidemill.spec.gates import GateMetric

__all__ = ["METRICS", "Floats", "Sample", "figure_of"]

METRICS: tuple[GateMetric, ...] = get_args(GateMetric)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Rows of one or two versions as numbers.

    Attributes:
        names: the judged classes, C of them.
        terms: what each row adds to the sums of each version (versions, rows, 2 + 3 C): 1, its loss, whether it is
            truly of each class, is answered as each, and is a hit of each.
    """

    names: tuple[str, ...]
    terms: Floats

    @classmethod
    def of(cls, evaluation: Evaluation, rows: Rows, versions: Sequence[Scores]) -> "Sample":
        """The rows of a set, as these versions answered them."""
        names = evaluation.classes[1:] if evaluation.kind == "detection" else evaluation.classes
        code = {name: place for place, name in enumerate(names)}
        truths = _one_hot(rows.truths, code)
        found = []
        for scores in versions:
            losses = np.array(scores.losses, dtype=np.float64)
            answers = _one_hot(scores.classes, code)
            classes = [truths, answers, truths * answers * (losses == 0)[:, None]] if len(code) else []
            found.append(np.column_stack([np.ones(len(losses)), losses, *classes]))
        return cls(names, np.stack(found))

    def part(self, places: npt.NDArray[np.intp]) -> "Sample":
        """Some of the rows."""
        return Sample(self.names, self.terms[:, places])

    def figure(self, metric: GateMetric) -> Floats:
        """The metric of each version over all rows (versions,)."""
        return figure_of(metric, self.terms.sum(axis=1))


def figure_of(metric: GateMetric, sums: Floats) -> Floats:
    """A metric from sums of `Sample.terms` (..., 2 + 3 C); not a number of no rows."""
    if metric == "error":
        return _ratio(sums[..., 1], sums[..., 0], np.nan)
    truths, answers, hits = np.split(sums[..., 2:], 3, axis=-1)
    of = {"recall": truths, "precision": answers, "f1": (truths + answers) / 2}[metric]
    seen = (truths + answers) > 0
    return _ratio((_ratio(hits, of, 0.0) * seen).sum(axis=-1), seen.sum(axis=-1), 0.0)


def _ratio(above: Any, below: Any, otherwise: float) -> Floats:
    found: Floats = np.divide(above, below, out=np.full(np.shape(above), otherwise), where=below > 0)
    return found


def _one_hot(said: Sequence[str], code: dict[str, int]) -> Floats:
    places = np.array([code.get(name, len(code)) for name in said], dtype=np.intp)
    found: Floats = np.eye(len(code) + 1)[places, : len(code)] if len(places) else np.zeros((0, len(code)))
    return found
