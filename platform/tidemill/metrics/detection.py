"""Quality of boxes: what an outcome adds to the sums, and the figures from them.

A picture has one answer and one truth: a class and a box, or nothing. The mean IoU is exact, over the pictures where
both have a box. Average precision at IoU 0.5 is per class, from confidences on a grid, with its bound
(`tidemill.metrics.grid`): a detection is an answer of the class; it is right where the truth is of the class and
the boxes' IoU is at least 0.5 (where labels have no box, the class decides); what was to be found are the pictures
of the class, found or not. A box that is none, and a confidence that is none, are counted as not scored.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.metrics.classification import NO_CLASS, UNKNOWN, Classes
from tidemill.metrics.grid import BINS, Binned, Counts, average_precision, bin_of
from tidemill.metrics.losses import MIN_IOU, iou
from tidemill.metrics.sums import Sums, Terms, exact
from tidemill.spec.model import LabelField

__all__ = ["Boxes", "DetectionFigures"]


@dataclass(frozen=True, slots=True)
class DetectionFigures:
    """Figures over the labelled outcomes of a cell."""

    boxes: int
    """Pictures where answer and truth both have a box."""
    boxes_not_scored: int
    """Pictures with a true box where the answer's is no box at all."""
    mean_iou: float | None
    not_ranked: int
    """Detections without a confidence; they find nothing."""
    average_precision: Mapping[str, Binned]
    """At IoU 0.5, by class that there was to find."""
    mean_average_precision: float | None


class Boxes:
    """Scores boxes as a resource declares them.

    Args:
        classes: how its classes are read.
        fields: `spec.labels.fields`.
    """

    def __init__(self, classes: Classes, fields: Sequence[LabelField]) -> None:
        self._classes = classes
        self._field = next((field.name for field in fields if field.type == "box"), None)

    def terms(self, output: Mapping[str, Any], label: Mapping[str, Any]) -> Terms:
        """What one labelled outcome adds; raises `InvalidInput` where the label does not say a class."""
        truth, answer = self._classes.truth(label), self._classes.answer(output)
        found: Terms = []
        fits = self._field is None
        if self._field is not None:
            box, true_box = output.get("box"), label.get(self._field)
            overlap = iou(box, true_box)
            fits = overlap >= MIN_IOU
            if box is not None and iou(true_box, true_box) > 0:
                scored = iou(box, box) > 0 and math.isfinite(overlap)
                found += [(("boxes",), 1), (("iou",), exact(overlap))] if scored else [(("box not scored",), 1)]
        if truth not in {self._classes.nothing, UNKNOWN}:
            found.append((("to find", truth), 1))
        if answer not in {self._classes.nothing, NO_CLASS}:
            confidence = output.get("confidence")
            if isinstance(confidence, int | float) and 0 <= confidence <= 1:
                hit = int(answer == truth and fits)
                found.append((("detection", answer, hit, bin_of(confidence)), 1))
            else:
                found.append((("not ranked",), 1))
        return found

    def figures(self, sums: Sums) -> DetectionFigures:
        """The figures."""
        ranked: dict[tuple[str, int], Counts] = {}
        for key, count in sums.items():
            if key[0] == "detection":
                counts = ranked.setdefault((str(key[1]), int(key[2])), np.zeros(BINS, dtype=np.int64))
                counts[int(key[3])] = count
        none = np.zeros(BINS, dtype=np.int64)
        areas = {
            name: area
            for name in self._classes.names
            if (
                area := average_precision(
                    ranked.get((name, 1), none), ranked.get((name, 0), none), sums.count("to find", name)
                )
            )
        }
        return DetectionFigures(
            boxes=sums.count("boxes"),
            boxes_not_scored=sums.count("box not scored"),
            mean_iou=sums.mean(("iou",), ("boxes",)),
            not_ranked=sums.count("not ranked"),
            average_precision=areas,
            mean_average_precision=sum(one.value for one in areas.values()) / len(areas) if areas else None,
        )
