"""The worst few slices: searched in one half of the outcomes, tested in the other.

Slices are a condition or two (`tidemill.metrics.conditions`), as in Chung et al. 2019, "Slice Finder: automated data
slicing for model validation", and all of them are looked at, as in Sagadeeva & Boehm 2021, "SliceLine: fast,
linear-algebra-based slice finding for ML model debugging". What differs is what is promised of those that are shown.

*Search.* For each pair of features one table of codes has the outcomes and their losses; sums over it give each of the
pair's slices. A slice is ranked by how much worse it surely is than the rest, d − z s, for its difference d, its
standard error s and z = √(2 ln M): among M slices that are no worse than the rest the largest d/s is about that. A
pair must be worse than what it leaves of each of its parts, at 5 % over all conditions, else the part says it. The
best 60 are ranked again with errors by cluster (`tidemill.stats.clustered`). What a slice has explained is taken out,
and the search goes on with the rest: so slices do not overlap, and none is named for what another one has.

*Test.* The slices, at most five and in their order, are fixed before the other half is looked at; each is tested there
on what those before it leave: "no worse than elsewhere", one-sided, and Holm's step-down (Holm 1979) over all of
them. So the chance that any slice is shown that is not worse is at most `risk`, however many were searched (data
splitting, Cox 1975). Their intervals hold together with probability 1 − risk.

*Clusters.* The halves are made of whole clusters, else what a customer is like would be found in one half and
confirmed by the same customer in the other. A slice needs outcomes worth 8 clusters on each side, in each half.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, combinations_with_replacement
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from tidemill.metrics.conditions import Coded, Condition
from tidemill.stats.clustered import Clustered, ClusterSums, cluster_sums, contrast
from tidemill.stats.confidence import Interval

__all__ = ["LEAST", "LEAST_UNITS", "MOST", "Finding", "Losses", "Search", "find", "holm"]

MOST = 5
"""Slices that are tested."""
LEAST = 50
"""Outcomes of equal weight that a slice needs among those that are searched; as many must be outside."""
LEAST_UNITS = 8.0
"""Clusters of equal weight that a slice needs in each half, and what is outside."""
_LOOKED_AT = 60
_PART_RISK = 0.05
"""Probability that a condition which says nothing joins one that does."""
_WORTH_A_TEST = 2.0
"""Standard errors below which a slice is not tested: each test costs the others."""
_SURE = 10.0
"""Puts those that are surely worse before those ranked by d/s, which is below √(2 ln M) < 10 there."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Place = tuple[tuple[int, int], ...]
"""A slice: its one or two conditions, each as (feature, condition)."""


@dataclass(frozen=True)
class Losses:
    """The losses of N outcomes, and the clusters that they come in."""

    values: Floats
    """In [0, 1]; NaN where the label is still to come."""
    weights: Floats
    """One over the probability of the label; 0 where none was asked for."""
    clusters: Ints
    """0 … count - 1."""
    count: int
    searched: Mask
    """The half that is searched; the other one is tested."""

    @property
    def known(self) -> Mask:
        """Which have a label that counts."""
        return ~np.isnan(self.values) & (self.weights > 0)


@dataclass(frozen=True)
class Finding:
    """A slice that was tested. All figures are of the half in which it was."""

    name: str
    """Its conditions in words."""
    conditions: tuple[Condition, ...]
    outcomes: int
    """Labelled ones in it, without those of the slices before it."""
    units: float
    """Clusters of equal weight among them."""
    error: float
    interval: Interval
    elsewhere: float
    """Error of those that are in no slice up to this one."""
    p: float
    """Of "it is no worse than elsewhere", after Holm."""


@dataclass(frozen=True)
class Search:
    """What was searched, and what came of it."""

    candidates: int
    """Slices that there are."""
    tested: tuple[Finding, ...]
    """In the order in which they were found."""
    risk: float

    @property
    def found(self) -> tuple[Finding, ...]:
        """Those that are worse than elsewhere, with probability 1 − risk all of them."""
        return tuple(one for one in self.tested if one.p <= self.risk)


def find(features: Sequence[Coded], losses: Losses, *, risk: float = 0.05, most: int = MOST) -> Search:
    """Search for the worst slices and test them.

    Args:
        features: of the N outcomes, coded by the half that is searched.
        losses: of the same outcomes.
        risk: probability of showing any slice that is not worse than elsewhere.
        most: how many are tested.
    """
    searcher = _Searcher(features, losses)
    places: list[Place] = []
    while len(places) < most and (place := searcher.next()) is not None:
        places.append(place)
    return Search(searcher.candidates, tuple(_tested(features, losses, places, risk)), risk)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number: a hypothesis is refused at risk α where its adjusted one is at most α.

    Holm 1979, "A simple sequentially rejective multiple test procedure"; it asks nothing of their dependence.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _tested(features: Sequence[Coded], losses: Losses, places: Sequence[Place], risk: float) -> list[Finding]:
    left = ~losses.searched & (losses.weights > 0)
    found: list[Finding] = []
    for place in places:
        inside = left & _holds(features, place)
        left = left & ~inside
        conditions = tuple(features[at].conditions[which] for at, which in place)
        if (finding := _against(losses, inside, left, conditions, risk / len(places))) is not None:
            found.append(finding)
    # One that cannot be tested counts as tested, and not refused.
    adjusted = holm([one.p for one in found] + [1.0] * (len(places) - len(found)))
    return [replace(one, p=p) for one, p in zip(found, adjusted, strict=False)]


