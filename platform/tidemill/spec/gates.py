"""What a candidate must pass before any traffic: `spec.gates`."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from tidemill.spec.part import Identifier, Name, Part, Share
from tidemill.spec.quantities import Duration

__all__ = [
    "CalibrationGate",
    "FreshGate",
    "FrozenGate",
    "GateMetric",
    "Gates",
    "LatencyGate",
    "RobustnessGate",
    "SizeGate",
    "SliceGate",
]

GateMetric = Literal["error", "f1", "recall", "precision"]
"""`error`: the bounded loss, lower is better. The others: the class-averaged (macro) figure, higher is better."""


class FreshGate(Part):
    """Compare candidate and champion on the newest matured rows, which neither was trained on."""

    metric: GateMetric = "error"
    """What to compare."""
    not_worse_than: Literal["champion"] = "champion"
    """Whom the candidate is compared with; not applicable while there is none."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """The lower 95 % paired-bootstrap bound of how much better the candidate is must be at least -margin."""
    rows: Annotated[int, Field(ge=30)] = 500
    """Newest matured rows held out from training."""
    at_most: Share | None = None
    """Absolute gate: the upper 95 % bootstrap bound of the candidate's error must not exceed this."""


class FrozenGate(Part):
    """Compare candidate and champion on a dataset that was frozen once, and hold the candidate to a level."""

    dataset: Name
    """Its name, as given to `tidemill dataset freeze`. Without the dataset the gate refuses."""
    metric: GateMetric = "error"
    """What to compare."""
    at_least: Share | None = None
    """The lower 95 % bootstrap bound of the candidate's figure must reach this (f1, recall, precision)."""
    at_most: Share | None = None
    """The upper 95 % bootstrap bound of the candidate's error must not exceed this (error)."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """As for the fresh rows, against the champion on the frozen ones: nothing learnt may be forgotten."""


class SliceGate(Part):
    """Hold the candidate's groups together, and none of them worse than under the champion."""

    by: Identifier
    """The entity's name, or an event field of type string, int or bool: one group for each of its values."""
    metric: GateMetric = "error"
    """What to compare."""
    max_gap: Share | None = None
    """Largest gap between the best and the worst group: refused where it is larger with 95 % confidence."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """How much worse than the champion any group may become: refused where one is with 95 % confidence over all."""


class CalibrationGate(Part):
    """A confidence of 0.8 must be right in 80 % of cases."""

    max_error: Share = 0.1
    """Largest expected calibration error of the candidate on the fresh rows, beyond what chance explains."""


class LatencyGate(Part):
    """The candidate answers fast enough, in the server that it will serve in."""

    p99: Annotated[Duration, Field(gt=timedelta(0))]
    """Largest 99th percentile of one request of one row, measured one after the other."""


class SizeGate(Part):
    """The candidate is small enough."""

    at_most_mib: Annotated[float, Field(gt=0)]
    """Largest size of its ONNX model in MiB."""


class RobustnessGate(Part):
    """The candidate bears what may be missing: each optional field, the features of the store; and earlier drifts."""

    margin: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """How much more than the champion's its error may rise under each of them, and be after each drift."""
    drifts: Annotated[int, Field(ge=0, le=20)] = 3
    """So many earlier drifts, the newest, are played again: the rows that judged the versions which answered them."""


class Gates(Part):
    """What a candidate must pass before any traffic. That it answers at all, and with numbers, is no choice."""

    fresh: FreshGate = FreshGate()
    """On the newest matured rows."""
    frozen: FrozenGate | None = None
    """On a frozen dataset."""
    slices: Annotated[tuple[SliceGate, ...], Field(max_length=8)] = ()
    """By group, on the fresh rows."""
    calibration: CalibrationGate | None = None
    """Of the confidences."""
    latency: LatencyGate | None = None
    """Of the candidate in the real server."""
    size: SizeGate | None = None
    """Of the model's file."""
    robustness: RobustnessGate | None = None
    """Under missing values, and after drifts of before."""
