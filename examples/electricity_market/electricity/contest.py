"""The contest: each row is answered before its label is known, and the labels come 48 rows late, for everyone.

Prequential evaluation (Gama, Sebastião & Rodrigues, On evaluating stream learning algorithms, 2013) with delayed
labels. A contestant sees labels through `tell` alone, each once, in the order of the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from electricity.rows import DELAY, Market

__all__ = ["Contestant", "NoChange", "Played", "play"]


class Contestant(Protocol):
    """One way to answer. `market` is what it was made with; of it, it may use what is known at that row."""

    runs: int
    """Trainings since the first scored row; the first version's is not one of them."""
    seconds: float
    """Processor time of learning, as far as it is counted."""

    def begin(self, row: int) -> None:
        """The contest begins with `row`: earlier rows are there, and the labels of those 48 rows before it."""
        ...

    def tell(self, row: int) -> None:
        """The label of `row` is known from now on."""
        ...

    def answer(self, row: int) -> str:
        """The answer to `row`, `up` or `down`; called for each row once, in order."""
        ...


@dataclass(frozen=True)
class Played:
    """What a contestant made of the rows from `since` on."""

    since: int
    answers: tuple[str, ...]
    right: tuple[bool, ...]
    runs: int
    seconds: float

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return sum(self.right) / len(self.right)


def play(market: Market, contestant: Contestant, *, since: int) -> Played:
    """Let a contestant answer all rows from `since` on; what came before is history."""
    contestant.begin(since)
    answers = []
    for row in range(since, len(market)):
        contestant.tell(row - DELAY)
        answers.append(contestant.answer(row))
    right = tuple(answer == truth for answer, truth in zip(answers, market.directions[since:], strict=True))
    return Played(since, tuple(answers), right, contestant.runs, contestant.seconds)


class NoChange:
    """As the last label that is known: a model that does not beat it has learnt nothing.

    `late` labels are what everyone has. Without delay the rule would be right far more often, and is no contestant.
    """

    def __init__(self, market: Market) -> None:
        self.runs, self.seconds = 0, 0.0
        self._directions: Sequence[str] = market.directions
        self._last = "down"

    def begin(self, row: int) -> None:
        """Nothing is learnt."""

    def tell(self, row: int) -> None:
        """Remember it."""
        self._last = self._directions[row]

    def answer(self, row: int) -> str:
        """The last one."""
        return self._last
