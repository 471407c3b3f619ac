"""The gates `data.classes` and `data.shares`: which classes there are to learn from, and to judge by."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import polars as pl

from tidemill.spec.model import ContinualModel
from tidemill.training.data_verdict import passed, refused, warned
from tidemill.training.verdict import GateVerdict

__all__ = ["MIN_CLASS_ROWS", "classes", "shares"]

MIN_CLASS_ROWS = 5
"""A class with fewer training rows is not learnt."""
_MOVED = 0.1
"""Least difference of a class's share that is told."""
_MOVED_SPREADS = 0.5
"""Least difference of a number's mean that is told, in its standard deviations."""
_RISK = 0.001
"""Probability of telling of any difference where there is none."""


def classes(rows: pl.DataFrame, truth: pl.Series, resource: ContinualModel) -> GateVerdict:
    """Judge whether each class of the resource is there to be learnt; not applicable to numbers."""
    if resource.spec.prediction.type == "regression":
        return GateVerdict(gate="data.classes", passed=None, reason="not applicable: a number is predicted")
    expected: Sequence[str] = resource.spec.prediction.classes
    if not any(field.type == "class" for field in resource.spec.labels.fields):
        expected = (expected[0], "found")
    is_fresh = rows["part"] == "fresh"
    train, fresh = (_counts(truth.filter(mask)) for mask in (~is_fresh, is_fresh))
    figures = {name: train.get(name, 0) for name in expected}
    rare = [f"{name} ({train.get(name, 0)})" for name in expected if train.get(name, 0) < MIN_CLASS_ROWS]
    if rare:
        reason = f"fewer than {MIN_CLASS_ROWS} training rows of class {', '.join(rare)}"
        return refused("classes", [reason, "label some, or take it out of prediction.classes"], **figures)
    unseen = [name for name in expected if name not in fresh]
    if unseen and fresh:
        return warned("classes", [f"no fresh row is of class {', '.join(unseen)}: gates say nothing of it"], **figures)
    return passed("classes", ", ".join(f"{name} {count:,}" for name, count in figures.items()), **figures)


def shares(rows: pl.DataFrame, truth: pl.Series) -> GateVerdict:
    """Tell where the fresh rows' labels are others than those of the new rows that are trained on; never a refusal.

    That the world has moved is why runs are started. Replayed rows are left out: they are drawn to be others.
    """
    new, fresh = (truth.filter(rows["part"] == part).drop_nulls() for part in ("new", "fresh"))
    if new.is_empty() or fresh.is_empty():
        return GateVerdict(gate="data.shares", passed=None, reason="not applicable: no new rows, or no fresh ones")
    moved = _moved_number(new, fresh) if truth.dtype.is_numeric() else _moved_classes(new, fresh)
    if moved:
        return warned("shares", [*moved, "what is trained on is not what the version will be judged by"])
    return passed("shares", f"the labels of {len(fresh):,} fresh rows are like those of {len(new):,} new ones")


def _moved_classes(new: pl.Series, fresh: pl.Series) -> list[str]:
    """By the test of two proportions, Bonferroni over the classes."""
    before, after = _counts(new), _counts(fresh)
    names = sorted(before.keys() | after.keys())
    limit = NormalDist().inv_cdf(1 - _RISK / 2 / len(names))
    moved = []
    for name in names:
        was, now = before.get(name, 0) / len(new), after.get(name, 0) / len(fresh)
        both = (before.get(name, 0) + after.get(name, 0)) / (len(new) + len(fresh))
        spread = math.sqrt(both * (1 - both) * (1 / len(new) + 1 / len(fresh)))
        if abs(now - was) >= max(_MOVED, limit * spread):
            moved.append(f"{name} is {was:.0%} of the new rows and {now:.0%} of the fresh ones")
    return moved


def _moved_number(new: pl.Series, fresh: pl.Series) -> list[str]:
    """By the test of two means."""
    (was, spread), (now, other) = ((_figure(one.mean()), _figure(one.std())) for one in (new, fresh))
    limit = NormalDist().inv_cdf(1 - _RISK / 2) * math.sqrt(spread**2 / len(new) + other**2 / len(fresh))
    if abs(now - was) < max(_MOVED_SPREADS * spread, limit) or now == was:
        return []
    return [f"the label's mean is {was:.4g} of the new rows and {now:.4g} of the fresh ones"]


def _counts(names: pl.Series) -> dict[str, int]:
    return dict(names.drop_nulls().value_counts().iter_rows())


def _figure(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
