"""What the outcomes of predictions and labels should be, computed from both as if they were tables.

It shares no code with the join that it is compared with, and knows no logs, marks or crashes: labels in order of
arrival, and what each of them changes.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tidemill.core.clock import to_ms
from tidemill.core.errors import InvalidInput
from tidemill.events.records import Label, Outcome, Prediction
from tidemill.metrics.losses import error
from tidemill.spec.model import ContinualModel

__all__ = ["Arrived", "Known", "expected_outcomes", "known_of"]


class Arrived(NamedTuple):
    """A label, or a pick for labelling, and when it arrived; those of one millisecond stand in order of the log."""

    label: Label
    at: int


class Known(NamedTuple):
    """What one outcome says."""

    revision: int
    label: dict[str, Any] | None
    disputed: bool
    assumed: bool
    probability: float | None
    loss: float | None


def known_of(outcome: Outcome) -> Known:
    """What an outcome says."""
    return Known(outcome.revision, outcome.label, outcome.disputed, outcome.assumed, outcome.probability, outcome.loss)


def expected_outcomes(
    resource: ContinualModel, predictions: Iterable[tuple[Prediction, int]], labels: Iterable[Arrived]
) -> dict[str, list[Known]]:
    """The outcomes of each prediction, of which the record that arrived first counts.

    Args:
        resource: for maturity, conflicts and losses.
        predictions: each with its arrival in milliseconds, in order of the log.
        labels: in order of arrival.
    """
    of_id: dict[str, list[tuple[int, Arrived]]] = defaultdict(list)
    of_event: dict[tuple[str | None, str | None], list[tuple[int, Arrived]]] = defaultdict(list)
    for number, arrived in enumerate(labels):
        label = arrived.label
        if label.prediction_id is not None:
            of_id[label.prediction_id].append((number, arrived))
        else:
            of_event[label.entity, label.event_id].append((number, arrived))
    found: dict[str, list[Known]] = {}
    for prediction, appended_at in predictions:
        if prediction.prediction_id not in found:
            about = of_id.get(prediction.prediction_id, [])
            if prediction.event_id is not None:
                about = sorted(about + of_event.get((prediction.entity, prediction.event_id), []))
            said = [arrived for _, arrived in about]
            found[prediction.prediction_id] = _outcomes(resource, prediction, min(prediction.time, appended_at), said)
    return found


def _outcomes(resource: ContinualModel, prediction: Prediction, at: int, said: Sequence[Arrived]) -> list[Known]:
    maturity = resource.spec.labels.maturity
    eligible = at + to_ms(maturity.after)
    final = at + to_ms(maturity.horizon)
    moments = sorted({arrived.at for arrived in said if arrived.at > eligible})
    steps = [sum(arrived.at <= eligible for arrived in said)]
    steps += [number + 1 for number, arrived in enumerate(said) if arrived.at in moments]
    results: list[Known] = []
    passed = maturity.absent != "negative"  # then nothing happens at the horizon
    for step in steps:
        arrived = said[:step]
        if not passed and step > steps[0] and arrived[-1].at > final:
            passed = True
            _add(results, _known(resource, prediction, said[: step - 1], final=True))
        # Whether the horizon has passed matters where nobody said anything.
        _add(results, _known(resource, prediction, arrived, final=passed and maturity.absent == "negative"))
    if not passed:
        _add(results, _known(resource, prediction, said, final=True))
    return results


def _add(results: list[Known], now: Known) -> None:
    if not results or results[-1][1:4] != now[1:4]:
        results.append(now._replace(revision=len(results)))


def _known(resource: ContinualModel, prediction: Prediction, said: Sequence[Arrived], *, final: bool) -> Known:
    spec = resource.spec
    words = [(number, one.label) for number, one in enumerate(said) if one.label.value is not None]
    label: dict[str, Any] | None
    if not words:
        kinds = {"class": next(iter(spec.prediction.classes), None), "bool": False}
        label = {field.name: kinds.get(field.type) for field in spec.labels.fields} if final else None
        chance = 1.0 if final and spec.labels.control == 1.0 else None
        return Known(0, label, False, final, chance, _loss(resource, prediction, label))
    place, disputed = _decided(resource, words)
    if place is None:
        return Known(0, None, disputed, False, None, None)
    label = said[place].label.value
    picks: dict[str, float] = {}
    for one in said[:place]:
        picks |= one.label.reasons
    chance = 1.0 - math.prod(1.0 - picks[name] for name in sorted(picks)) if picks else None
    chance = 1.0 if spec.labels.control == 1.0 else chance
    return Known(0, label, disputed, False, chance, _loss(resource, prediction, label))


def _decided(resource: ContinualModel, words: Sequence[tuple[int, Label]]) -> tuple[int | None, bool]:
    """The number of the label that counts; and whether there is none because labellers differ."""
    labels = resource.spec.labels
    last = {label.labeller: (number, label.value or {}) for number, label in words}
    if labels.conflict == "last":
        return words[-1][0], False
    if labels.conflict == "priority":
        named = [last[name][0] for name in labels.priority if name in last]
        return (named[0] if named else max(number for number, _ in last.values())), False
    names = [field.name for field in labels.fields if field.type in {"class", "bool", "int", "float"}]
    said: Callable[[Mapping[str, Any]], str] = lambda value: repr([value.get(name) for name in names])  # noqa: E731
    groups: dict[str, list[int]] = defaultdict(list)
    for number, value in last.values():
        groups[said(value)].append(number)
    if labels.conflict == "unanimous" and len(groups) > 1:
        return None, True
    return max(max(numbers) for numbers in groups.values() if len(numbers) == max(map(len, groups.values()))), False


def _loss(resource: ContinualModel, prediction: Prediction, label: Mapping[str, Any] | None) -> float | None:
    try:
        return (
            None
            if label is None
            else error(resource.spec.prediction, resource.spec.labels.fields, prediction.output, label)
        )
    except InvalidInput:
        return None
