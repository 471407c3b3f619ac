"""What candidate and champion made of the same rows: what steps hand to gates, reports and the registry.

Everything is kept row by row, in the order of the rows, so that each gate can resample them and each report can count
them its own way (`tidemill.evaluation.tables`). A row that was not answered as declared is a wrong answer: its loss is
1, its class `(none)`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from tidemill.metrics.losses import error
from tidemill.spec.model import LabelField, Prediction
from tidemill.training.protocols import Answer

__all__ = ["Compared", "Evaluation", "Rows", "Scores", "Stress", "Timing", "losses_of"]


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a set: which they are, and what was true of each."""

    ids: tuple[str, ...] = ()
    """Event ids."""
    entities: tuple[str, ...] = ()
    truths: tuple[str, ...] = ()
    """True classes, among `Evaluation.classes` or `(unknown)`; empty for a regression."""
    numbers: tuple[float, ...] = ()
    """True numbers; empty unless for a regression."""
    groups: dict[str, tuple[str, ...]] = {}
    """By each name of `gates.slices`: the group of each row; `(none)` where the event has no value."""


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """One version on the rows of a set."""

    version: str
    losses: tuple[float, ...]
    """Of each row, in [0, 1]."""
    classes: tuple[str, ...] = ()
    """Answered classes, among `Evaluation.classes` or `(none)`; empty for a regression."""
    confidences: tuple[float | None, ...] = ()
    """Of the answers; None where there is none. Empty for a regression."""
    numbers: tuple[float | None, ...] = ()
    """Answered numbers; empty unless for a regression."""
    unanswered: int = 0
    """Rows without an answer as declared."""
    problems: tuple[str, ...] = ()
    """Why not, each reason once, the first few."""

    @property
    def mean(self) -> float:
        """Mean loss; not a number where there is no row."""
        return sum(self.losses) / len(self.losses) if self.losses else float("nan")


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Candidate and champion on the same rows of a set."""

    name: str
    """`fresh`, the name of the frozen dataset, or a drift in words."""
    digest: str
    """Of the snapshot that holds the rows."""
    rows: Rows
    candidate: Scores
    champion: Scores | None = None
    """None where there is no champion."""


class Stress(msgspec.Struct, frozen=True, kw_only=True):
    """The fresh rows once more, changed as they may be in service."""

    name: str
    """What was done to them, in words: `without the features of the store`, `without exposure_ms`."""
    candidate: tuple[float, ...]
    """Losses of the changed rows."""
    champion: tuple[float, ...] | None = None


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a version answers in the real server: requests of one row over HTTP, one after the other."""

    version: str
    seconds: tuple[float, ...] = ()
    """Of each request, in the order sent, but for the first few while the process was new."""
    ready_after_s: float | None = None
    """From the start of the process until it answered; None where it never did."""
    problem: str = ""
    """Why the server did not answer all that it was asked; empty: it did."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Candidate and champion on the same rows."""

    candidate: Scores
    """On the fresh rows."""
    champion: Scores | None = None
    """None where there is no champion."""
    snapshot: str
    """Digest of the snapshot whose fresh rows these are."""
    kind: Literal["classification", "detection", "regression"] = "classification"
    classes: tuple[str, ...] = ()
    """The names of classes in truths and answers; the first says that nothing was found. None for a regression."""
    rows: Rows = Rows()
    frozen: Compared | None = None
    """On the frozen dataset; None where none is declared or it is not there."""
    frozen_problem: str = ""
    """Why there is no comparison on the frozen dataset that is declared."""
    size: int | None = None
    """Bytes of the candidate's model."""
    champion_size: int | None = None
    timing: Timing | None = None
    """Of the candidate; None unless `gates.latency` is declared."""
    champion_timing: Timing | None = None
    stresses: tuple[Stress, ...] | None = None
    """What `gates.robustness` looks at; None unless it is declared, empty where nothing may be missing."""

    drifts: tuple[Compared, ...] | None = None
    """On what came with earlier drifts, the newest first; None unless `gates.robustness` is declared."""

    @property
    def fresh(self) -> Compared:
        """The comparison on the fresh rows."""
        return Compared(
            name="fresh", digest=self.snapshot, rows=self.rows, candidate=self.candidate, champion=self.champion
        )


def losses_of(
    answers: Sequence[Answer],
    labels: Sequence[Mapping[str, Any]],
    *,
    prediction: Prediction,
    fields: Sequence[LabelField],
) -> tuple[float, ...]:
    """The loss of each answer, given what turned out to be true."""
    return tuple(error(prediction, fields, answer, label) for answer, label in zip(answers, labels, strict=True))
