"""The reference: what was usual when a version was made, and how well drift from it can be found.

It is part of the version's artifact (`reference.json`). It holds no rows: of each feature the shares that are bet on
(`tidemill.watch.quantity`), and the figures that the promise rests on (`tidemill.watch.measure`).
"""

from collections.abc import Sequence
from datetime import timedelta

import msgspec
import polars as pl

from tidemill.core.errors import Corrupt
from tidemill.spec.model import DriftTrigger
from tidemill.watch.measure import budget_period_ms, measure, replayed
from tidemill.watch.quantity import ENTITIES, FeatureReference, MissingReference, fits, watched
from tidemill.watch.votes import category_votes, votes_of

__all__ = [
    "ENTITIES",
    "FILE",
    "FeatureReference",
    "MissingReference",
    "Reference",
    "budget_period_ms",
    "build_reference",
    "decode_reference",
    "encode_reference",
    "replayed",
    "watched",
]

FILE = "reference.json"
"""Its name in an artifact."""

FORMAT = 2
READABLE = {1, FORMAT}
"""Format 1 knew numbers alone, without their missing rates: these are not watched until the next version."""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What inputs are compared with, and answers, labels and the loss of the version."""

    format: int = FORMAT
    tick_ms: int
    """Length of a window tick; votes of another length are not comparable."""
    tolerance: float
    """The declared tolerance."""
    features: tuple[FeatureReference, ...]
    first_event: int | None = None
    """Event time of its oldest row."""
    last_event: int | None = None
    """Event time of its newest row."""
    rows: int = 0
    rows_per_vote: float = 0.0
    """Mean number of rows behind a vote; live votes of far fewer or more rows spread differently."""

    def feature(self, name: str) -> FeatureReference | None:
        """One feature by name."""
        return next((feature for feature in self.features if feature.name == name), None)


def encode_reference(reference: Reference) -> bytes:
    """The file's content: JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(reference), indent=1)


def decode_reference(data: bytes, origin: str) -> Reference:
    """The reference in `data`; raises `Corrupt` naming `origin`."""
    try:
        reference = msgspec.json.decode(data, type=Reference)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"{origin} is no reference: {error}", hint="retrain, or restore the artifact") from error
    if reference.format not in READABLE:
        raise Corrupt(f"{origin} has format {reference.format}; this version of Tidemill reads {FORMAT}")
    for feature in reference.features:
        if not fits(feature):
            raise Corrupt(f"{origin}: edges and shares of {feature.name} do not fit")
    return reference


def build_reference(
    frame: pl.DataFrame,
    features: Sequence[str],
    trigger: DriftTrigger,
    *,
    categories: Sequence[str] = (),
    quantities: int | None = None,
) -> Reference:
    """The reference that rows make.

    Args:
        frame: rows with columns `entity`, `event_time` (a Datetime) and each of the features; nulls, and of numbers
            what is not finite, are missing. They should be all rows of their time: a sample has fewer rows a vote than
            live.
        features: the numbers that are watched.
        trigger: tolerance, budget of false alarms, length of a window tick.
        categories: the categories that are watched.
        quantities: how many quantities share the budget, these and others; these alone by default.

    Raises:
        InvalidInput: a column is missing or of another type.
    """
    tick_ms = round(trigger.every / timedelta(milliseconds=1))
    votes = [*votes_of(frame, features, tick_ms), *category_votes(frame, categories, tick_ms)]
    first, last = _span(frame)
    return Reference(
        tick_ms=tick_ms,
        tolerance=trigger.tolerance,
        features=measure(votes, trigger, quantities=quantities or len(votes)),
        first_event=first,
        last_event=last,
        rows=frame.height,
        rows_per_vote=sum(feature.rows for feature in votes) / max(sum(map(len, votes)), 1),
    )


def _span(frame: pl.DataFrame) -> tuple[int | None, int | None]:
    times = frame["event_time"].dt.epoch("ms")
    first, last = times.min(), times.max()
    return (first, last) if isinstance(first, int) and isinstance(last, int) else (None, None)
