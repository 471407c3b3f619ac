"""Fairness of a version's classes between the groups of its resource, from the lake's outcomes."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.core.errors import InvalidInput
from tidemill.metrics.classification import NO_CLASS, Classes
from tidemill.metrics.fairness import Answers, Fairness, fairness
from tidemill.outcomes.known import Cut, Kind
from tidemill.outcomes.matured import Matured, matured
from tidemill.outcomes.slices import MOST_GROUPS, NO_GROUP, Units, clusters_of
from tidemill.spec.model import ContinualModel

__all__ = ["FairnessReport", "fairness_of"]

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class FairnessReport(msgspec.Struct, frozen=True, kw_only=True):
    """The rates by the groups of one name."""

    version: str
    by: str
    positive: str
    """The class that the rates are of; `not <class>` for all but the first."""
    kind: Kind
    units: Units
    """What the clusters are."""
    outcomes: int
    waiting: int
    """Labels that are still to come: the intervals reach as far as they can move them."""
    rates: Fairness


def fairness_of(
    lake: str,
    resource: ContinualModel,
    cut: Cut,
    *,
    positive: str | None = None,
    units: Units | None = None,
    risk: float = 0.05,
) -> list[FairnessReport]:
    """The fairness of `cut.version`, or of the version that answered last, by each name of `triggers.drift.slices`.

    Args:
        lake: where the tables are.
        resource: the model.
        cut: `version`, `since` and `until` are looked at.
        positive: the class whose answers are compared; None: any but the first, something found.
        units: what the clusters are; None: entities, where there are many.
        risk: of each gap's interval.

    Raises `InvalidInput` where there are no classes, no groups, or no such class; `NotFound` before there are outcomes;
    `Unavailable`.
    """
    names = resource.spec.triggers.drift.slices if resource.spec.triggers.drift else ()
    if resource.spec.prediction.type == "regression":
        raise InvalidInput("fairness compares classes, and this model answers numbers")
    if not names:
        raise InvalidInput("no groups are declared", hint="name them in triggers.drift.slices")
    classes = Classes(resource.spec.prediction, resource.spec.labels.fields)
    if positive is not None and positive not in classes.names:
        raise InvalidInput(f"{positive} is no class", hint=f"there are {', '.join(classes.names)}")
    found = matured(lake, resource, cut, values="groups")
    return [] if found is None else [_report(found, resource, classes, name, positive, units, risk) for name in names]


def _report(
    found: Matured,
    resource: ContinualModel,
    classes: Classes,
    name: str,
    positive: str | None,
    units: Units | None,
    risk: float,
) -> FairnessReport:
    # An entity is one cluster: of itself it can only be told over time.
    losses, of = clusters_of(found, "time" if name == resource.spec.events.entity.name else units)
    answer, truth, is_judged = _said(found, classes, positive)
    groups, told = _groups(found, name)
    known = losses.known & is_judged
    weights = np.where(losses.known & ~is_judged, 0.0, losses.weights)
    answers = Answers(answer, truth, known, weights, groups, told, losses.clusters, losses.count)
    return FairnessReport(
        version=found.version,
        by=name,
        positive=positive or f"not {classes.nothing}",
        kind=found.kind,
        units=of,
        outcomes=found.rows.height,
        waiting=int(((weights > 0) & ~known).sum()),
        rates=fairness(answers, risk=risk),
    )


def _groups(found: Matured, name: str) -> tuple[npt.NDArray[np.int64], list[str]]:
    """The group of each outcome, and the names: of many the largest."""
    if name not in found.values.columns:
        return np.full(found.rows.height, -1), []
    values = found.values[name].cast(pl.String).fill_null(NO_GROUP).alias("group")
    told = values.value_counts(sort=True)["group"].head(MOST_GROUPS).sort()
    places = values.replace_strict(told, pl.Series(np.arange(len(told))), default=-1, return_dtype=pl.Int64)
    return places.to_numpy(), told.to_list()


def _said(
    found: Matured, classes: Classes, positive: str | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Whether the class is what was answered, what was true, and whether the label says that."""

    def is_positive(said: str) -> bool:
        return said == positive if positive else said not in {classes.nothing, NO_CLASS}

    outputs = _parsed(found.rows["output"])
    labels: Sequence[Mapping[str, Any] | None] = _parsed(found.rows["label"])
    answer = np.array([is_positive(classes.answer(one or {})) for one in outputs], dtype=bool)
    truth, is_judged = np.zeros(len(labels), dtype=bool), np.zeros(len(labels), dtype=bool)
    for place, label in enumerate(labels):
        if label is not None:
            try:
                truth[place], is_judged[place] = is_positive(classes.truth(label)), True
            except InvalidInput:  # of an older form of the resource
                continue
    return answer, truth, is_judged


def _parsed(texts: pl.Series) -> list[dict[str, Any] | None]:
    return [None if text is None else _decode(text) for text in texts]
