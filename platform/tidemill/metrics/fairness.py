"""Whether groups are treated alike: how far the rates of a yes-or-no answer are apart between them.

With Ŷ the answer, Y the truth and A the group:

* demographic parity: P(Ŷ = 1 | A) is the same (Dwork et al. 2012, "Fairness through awareness", eq. 2 asks it of
  distributions). It needs no labels.
* equal opportunity: P(Ŷ = 1 | Y = 1, A) is (Hardt, Price & Srebro 2016, "Equality of opportunity in supervised
  learning", definition 2.2).
* equalised odds: that, and P(Ŷ = 1 | Y = 0, A), too (their definition 2.1); the gap is the larger of both.
* predictive parity: P(Y = 1 | Ŷ = 1, A) is (Chouldechova 2017, "Fair prediction with disparate impact",
  definition 2.1). Where groups differ in P(Y = 1), not all of these can hold (her section 2.1).

Each rate is a weighted mean with an interval by clusters (`tidemill.stats.clustered`); gaps are between groups that are
large enough, with intervals that allow for the choice of the two (`tidemill.metrics.gaps`). A label that is still to
come may be either: its interval reaches to where it is worst and to where it is best. An interval is of one look.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tidemill.metrics.gaps import SMALLEST_GROUP, Gap, Group, gap_of
from tidemill.stats.clustered import clustered_mean
from tidemill.stats.confidence import Interval

__all__ = ["Answers", "Fairness", "Rate", "fairness"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """Yes-or-no answers of N outcomes, and what was true."""

    answer: Mask
    truth: Mask
    """Of those that are labelled; the others' does not matter."""
    is_known: Mask
    """Which have a label that counts."""
    weights: npt.NDArray[np.float64]
    """One over the probability of the label; 0 where none is asked for. With a weight and not known: to come."""
    groups: npt.NDArray[np.int64]
    """Places in `names`; -1 for none."""
    names: Sequence[str]
    clusters: npt.NDArray[np.int64]
    count: int
    """How many clusters there are."""


@dataclass(frozen=True)
class Rate:
    """One rate by group."""

    name: str
    of: str
    """What it is, as a formula."""
    groups: Sequence[Group]
    gap: Gap | None


@dataclass(frozen=True)
class Fairness:
    """The rates; None of the gaps where fewer than two groups are large enough."""

    demographic_parity: Rate
    equal_opportunity: Rate
    false_positives: Rate
    """The other half of equalised odds."""
    predictive_parity: Rate
    equalised_odds: Gap | None
    """The larger one of the gaps of true and of false positives."""


@dataclass(frozen=True)
class _Part:
    """Of what a rate is, and where it is 1; three times: as known, at its least, and at its most."""

    rows: Mask
    hits: Mask


def fairness(answers: Answers, *, risk: float = 0.05) -> Fairness:
    """The rates of each group and their gaps; each gap's interval misses with probability `risk`."""
    one, known = answers, answers.is_known & (answers.weights > 0)
    waiting = ~answers.is_known & (answers.weights > 0)
    everything = np.ones(len(one.answer), dtype=bool)
    parity = _Part(everything, one.answer)
    labelled = one.weights

    def truths(said: Mask | bool) -> Mask:
        found: Mask = np.where(waiting, said, one.truth)
        return found

    positives = [
        _Part(known & one.truth, one.answer),
        _Part((known | waiting) & truths(~one.answer), one.answer),
        _Part((known | waiting) & truths(one.answer), one.answer),
    ]
    negatives = [
        _Part(known & ~one.truth, one.answer),
        _Part((known | waiting) & ~truths(one.answer), one.answer),
        _Part((known | waiting) & ~truths(~one.answer), one.answer),
    ]
    answered = [
        _Part(known & one.answer, one.truth),
        _Part((known | waiting) & one.answer, truths(False)),
        _Part((known | waiting) & one.answer, truths(True)),
    ]
    selection = _rate(one, "demographic parity", "P(answer)", [parity] * 3, np.ones(len(one.answer)), risk)
    # The two of equalised odds share the risk, so that they hold together.
    true = _rate(one, "equal opportunity", "P(answer | true)", positives, labelled, risk / 2)
    false = _rate(one, "false positives", "P(answer | not true)", negatives, labelled, risk / 2)
    right = _rate(one, "predictive parity", "P(true | answer)", answered, labelled, risk)
    return Fairness(selection, true, false, right, _larger(true.gap, false.gap))


def _larger(first: Gap | None, second: Gap | None) -> Gap | None:
    if first is None or second is None:
        return None
    larger = first if first.difference >= second.difference else second
    low, high = (max(one) for one in zip(first.interval, second.interval, strict=True))
    return Gap(larger.largest, larger.smallest, larger.difference, Interval(low, high))


def _rate(
    answers: Answers, name: str, of: str, parts: Sequence[_Part], weights: npt.NDArray[np.float64], risk: float
) -> Rate:
    rows = [np.flatnonzero(answers.groups == place) for place in range(len(answers.names))]
    sizes = [int(parts[0].rows[mine].sum()) for mine in rows]
    judged = max(1, sum(size >= SMALLEST_GROUP for size in sizes))
    groups = [
        _group(answers, group, parts, weights, mine, risk / judged)
        for group, mine in zip(answers.names, rows, strict=True)
    ]
    return Rate(name, of, groups, gap_of(groups))


def _group(
    answers: Answers,
    name: str,
    parts: Sequence[_Part],
    weights: npt.NDArray[np.float64],
    mine: npt.NDArray[np.intp],
    risk: float,
) -> Group:
    found = []
    for part in parts:
        rows = mine[part.rows[mine]]
        if not len(rows):
            return Group(name, len(mine), 0, None, Interval(0.0, 1.0), False)
        hits = part.hits[rows].astype(np.float64)
        found.append(clustered_mean(hits, weights[rows], answers.clusters[rows], answers.count))
    known, least, most = found
    interval = Interval(least.interval(risk).low, most.interval(risk).high)
    return Group(name, len(mine), known.count, known.mean, interval, known.count >= SMALLEST_GROUP)