def _against(
    losses: Losses, inside: Mask, outside: Mask, conditions: tuple[Condition, ...], risk: float
) -> Finding | None:
    """A slice against the rest, p not adjusted; None where there is too little of either.

    A label that is still to come counts as right inside and as wrong outside: then it cannot make a finding.
    """
    known = losses.known
    if not (inside & known).any() or not (outside & known).any():
        return None
    group, rest = _mean(losses, inside & known), _mean(losses, outside & known)
    least, most = _mean(losses, inside, waiting=0.0), _mean(losses, inside, waiting=1.0)
    seen = contrast(least, _mean(losses, outside, waiting=1.0))
    enough = min(group.units, rest.units) >= LEAST_UNITS
    return Finding(
        name=" and ".join(str(one) for one in conditions),
        conditions=conditions,
        outcomes=group.count,
        units=group.units,
        error=group.mean,
        interval=Interval(least.interval(risk).low, most.interval(risk).high),
        elsewhere=rest.mean,
        p=seen.p if enough else 1.0,
    )


def _mean(losses: Losses, rows: Mask, waiting: float = 0.0) -> Clustered:
    return _sums(losses, rows, waiting).mean()


def _sums(losses: Losses, rows: Mask, waiting: float = 0.0) -> ClusterSums:
    places = np.flatnonzero(rows)
    values = losses.values[places]
    known = np.where(np.isnan(values), waiting, values)
    return cluster_sums(known, losses.weights[places], losses.clusters[places], losses.count)


def _holds(features: Sequence[Coded], place: Place) -> Mask:
    """Which of all outcomes are in a slice (N,)."""
    masks = [features[at].holds(which) for at, which in place]
    found: Mask = masks[0] & masks[-1]
    return found


