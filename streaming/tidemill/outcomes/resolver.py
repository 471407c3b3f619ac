"""Which prediction a label is about: a join of two logs on the event, in whichever order its sides arrive.

Each side is kept in the index first and then looks for the other, so that whichever comes second finds the
first. After a crash both may find each other again: a pair that is written twice is one label to the join, which
knows it by its id.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from tidemill.events.records import Label
from tidemill.labels.parse import KnownLabel, event_key
from tidemill.outcomes.join import Indexed
from tidemill.outcomes.log import Addressed
from tidemill.outcomes.state import OutcomeState

__all__ = ["Resolved", "resolve_labels", "resolve_predictions"]

T = TypeVar("T")


class Resolved(NamedTuple):
    """Labels whose predictions are known; of each label by event its number, and which predictions those are."""

    found: list[Addressed]
    by_event: list[tuple[int, list[str]]]


def resolve_predictions(state: OutcomeState, predictions: Iterable[Indexed]) -> list[Addressed]:
    """Index predictions; the labels of their events that waited for them."""
    taken: list[Indexed] = []
    waited = state.index(_kept(predictions, taken))
    return [
        Addressed(label.resolved(prediction.prediction_id), prediction.partition)
        for prediction, labels in zip(taken, waited, strict=True)
        for label in labels
    ]


def resolve_labels(state: OutcomeState, labels: Iterable[tuple[Label, KnownLabel]]) -> Resolved:
    """Labels for predictions that are known, in their order; the others wait in the index.

    A label that names its prediction needs no index: the join keeps it until that prediction comes.
    """
    taken: list[tuple[Label, KnownLabel]] = []
    of_events = (
        (event_key(said.entity, said.event_id), known)
        for said, known in _kept(labels, taken)
        if said.prediction_id is None and said.entity is not None and said.event_id is not None
    )
    found = iter(state.know(of_events))
    resolved: list[Addressed] = []
    by_event: list[tuple[int, list[str]]] = []
    for number, (said, known) in enumerate(taken):
        if said.prediction_id is not None:
            resolved.append(Addressed(known.resolved(said.prediction_id)))
            continue
        predictions = next(found)
        resolved += [Addressed(known.resolved(prediction), partition) for prediction, partition in predictions]
        by_event.append((number, [prediction for prediction, _ in predictions]))
    return Resolved(resolved, by_event)


def _kept(items: Iterable[T], into: list[T]) -> Iterator[T]:
    """The same items, each put into a list as it passes: they are made while the index works on those before."""
    for item in items:
        into.append(item)
        yield item
