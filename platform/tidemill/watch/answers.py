"""The whole reference of a version: of its inputs, of the candidate's answers, of labels, and of its loss at the gate.

Of answers and the loss the rows are the gate's fresh ones, which the candidate was not trained on; of labels all that
are not replayed. A group of `triggers.drift.slices` has a loss of its own where it has rows enough; the 16 groups with
the most rows are looked at. Outcomes carry the entity and no event fields, so that only the entity's groups can be
watched; of others a quantity says so (`tidemill slices` compares those).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec
import polars as pl

from tidemill.outcomes.sketches import Answers, label_answers, prediction_answers
from tidemill.spec.model import ContinualModel, DriftTrigger
from tidemill.watch.losses import ERROR
from tidemill.watch.measure import measure
from tidemill.watch.quantity import FeatureReference, State, Subject
from tidemill.watch.reference import Reference, build_reference
from tidemill.watch.votes import FeatureVotes, category_votes, votes_of

__all__ = ["MOST_GROUPS", "Rows", "reference_of"]

MOST_GROUPS = 16
"""Groups of one slice that are watched."""
_TICK = "#tick"


@dataclass(frozen=True)
class Rows:
    """What a reference is made of: frames with columns `entity`, `event_time` and these."""

    inputs: pl.DataFrame
    """The features."""
    answers: pl.DataFrame
    """`output` (the answer as JSON text) and `error` (its loss), on the gate's fresh rows."""
    labels: pl.DataFrame
    """`value` (the label's value as JSON text)."""


@dataclass(frozen=True)
class _Stream:
    """The quantities of one stream."""

    subject: Subject
    votes: Sequence[FeatureVotes]
    slices: Sequence[str | None]


def reference_of(rows: Rows, resource: ContinualModel, trigger: DriftTrigger) -> Reference:
    """The reference of all that `trigger.watch` names; together its quantities share the budget.

    Raises `InvalidInput` where a column is missing or of another type.
    """
    streams, told = [], list[FeatureReference]()
    tick_ms = round(trigger.every / timedelta(milliseconds=1))
    if "predictions" in trigger.watch:
        streams.append(_said(rows.answers, "predictions", prediction_answers(resource), tick_ms))
    if "labels" in trigger.watch:
        streams.append(_said(rows.labels, "labels", label_answers(resource), tick_ms))
    if "errors" in trigger.watch:
        told = _not_watched(resource, trigger)
        if resource.spec.labels.control > 0:
            streams.append(_losses(rows.answers, resource.spec.events.entity.name, trigger, tick_ms))
    inputs = (resource.watched_features, resource.watched_categories) if "inputs" in trigger.watch else ((), ())
    quantities = sum(map(len, inputs)) + sum(len(stream.votes) for stream in streams) + len(told)
    reference = build_reference(rows.inputs, inputs[0], trigger, categories=inputs[1], quantities=max(quantities, 1))
    features = [of for stream in streams for of in _measured(stream, trigger, quantities)]
    if 0 < resource.spec.labels.control < 1:
        features = [_assumed(of, resource.spec.labels.control) for of in features]
    return msgspec.structs.replace(reference, features=(*reference.features, *features, *told))


def _said(frame: pl.DataFrame, subject: Subject, answers: Answers, tick_ms: int) -> _Stream:
    """The features of answers or labels, those that no row has left out."""
    frame = frame.select("entity", "event_time", *answers.columns())
    there = [name for name in answers.paths if not frame[name].is_null().all()]
    categories = category_votes(frame, [name for name in answers.categories if name in there], tick_ms)
    # As in a sketch: of a number one row votes.
    tick = pl.col("event_time").dt.epoch("ms") // tick_ms
    first = frame.with_columns(tick.alias(_TICK)).unique([_TICK, "entity"], keep="first", maintain_order=True)
    votes = [*votes_of(first, [name for name in answers.numbers if name in there], tick_ms), *categories]
    return _Stream(subject, votes, [None] * len(votes))


def _losses(frame: pl.DataFrame, entity: str, trigger: DriftTrigger, tick_ms: int) -> _Stream:
    frames: dict[str | None, pl.DataFrame] = {None: frame}
    if entity in trigger.slices:
        groups = frame.group_by(pl.col("entity").cast(pl.String)).len("rows").sort("rows", "entity", descending=True)
        names = sorted(groups["entity"].head(MOST_GROUPS))
        frames |= {f"{entity}={name}": frame.filter(pl.col("entity").cast(pl.String) == name) for name in names}
    votes = [votes_of(of, [ERROR], tick_ms, kind="loss")[0] for of in frames.values()]
    return _Stream("errors", votes, list(frames))


def _measured(stream: _Stream, trigger: DriftTrigger, quantities: int) -> list[FeatureReference]:
    found = []
    for feature, part in zip(measure(stream.votes, trigger, quantities=quantities), stream.slices, strict=True):
        changed: Mapping[str, object] = {"subject": stream.subject, "slice": part}
        if stream.subject == "errors":  # what has no loss is no outcome that counts
            changed = {**changed, "missing": None} | ({"entities": {}} if part else {})
        found.append(msgspec.structs.replace(feature, **changed))
    small = [of for of in found if of.slice is not None and of.state != "ok"]
    return [*(of for of in found if of not in small), *_together(small)]


def _assumed(feature: FeatureReference, control: float) -> FeatureReference:
    """A loss that is promised under an assumption, and says so: a snapshot does not tell why a row was labelled."""
    if feature.subject != "errors" or feature.state != "ok" or feature.slice is not None:
        return feature
    reason = (
        f"labels.control is {control:g}: the promise holds only where the rows that were labelled before the promotion "
        "err like those that nobody labelled"
    )
    return msgspec.structs.replace(feature, reason=reason)


def _together(small: Sequence[FeatureReference]) -> list[FeatureReference]:
    """Groups that are not watched, as one quantity that says so: each would take its part of the budget."""
    if not small:
        return []
    first = small[0]
    name = (first.slice or "").partition("=")[0]
    groups = ", ".join((of.slice or "").partition("=")[2] for of in small)
    reason = f"groups {groups} are not watched apart; {first.slice}: {first.reason}"
    return [_blank(first.tolerance, first.state, reason, name)]


def _not_watched(resource: ContinualModel, trigger: DriftTrigger) -> list[FeatureReference]:
    """Of losses, what cannot be watched at all."""
    if resource.spec.labels.control == 0:
        reason = "cannot promise: labels.control is 0, so that no label is sure to come whatever the answer was"
        return [_blank(trigger.rise, "cannot-promise", reason)]
    others = [name for name in trigger.slices if name != resource.spec.events.entity.name]
    reason = "cannot promise: outcomes carry no event fields; `tidemill slices` compares these groups"
    return [_blank(trigger.rise, "cannot-promise", reason, name) for name in others]


def _blank(rise: float, state: State, reason: str, group: str | None = None) -> FeatureReference:
    return FeatureReference(
        name=ERROR, kind="loss", subject="errors", slice=group, state=state, reason=reason, tolerance=rise
    )
