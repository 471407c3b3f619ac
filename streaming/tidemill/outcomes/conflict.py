"""Several labels of one prediction, and which of them counts: `labels.conflict`. Pure functions.

Each labeller counts by their last word; labels without a labeller are all one labeller's. Two labels agree where
they say the same of every field that is declared as a class, a bool or a number. Boxes and texts have no vote: no
two people draw the same box, so that every pair of them would be a dispute. Of labels that agree the last one
stands for all, with its box and its texts.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tidemill.labels.parse import label_order
from tidemill.spec.model import Labels

__all__ = ["Heard", "Rule", "probability", "rule_of", "winner"]

_VOTE = frozenset({"class", "bool", "float", "int"})


class Rule(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How the labels of a prediction become its outcomes; fixed for it when it is indexed, as its times are.

    A rule that changed under predictions already judged would give them other corrections than those written.
    """

    conflict: str = "last"
    priority: tuple[str, ...] = ()
    votes: tuple[str, ...] = ()
    """The fields by which labels agree or differ."""
    assumes: bool = False
    """Whether a label that is missing at the horizon is taken for the negative one."""


class Heard(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="l"):
    """A resolved label and where it stands: its offset in `labels.resolved` and the newest mark before it.

    `place` is its number among the labels of that record. One with `reasons` says no truth: its prediction was picked
    to be labelled.
    """

    label_id: str
    value: dict[str, Any] | None
    labeller: str
    available_at: int
    offset: int
    through: int
    place: int = 0
    reasons: dict[str, float] = {}

    @property
    def order(self) -> tuple[int, str, int]:
        """By arrival; within one millisecond by source and offset."""
        return label_order(self.available_at, self.label_id)


def rule_of(labels: Labels) -> Rule:
    """What a resource says of conflicts and of missing labels."""
    votes = tuple(field.name for field in labels.fields if field.type in _VOTE)
    return Rule(labels.conflict, labels.priority, votes, labels.maturity.absent == "negative")


def winner(labels: Sequence[Heard], rule: Rule) -> tuple[Heard | None, bool]:
    """The label that counts, and whether there is none because they differ (`unanimous`).

    `last`: the one that arrived last. `priority`: the last word of the labeller who stands first in `priority`;
    those who are not named come after them, the last of their words first. `majority`: what most labellers say;
    among equals what was said last. `unanimous`: what all labellers say.
    """
    said = [label for label in labels if label.value is not None]
    if len(said) < 2 or rule.conflict == "last":
        return max(said, key=_order, default=None), False
    words = sorted({label.labeller: label for label in sorted(said, key=_order)}.values(), key=_order)
    if rule.conflict == "priority":
        rank = {labeller: number for number, labeller in enumerate(rule.priority)}
        # The words stand in order of arrival: among the unnamed, who are equal, the last one is taken.
        return min(reversed(words), key=lambda word: rank.get(word.labeller, len(rank))), False
    groups: dict[tuple[Any, ...], list[Heard]] = {}
    for word in words:
        groups.setdefault(_vote(word, rule), []).append(word)
    if rule.conflict == "unanimous":
        return (words[-1], False) if len(groups) == 1 else (None, True)
    most = max(groups.values(), key=lambda group: (len(group), group[-1].order))
    return most[-1], False


def probability(label: Heard, known: Iterable[Heard]) -> float | None:
    """With what probability the label's prediction was picked to be labelled, as known before the label arrived.

    One minus the product of (1 - p) over the reasons (STATISTICS.md 3), each with the probability that was said of
    it last; None where no pick was known: such a label was volunteered, or came because of the answer.
    """
    picks = sorted((of for of in known if of.reasons and of.order < label.order), key=_order)
    reasons = {name: share for pick in picks for name, share in pick.reasons.items()}
    if not reasons:
        return None
    return 1.0 - math.prod(1.0 - reasons[name] for name in sorted(reasons))


def _vote(label: Heard, rule: Rule) -> tuple[Any, ...]:
    value = label.value or {}
    return tuple(value.get(name) for name in rule.votes)


def _order(label: Heard) -> tuple[int, str, int]:
    return label.order
