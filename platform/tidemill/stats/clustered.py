"""Means of outcomes that come in clusters: how sure they are when those of one cluster say the same thing.

A customer with 500 outcomes is not 500 witnesses. So the unit is the cluster (an entity, or a stretch of time), and the
variance of the weighted mean m = Σ w y / Σ w is that of the clusters' sums of influence,

    v = G/(G − 1) Σ_c u_c²,    u_c = Σ_{i in c} w_i (y_i − m) / Σ w,

the linearised variance of a ratio (Liang & Zeger 1986, "Longitudinal data analysis using generalized linear models",
their V_G; Cameron & Miller 2015, "A practitioner's guide to cluster-robust inference", eq. 11 with the factor of their
section VI.B). For the difference of two means over the same clusters u_c is the difference of both. Student's t has
K − 1 degrees of freedom for K = (Σ W_c)² / Σ W_c² clusters of equal weight (Kish 1965), so that a hundred small
clusters beside a large one do not count as a hundred.

The interval of a share is that of Korn & Graubard 1998, "Confidence intervals for proportions with small expected
number of positive counts estimated from survey data" (Clopper and Pearson's, with the effective number of outcomes
n* = m(1 − m)/v, and a factor for the degrees of freedom): it stays within [0, 1], and holds at small counts, too.

These hold for one look at a fixed number of outcomes, not for a look at every moment.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tidemill.stats.confidence import Interval
from tidemill.stats.student import beta_quantile, student_quantile, student_tail

__all__ = ["ClusterSums", "Clustered", "Contrast", "cluster_sums", "clustered_mean", "contrast"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Clustered:
    """A weighted mean of values in [0, 1], and what it rests on."""

    mean: float
    variance: float
    """Of the mean, by clusters; 0 where all values are equal."""
    count: int
    """Outcomes with a weight."""
    effective: float
    """Outcomes of equal weight that it is worth: (Σ w)² / Σ w² (Kish)."""
    units: float
    """Clusters of equal weight, K."""
    spread: float
    """Variance of one value."""
    influence: Floats
    """u_c of each cluster (G,)."""

    def interval(self, risk: float) -> Interval:
        """Holds the mean with probability 1 − risk; everything with fewer than two units."""
        if self.units < 1 + 1e-9:
            return Interval(0.0, 1.0)
        spread = self.mean * (1 - self.mean)
        effective = min(self.effective, spread / self.variance) if self.variance > 0 else self.effective
        degrees = self.units - 1
        if self.effective > 2:
            ratio = student_quantile(risk / 2, self.effective - 1) / student_quantile(risk / 2, degrees)
            effective *= min(1.0, ratio) ** 2
        hits = effective * self.mean
        low = beta_quantile(risk / 2, hits, effective - hits + 1) if hits > 0 else 0.0
        high = beta_quantile(1 - risk / 2, hits + 1, effective - hits) if hits < effective else 1.0
        return Interval(low, high)


@dataclass(frozen=True)
class Contrast:
    """The mean inside a group against the mean of the rest."""

    inside: Clustered
    outside: Clustered
    difference: float
    error: float
    """Standard error of the difference."""

    @property
    def t(self) -> float:
        """The difference over its error; 0 where there is no error to divide by."""
        return self.difference / self.error if self.error > 0 else 0.0

    @property
    def p(self) -> float:
        """Of "inside is no worse than outside", one-sided; 1 with fewer than two units on a side."""
        units = min(self.inside.units, self.outside.units)
        return student_tail(self.t, units - 1) if units > 1 + 1e-9 and self.error > 0 else 1.0


@dataclass(frozen=True)
class ClusterSums:
    """What a mean and its variance follow from, so that those of a group and of the rest are had at one go."""

    weights: Floats
    """Σ w of each cluster (G,)."""
    totals: Floats
    """Σ w y of each (G,)."""
    squared_weights: float
    """Σ w² over all."""
    squares: float
    """Σ w y² over all."""
    count: int
    """Outcomes with a weight."""

    def __sub__(self, part: "ClusterSums") -> "ClusterSums":
        """What is left without a part of it."""
        return ClusterSums(
            np.maximum(self.weights - part.weights, 0.0),
            self.totals - part.totals,
            self.squared_weights - part.squared_weights,
            self.squares - part.squares,
            self.count - part.count,
        )

    def mean(self) -> Clustered:
        """The mean. Raises ValueError where no outcome has a weight."""
        total = float(self.weights.sum())
        if not self.count or not total > 0:
            raise ValueError("a mean needs an outcome with a weight")
        mean = float(self.totals.sum()) / total
        influence = (self.totals - mean * self.weights) / total
        groups = int((self.weights > 0).sum())
        scale = groups / (groups - 1) if groups > 1 else 1.0
        return Clustered(
            mean=min(1.0, max(0.0, mean)),
            variance=scale * float(influence @ influence),
            count=self.count,
            effective=total**2 / self.squared_weights,
            units=total**2 / float(self.weights @ self.weights),
            spread=max(0.0, self.squares / total - mean**2),
            influence=influence,
        )


def cluster_sums(values: Floats, weights: Floats, clusters: Ints, count: int) -> ClusterSums:
    """The sums of one group.

    Args:
        values: in [0, 1] (N,).
        weights: one over the probability of being here (N,); 0 counts for nothing.
        clusters: the cluster of each, 0 … count - 1 (N,).
        count: how many clusters there are.
    """
    weighted = weights * values
    return ClusterSums(
        np.bincount(clusters, weights, minlength=count).astype(np.float64),
        np.bincount(clusters, weighted, minlength=count).astype(np.float64),
        float(weights @ weights),
        float(weighted @ values),
        int(np.count_nonzero(weights)),
    )


def clustered_mean(values: Floats, weights: Floats, clusters: Ints, count: int) -> Clustered:
    """The mean of one group; arguments as for `cluster_sums`. Raises ValueError where no outcome has a weight."""
    return cluster_sums(values, weights, clusters, count).mean()


def contrast(inside: Clustered, outside: Clustered) -> Contrast:
    """The difference of two groups' means over the same clusters.

    A group in which all values are equal shows no variance. So the difference has at least the variance that as many
    independent outcomes of the rest would have: it decides only where nearly all in a group are wrong.
    """
    joint = inside.influence - outside.influence
    groups = int(((inside.influence != 0) | (outside.influence != 0)).sum())
    scale = groups / (groups - 1) if groups > 1 else 1.0
    variance = scale * float(joint @ joint)
    least = outside.spread / inside.effective
    return Contrast(inside, outside, inside.mean - outside.mean, max(variance, least) ** 0.5)