class _Searcher:
    """The half that is searched, less what has been found."""

    def __init__(self, features: Sequence[Coded], losses: Losses) -> None:
        self._features, self._losses = features, losses
        self._left = losses.searched & losses.known
        sizes = [len(one.conditions) for one in features]
        self.candidates = (
            sum(sizes) + sum(a * b for a, b in combinations(sizes, 2)) + sum(n * (n - 1) // 2 for n in sizes)
        )
        self._z = float(np.sqrt(2 * np.log(max(self.candidates, 2))))
        self._beyond = NormalDist().inv_cdf(1 - _PART_RISK / max(2, sum(sizes)))

    def next(self) -> Place | None:
        """The worst slice of what is left, which is taken out; None where nothing is worth a test."""
        best, best_rank = None, -np.inf
        whole = _sums(self._losses, self._left)
        for place in self._ranked():
            sums = _sums(self._losses, self._left & _holds(self._features, place))
            seen = contrast(sums.mean(), (whole - sums).mean())
            if min(seen.inside.units, seen.outside.units) < LEAST_UNITS or seen.t < _WORTH_A_TEST:
                continue
            rank = float(_rank(np.float64(seen.difference), np.float64(seen.error), self._z))
            if rank > best_rank and all(self._says_more(sums, part) for part in place if len(place) > 1):
                best, best_rank = place, rank
        if best is not None:
            self._left = self._left & ~_holds(self._features, best)
        return best

    def _says_more(self, pair: ClusterSums, part: tuple[int, int]) -> bool:
        """Whether a pair is worse than what it leaves of one of its parts, by the clusters."""
        rest = _sums(self._losses, self._left & _holds(self._features, (part,))) - pair
        return rest.count > 0 and contrast(pair.mean(), rest.mean()).t >= self._beyond

    def _ranked(self) -> list[Place]:
        """The slices that rank best as if outcomes were independent, the best first."""
        tables = _Tables(self._features, self._losses, self._left)
        ranks: list[Floats] = []
        places: list[Ints] = []
        for first, second in combinations_with_replacement(range(len(self._features)), 2):
            rank = tables.pairs(first, second, self._z, self._beyond)
            ranks.append(rank.ravel())
            where = np.indices(rank.shape).reshape(2, -1)
            places.append(np.stack([np.full(rank.size, first), where[0], np.full(rank.size, second), where[1]]))
            if first == second:
                ranks.append(tables.singles(first, self._z))
                which = np.arange(len(ranks[-1]))
                places.append(np.stack([np.full(len(which), first), which, np.full(len(which), -1), which]))
        if not ranks:
            return []
        rank, place = np.concatenate(ranks), np.concatenate(places, axis=1)
        order = np.argsort(-rank, kind="stable")[:_LOOKED_AT]
        return [_place(place[:, at]) for at in order if rank[at] > -np.inf]


def _place(found: Ints) -> Place:
    first, which, second, other = (int(one) for one in found)
    return ((first, which),) if second < 0 else ((first, which), (second, other))


class _Tables:
    """Sums by codes: of weights, of weights times losses, of squared weights (3, …)."""

    def __init__(self, features: Sequence[Coded], losses: Losses, rows: Mask) -> None:
        self._features = features
        self._codes = [one.codes[rows] for one in features]
        weights, values = losses.weights[rows], losses.values[rows]
        self._bad = np.flatnonzero(values > 0)
        self._losses = (weights * values)[self._bad]
        self._equal = bool(len(weights)) and bool((weights == weights[0]).all())
        self._weights = weights
        self._total = np.array([weights.sum(), self._losses.sum(), weights @ weights])
        self._single = [one.members @ self._sums(codes, one.size) for one, codes in self._coded()]

    def singles(self, at: int, z: float) -> Floats:
        """The rank of each condition of a feature (A,)."""
        return self._ranks(np.moveaxis(self._single[at], -1, 0), z)

    def pairs(self, first: int, second: int, z: float, beyond: float) -> Floats:
        """The rank of each pair of conditions (A, B); -inf where one of the two says it alone."""
        one, other = self._features[first], self._features[second]
        if first == second:  # an interval: from ... and below ...
            table = np.zeros((3, one.size, one.size))
            np.einsum("kii->ki", table)[:] = self._sums(self._codes[first], one.size).T
        else:
            joint = self._codes[first].astype(np.intp) * other.size + self._codes[second]
            table = self._sums(joint, one.size * other.size).T.reshape(3, one.size, other.size)
        pairs = one.members @ table @ other.members.T
        ranks = self._ranks(pairs, z)
        for part, axis in ((self._single[first], 2), (self._single[second], 1)):
            whole = np.expand_dims(part.T, axis)
            ranks[~_says_more(pairs, whole - pairs, beyond)] = -np.inf
        if first == second:
            ranks[np.tril_indices(len(ranks))] = -np.inf
        return ranks

    def _coded(self) -> list[tuple[Coded, npt.NDArray[np.uint8]]]:
        return list(zip(self._features, self._codes, strict=True))

    def _sums(self, codes: npt.NDArray[np.integer], size: int) -> Floats:
        """By code (size, 3)."""
        lost = np.bincount(codes[self._bad], self._losses, minlength=size)
        if self._equal:
            weight = float(self._weights[0])
            count = np.bincount(codes, minlength=size).astype(np.float64)
            return np.stack([count * weight, lost, count * weight**2], axis=-1)
        weights = np.bincount(codes, self._weights, minlength=size)
        return np.stack([weights, lost, np.bincount(codes, self._weights**2, minlength=size)], axis=-1)

    def _ranks(self, sums: Floats, z: float) -> Floats:
        """The rank of slices (3, …); -inf where there is too little inside or outside."""
        rest = np.expand_dims(self._total, tuple(range(1, sums.ndim))) - sums
        difference, error, enough = _difference(sums, rest)
        return np.where(enough, _rank(difference, error, z), -np.inf)


def _rank(difference: Any, error: Any, z: float) -> Any:
    """First those that are surely worse, by how much; then the others, by d/s."""
    sure = difference - z * error
    return np.where(sure > 0, _SURE + sure, difference / np.maximum(error, 1e-12))


def _difference(sums: Floats, rest: Floats, least: float = LEAST) -> tuple[Floats, Floats, Mask]:
    """Mean inside less mean outside, its standard error were outcomes independent, and whether there are enough."""
    (mean, count), (other, others) = _mean_and_count(sums), _mean_and_count(rest)
    spread = np.maximum(mean * (1 - mean), other * (1 - other))
    error = np.sqrt(spread / np.maximum(count, 1.0) + other * (1 - other) / np.maximum(others, 1.0))
    return mean - other, error, (count >= least) & (others >= least)


def _mean_and_count(sums: Floats) -> tuple[Floats, Floats]:
    weight, lost, squares = sums
    some = weight > 1e-9
    return (
        np.where(some, lost / np.where(some, weight, 1.0), 0.0),
        np.where(some, weight**2 / np.where(some, squares, 1.0), 0.0),
    )


def _says_more(pair: Floats, left_of_part: Floats, beyond: float) -> Mask:
    """Whether a pair is worse than what it leaves of one of its parts, of which there must be something."""
    difference, error, enough = _difference(pair, left_of_part, least=10.0)
    found: Mask = enough & (difference > beyond * error)
    return found
