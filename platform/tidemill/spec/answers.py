"""What comes out, and what turned out to be true: `spec.prediction` and `spec.labels`."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tidemill.spec.part import Identifier, Part, Share, TopicName, refuse_repeated
from tidemill.spec.quantities import Duration

__all__ = ["LabelField", "Labels", "Maturity", "Prediction", "Value"]


class Value(Part):
    """What wrong answers cost, in any one unit; a right one costs nothing."""

    missed: Annotated[float, Field(ge=0)]
    """The answer is `classes[0]`, nothing found, and something was there."""
    false_reject: Annotated[float, Field(ge=0)]
    """The answer is another class, and nothing was there."""
    confused: Annotated[float, Field(ge=0)] = 0.0
    """Something was there, and the answer is the wrong one of the other classes, or its box is elsewhere."""


class Prediction(Part):
    """What the model answers."""

    type: Literal["classification", "detection", "regression"]
    """`classification`: one class; `detection`: one class and the box of what was found; `regression`: one number."""
    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=1000, validate_default=False)] = ()
    """The classes one starts with; the first means that nothing was found. None for `regression`. With
    `triggers.newClass` a run may add others."""
    tolerance: Annotated[float, Field(gt=0)] | None = None
    """How far the number may be from the label's before the answer is wrong (`regression` only)."""
    value: Value | None = None
    """What wrong answers cost; with it, quality is also told as cost. Not for `regression`."""

    @model_validator(mode="after")
    def _classes_differ(self) -> "Prediction":
        refuse_repeated(self.classes, "class")
        return self

    @model_validator(mode="after")
    def _fits_its_type(self) -> "Prediction":
        if self.type == "regression":
            if self.tolerance is None:
                raise ValueError("regression needs a tolerance: how far an answer may be off before it is wrong")
            if self.classes or self.value is not None:
                raise ValueError("regression answers a number: it has neither classes nor the value of mixing them up")
        elif not self.classes:
            raise ValueError(f"{self.type} needs classes; the first means that nothing was found")
        elif self.tolerance is not None:
            raise ValueError(f"tolerance is for regression, not {self.type}")
        return self


class LabelField(Part):
    """One field of a label's value."""

    name: Identifier
    """Name of the field."""
    type: Literal["class", "bool", "float", "int", "string", "box"]
    """`class`: one of `prediction.classes`; `box`: [x0, y0, x1, y1] in pixels, or null."""


class Maturity(Part):
    """When a prediction may be judged."""

    after: Duration = timedelta(minutes=30)
    """Earliest age of a prediction in reports, training, gates and verdicts."""
    horizon: Duration = timedelta(days=14)
    """Age at which a missing label is final, until one comes after all: that is a correction."""
    absent: Literal["unknown", "negative"] = "unknown"
    """What a label missing at the horizon says: nothing, or that the answer is known to be `prediction.classes[0]`
    (false, for a field of type bool): for systems that report what was found and nothing else."""

    @model_validator(mode="after")
    def _in_order(self) -> "Maturity":
        if self.horizon < self.after:
            raise ValueError("horizon must not be shorter than after")
        return self

    @property
    def kept(self) -> timedelta:
        """How long what labels are joined with is kept: a day longer than they count, for a worker that was stopped."""
        return self.horizon + timedelta(days=1)


class Labels(Part):
    """What turned out to be true."""

    topic: TopicName | None = None
    """Kafka topic; default `<namespace>.<name>.labels`."""
    fields: Annotated[tuple[LabelField, ...], Field(min_length=1, max_length=100)]
    """The fields of a label's value."""
    maturity: Maturity = Maturity()
    """When a prediction may be judged."""
    control: Share = 0.0
    """Share of predictions sure to be labelled whatever the answer or version; 1.0: all are."""
    conflict: Literal["last", "priority", "majority", "unanimous"] = "last"
    """Which of several labels counts. `last`: the one that arrived last. `priority`: that of the labeller who stands
    first in `priority`. `majority`: what most labellers say, each by their last word; among equals the last.
    `unanimous`: what all say, else none."""
    priority: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    """Labellers, the most trusted first; those who are not named come after them, the last word first
    (`conflict: priority` only)."""
    min_agreement: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Least agreement between labellers (Krippendorff's alpha) at which their labels are trusted."""

    @model_validator(mode="after")
    def _names_differ(self) -> "Labels":
        refuse_repeated([field.name for field in self.fields], "field")
        return self

    @model_validator(mode="after")
    def _priority_fits(self) -> "Labels":
        if (self.conflict == "priority") != bool(self.priority):
            raise ValueError("labels.priority names labellers for conflict: priority, which needs it")
        refuse_repeated(self.priority, "labeller")
        return self
