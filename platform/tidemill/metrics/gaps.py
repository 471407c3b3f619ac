"""The gap between the worst group and the best one, from intervals that hold together.

Which group is worst is not known before, so a gap measured between the two that look worst and best is too large. With
intervals [l_g, u_g] of all groups that hold together with probability 1 − α (each at α over their number: Bonferroni),
the gap max μ − min μ lies between max(0, max_g l_g − min_g u_g) and max_g u_g − min_g l_g. That asks nothing of how the
groups depend on each other, and where the intervals hold at every moment, so does the gap's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tidemill.stats.confidence import Interval

__all__ = ["SMALLEST_GROUP", "Gap", "Group", "gap_of"]

SMALLEST_GROUP = 30
"""Labelled outcomes that a group needs to be judged: of fewer, any rate may be chance."""


@dataclass(frozen=True)
class Group:
    """A rate of one group."""

    name: str
    outcomes: int
    """What the rate is of, labelled or not."""
    labelled: int
    mean: float | None
    interval: Interval
    """Holds together with those of the other groups that are judged."""
    is_judged: bool
    """Whether it is large enough to stand in the gap."""


@dataclass(frozen=True)
class Gap:
    """How far groups are apart."""

    largest: str
    """The group with the largest rate."""
    smallest: str
    difference: float
    """As measured between these two."""
    interval: Interval


def gap_of(groups: Sequence[Group]) -> Gap | None:
    """The gap between the groups that are judged; None with fewer than two."""
    judged = [(group.mean, group) for group in groups if group.is_judged and group.mean is not None]
    if len(judged) < 2:
        return None
    (high, largest), (low, smallest) = max(judged, key=lambda one: one[0]), min(judged, key=lambda one: one[0])
    intervals = [group.interval for _, group in judged]
    least = max(one.low for one in intervals) - min(one.high for one in intervals)
    most = max(one.high for one in intervals) - min(one.low for one in intervals)
    return Gap(largest.name, smallest.name, high - low, Interval(max(0.0, least), min(1.0, most)))
