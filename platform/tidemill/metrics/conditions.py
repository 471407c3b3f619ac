"""What slices are made of: conditions on one feature each, such as `brightness < 0.41` or `station = B`.

A number is cut at the octiles of the outcomes that are searched, and its conditions are "below" and "from" each of
these; a category has one for each of its commonest values. A value that is missing is a condition of its own. So each
outcome has one small code per feature, and a condition is a set of codes: a million outcomes of 20 features are 20 MB,
and everything that is asked of them later is asked of tables of codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["BINS", "MOST_VALUES", "Coded", "Codes", "Condition", "Feature", "coded"]

BINS = 8
"""Bins of a number, with equally many outcomes each."""
MOST_VALUES = 15
"""Values of a category that are conditions, the commonest; the others together are none."""
_FEW = 12
"""A number with at most so many values is a category."""

Codes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


class Condition(msgspec.Struct, frozen=True):
    """One condition on one feature; `op` "missing" has no value."""

    feature: str
    op: Literal["<", ">=", "=", "missing"]
    value: float | str | None = None

    def __str__(self) -> str:
        """As people read it."""
        if self.op == "missing":
            return f"{self.feature} is missing"
        value = self.value if isinstance(self.value, str) else f"{self.value:.4g}"
        return (
            f"{self.feature} {'≥' if self.op == '>=' else self.op} {value}"
            if self.op != "="
            else f"{self.feature}={value}"
        )


@dataclass(frozen=True)
class Feature:
    """A feature of N outcomes: numbers, NaN where there is none; or places in `words`, -1 where there is none."""

    name: str
    values: npt.NDArray[np.float64] | npt.NDArray[np.int64]
    words: Sequence[str] | None = None


@dataclass(frozen=True)
class Coded:
    """A feature as codes, and its conditions as sets of codes."""

    codes: Codes
    """(N,), each below `size`."""
    conditions: tuple[Condition, ...]
    members: npt.NDArray[np.float64]
    """1 where a condition has a code, else 0 (conditions, size)."""

    @property
    def size(self) -> int:
        """How many codes there are."""
        return int(self.members.shape[1])

    def holds(self, condition: int) -> Mask:
        """Which outcomes have one of the conditions (N,)."""
        has: Mask = (self.members[condition] > 0)[self.codes]
        return has


def coded(feature: Feature, reference: Mask) -> Coded | None:
    """The feature as codes; None where it has no condition that tells outcomes apart.

    Args:
        feature: its values.
        reference: the outcomes by which numbers are cut and values counted: those that are searched (N,).
    """
    if feature.words is not None:
        return _category(feature.name, np.asarray(feature.values, np.int64), feature.words, reference)
    values = np.asarray(feature.values, np.float64)
    known = values[reference & np.isfinite(values)]
    distinct = np.unique(known)
    if len(distinct) <= _FEW:
        places = np.where(np.isin(values, distinct), np.searchsorted(distinct, values), -1)
        return _category(
            feature.name, places, [repr(float(value) + 0.0).removesuffix(".0") for value in distinct], reference
        )
    edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS))
    edges = edges[edges > distinct[0]]
    bins = len(edges) + 1
    # NaN and infinities stand last: they are no place on the axis.
    codes = np.where(np.isfinite(values), np.searchsorted(edges, values, side="right"), bins).astype(np.uint8)
    below = [Condition(feature.name, "<", float(edge)) for edge in edges]
    above = [Condition(feature.name, ">=", float(edge)) for edge in edges]
    places = np.arange(bins + 1)
    is_below = [places <= place for place in range(len(edges))]
    is_above = [(places > place) & (places < bins) for place in range(len(edges))]
    conditions, members = [*below, *above], [*is_below, *is_above]
    return _made(codes, [*conditions, Condition(feature.name, "missing")], [*members, places == bins], reference)


def _category(name: str, values: npt.NDArray[np.int64], words: Sequence[str], reference: Mask) -> Coded | None:
    counts = np.bincount(values[reference & (values >= 0)], minlength=len(words))
    common = [int(place) for place in np.argsort(-counts, kind="stable")[:MOST_VALUES] if counts[place]]
    other, missing = len(common), len(common) + 1
    code_of = np.full(len(words) + 1, other, dtype=np.uint8)
    code_of[common] = np.arange(len(common))
    code_of[-1] = missing
    conditions = [Condition(name, "=", words[place]) for place in common] + [Condition(name, "missing")]
    places = np.arange(missing + 1)
    return _made(
        code_of[values], conditions, [*(places == place for place in range(len(common))), places == missing], reference
    )


def _made(codes: Codes, conditions: list[Condition], members: list[Mask], reference: Mask) -> Coded | None:
    """Without conditions that hold of all that is searched, or of none of it."""
    counts = np.bincount(codes[reference], minlength=len(members[0]))
    total = counts.sum()
    kept = [place for place, has in enumerate(members) if 0 < counts[has].sum() < total]
    if not kept:
        return None
    return Coded(
        codes, tuple(conditions[place] for place in kept), np.array([members[place] for place in kept], np.float64)
    )
