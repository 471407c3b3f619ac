"""What reports show of an evaluation: confusion, figures of a set and of its groups, and the rows that cost most."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from tidemill.evaluation.metrics import METRICS, Sample
from tidemill.evaluation.scoring import Compared, Evaluation, Rows, Scores
from tidemill.spec.gates import GateMetric

__all__ = ["WrongRow", "confusion", "figures", "group_figures", "worst_rows"]


class WrongRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that a version answered wrongly."""

    id: str
    entity: str
    truth: str
    """The true class or number."""
    answer: str
    """The class or number that was answered; `(none)` for no answer."""
    confidence: float | None
    champion_right: bool | None
    """Whether the champion had it right; None without a champion."""


def confusion(rows: Rows, scores: Scores) -> dict[str, dict[str, int]]:
    """Rows by true class, then answered class; empty for a regression."""
    found: dict[str, dict[str, int]] = {}
    for (truth, answer), count in sorted(Counter(zip(rows.truths, scores.classes, strict=True)).items()):
        found.setdefault(truth, {})[answer] = count
    return found


def figures(evaluation: Evaluation, rows: Rows, scores: Scores) -> dict[str, float]:
    """The metrics that gates know, of all rows: `error`, and for classes `f1`, `recall` and `precision` (macro)."""
    sample = Sample.of(evaluation, rows, [scores])
    return {metric: float(sample.figure(metric)[0]) for metric in _metrics(evaluation)}


def group_figures(evaluation: Evaluation, by: str) -> dict[str, dict[str, float]]:
    """By group of the fresh rows: how many rows it has, and the candidate's and the champion's figures.

    Keys are `rows`, the metrics of `figures`, and these with `champion_` before them.
    """
    groups = np.array(evaluation.rows.groups[by])
    versions = [scores for scores in (evaluation.candidate, evaluation.champion) if scores is not None]
    sample = Sample.of(evaluation, evaluation.rows, versions)
    found: dict[str, dict[str, float]] = {}
    for name in sorted(set(groups.tolist())):
        places = np.flatnonzero(groups == name)
        part = found[name] = {"rows": float(len(places))}
        for metric in _metrics(evaluation):
            of = sample.part(places).figure(metric).tolist()
            part |= dict(zip((metric, f"champion_{metric}"), of, strict=False))
    return found


def worst_rows(compared: Compared, most: int = 20) -> list[WrongRow]:
    """The candidate's wrong answers, those first that the champion had right, then the surest ones."""
    rows, candidate, champion = compared.rows, compared.candidate, compared.champion
    answers: Sequence[object] = candidate.classes or candidate.numbers
    truths: Sequence[object] = rows.truths or rows.numbers
    found = [
        WrongRow(
            id=rows.ids[at],
            entity=rows.entities[at],
            truth=str(truths[at]),
            answer="(none)" if answers[at] is None else str(answers[at]),
            confidence=candidate.confidences[at] if candidate.confidences else None,
            champion_right=None if champion is None else not champion.losses[at],
        )
        for at, loss in enumerate(candidate.losses)
        if loss
    ]
    return sorted(found, key=lambda row: (not row.champion_right, -(row.confidence or 0.0)))[:most]


def _metrics(evaluation: Evaluation) -> tuple[GateMetric, ...]:
    return METRICS if evaluation.classes else ("error",)
