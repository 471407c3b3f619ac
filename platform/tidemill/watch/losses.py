"""Outcomes as votes: the loss of the version that serves, on labels of which it is known how they came. Pure.

What counts (STATISTICS.md 3 is why): revision 0, labelled, the label not assumed, picked with a known probability. Of
these each counts with the probability `labels.control` / that probability, drawn by a hash of the prediction's id, so
that every prediction had the same chance to count whatever was answered: their mean loss estimates that of all
predictions without a bias, and stays in [0, 1] as the bets need it. (Weights 1/probability would not: they are as large
as 1/control.) Labels that were volunteered, or caused by the answer alone, say nothing of the model's quality and count
nowhere here; with `labels.control` 0 none does, and the quantity says so at the promotion.

A vote is the mean loss of one entity's outcomes in one window tick of the time when they were predicted.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from tidemill.events.cells import packed
from tidemill.events.records import Outcome, Sketch, Votes
from tidemill.watch.plan import WatchPlan

__all__ = ["ERROR", "Judged", "counts", "loss_sketch"]

ERROR = "error"
"""Name of the quantity."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An outcome, its source and offset, and when it reached the log (milliseconds)."""

    outcome: Outcome
    source: str
    offset: int
    at: int


def counts(outcome: Outcome, control: float) -> bool:
    """Whether an outcome is one of the sample from which the loss is told."""
    if outcome.loss is None or outcome.assumed or outcome.revision > 0 or not outcome.probability:
        return False
    return outcome.probability <= control or _draw(outcome.prediction_id) < control / outcome.probability


def loss_sketch(judged: Judged, version: str | None, plan: WatchPlan) -> Sketch:
    """One outcome as a sketch; one that does not count tells only how far its source is."""
    outcome = judged.outcome
    votes: Votes = {}
    if outcome.version == version and counts(outcome, plan.control):
        one_row = np.reshape([1.0, outcome.loss or 0.0, 0.0], (3, 1, 1))
        votes = {outcome.predicted_at // plan.tick_ms: packed([outcome.entity], [ERROR], one_row)}
    return Sketch(
        source=judged.source,
        first_offset=judged.offset,
        last_offset=judged.offset,
        max_event_time=0 if outcome.revision > 0 else outcome.predicted_at,
        tick_ms=plan.tick_ms,
        votes=votes,
    )


def _draw(prediction_id: str) -> float:
    """A number in [0, 1) that nothing else is drawn from."""
    digest = hashlib.blake2b(f"watch of losses {prediction_id}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / (1 << 53)
