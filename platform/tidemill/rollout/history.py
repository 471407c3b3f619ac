"""What the champion's own outcomes say before a rollout: how late labels come, and how fast outcomes do."""

from collections import deque
from typing import TypeVar

import msgspec

from tidemill.events.records import Outcome
from tidemill.rollout.plan import REQUEST
from tidemill.spec.model import ContinualModel

T = TypeVar("T")

__all__ = ["ChampionHistory", "HistorySeen", "label_class"]

_ENOUGH = 30
"""Labels below which a class's share is not estimated: one late label of 30 is 3 %, well inside the 10 % allowed."""

_REMEMBERED = 100_000
"""Predictions kept to know repeats, and those that wait for a label: a champion may serve for a year."""


class HistorySeen(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan takes from the history.

    `visible`: by class, the share of labels that were there when the outcome was first emitted; only classes
    with at least 30 labels. `per_second`: requests answered per second, None with fewer than two. `error`: the mean
    loss of the labelled ones, None with fewer than 30.
    """

    visible: dict[str, float] = {}
    per_second: float | None = None
    outcomes: int = 0
    error: float | None = None
    keys: int | None = None
    """Different keys that requests carried (`rollout.cohorts`), up to 100,000; None where requests are assigned."""


class ChampionHistory:
    """Folds the `.outcomes` of one version, from wherever the reader starts; repeats change nothing."""

    def __init__(self, resource: ContinualModel, version: str) -> None:
        self.version = version
        self._field = next((field.name for field in resource.spec.labels.fields if field.type == "class"), None)
        self._horizon_ms = round(resource.spec.labels.maturity.horizon.total_seconds() * 1000)
        self._keys: set[str] | None = None if resource.spec.rollout.cohorts.key == REQUEST else set()
        self._known: dict[str, None] = {}
        self._outcomes = 0
        self._judged = 0
        self._loss = 0.0
        self._early: dict[str, int] = {}
        self._late: dict[str, int] = {}
        self._waiting: dict[str, int] = {}
        self._newest = 0
        self._recent: deque[tuple[int, str]] = deque(maxlen=2000)

    def add(self, outcome: Outcome) -> None:
        """Take one outcome, any revision; those of other versions are ignored."""
        if outcome.version != self.version:
            return
        self._newest = max(self._newest, outcome.predicted_at)
        if outcome.revision == 0:
            self._first(outcome)
        elif outcome.label is not None and self._waiting.pop(outcome.prediction_id, None) is not None:
            self._count(self._late, outcome)

    def seen(self) -> HistorySeen:
        """The summary so far.

        A prediction that is still unlabelled may yet turn out to be of any class, and counts as late for each
        until it is as old as `labels.maturity.horizon`: absence is decided then.
        """
        waiting = sum(1 for made in self._waiting.values() if self._newest - made < self._horizon_ms)
        visible = {}
        for name in sorted(self._early.keys() | self._late.keys()):
            early, late = self._early.get(name, 0), self._late.get(name, 0)
            if early + late >= _ENOUGH:
                visible[name] = early / (early + late + waiting)
        error = self._loss / self._judged if self._judged >= _ENOUGH else None
        keys = None if self._keys is None else len(self._keys)
        return HistorySeen(visible=visible, per_second=self._rate(), outcomes=self._outcomes, error=error, keys=keys)

    def _first(self, outcome: Outcome) -> None:
        if outcome.prediction_id in self._known:
            return
        self._outcomes += 1
        if self._keys is not None and outcome.cohort and len(self._keys) < _REMEMBERED:
            self._keys.add(outcome.cohort)
        if outcome.loss is not None:
            self._judged += 1
            self._loss += outcome.loss
        _remember(self._known, outcome.prediction_id, None)
        self._recent.append((outcome.predicted_at, outcome.request_id or outcome.prediction_id))
        if outcome.label is None:
            _remember(self._waiting, outcome.prediction_id, outcome.predicted_at)
        else:
            self._count(self._early, outcome)

    def _count(self, counts: dict[str, int], outcome: Outcome) -> None:
        name = label_class(outcome, self._field)
        counts[name] = counts.get(name, 0) + 1

    def _rate(self) -> float | None:
        times = [moment for moment, _ in self._recent]
        requests = len({request for _, request in self._recent})
        if requests < 2 or max(times) == min(times):
            return None
        return (requests - 1) * 1000 / (max(times) - min(times))


def _remember(known: dict[str, T], name: str, value: T) -> None:
    known[name] = value
    if len(known) > _REMEMBERED:
        del known[next(iter(known))]


def label_class(outcome: Outcome, field: str | None) -> str:
    """The class that the label states: its field of type `class`, else all labels are one class."""
    if field is None or outcome.label is None:
        return "labelled"
    return str(outcome.label.get(field))
