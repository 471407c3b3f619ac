"""Candidate and champion answer the same rows; what each row cost either of them is kept, row by row."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from tidemill.metrics.losses import error
from tidemill.spec.model import LabelField, Prediction
from tidemill.training.protocols import Answer, Row

__all__ = ["Evaluation", "ModelServer", "Scores", "losses_of", "score"]


class ModelServer(Protocol):
    """Answers rows as a version does when it serves."""

    @property
    def version(self) -> str:
        """The version that answers."""
        ...

    def answers(self, rows: Sequence[Row]) -> list[Answer]:
        """One answer per row, in order. Raises `InvalidInput` for a row that cannot be answered."""
        ...


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """One version on the rows of a set: the loss of each, in [0, 1], in the order of the rows."""

    version: str
    losses: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean loss; not a number where there is no row."""
        return sum(self.losses) / len(self.losses) if self.losses else float("nan")


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Candidate and champion on the same rows."""

    candidate: Scores
    champion: Scores | None = None
    """None where there is no champion."""
    snapshot: str
    """Digest of the snapshot whose fresh rows these are."""


def score(
    server: ModelServer,
    rows: Sequence[Row],
    labels: Sequence[Mapping[str, Any]],
    *,
    prediction: Prediction,
    fields: Sequence[LabelField],
) -> Scores:
    """The loss of a version on each row, given what turned out to be true."""
    losses = losses_of(server.answers(rows), labels, prediction=prediction, fields=fields)
    return Scores(version=server.version, losses=losses)


def losses_of(
    answers: Sequence[Answer],
    labels: Sequence[Mapping[str, Any]],
    *,
    prediction: Prediction,
    fields: Sequence[LabelField],
) -> tuple[float, ...]:
    """The loss of each answer, given what turned out to be true."""
    return tuple(error(prediction, fields, answer, label) for answer, label in zip(answers, labels, strict=True))
