"""Quality by version, slice, cohort and time window: exact sums that any order, split and correction leave the same.

A cell has what `tidemill.metrics.measures` sums over its labelled outcomes, and how many outcomes it has in all. An
outcome counts once, by its newest revision: a correction takes the one before it out again.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tidemill.core.errors import InvalidInput
from tidemill.metrics.measures import Figures, Measures
from tidemill.metrics.sums import Sums, Terms

__all__ = ["Cell", "Judged", "QualityTable"]


class Cell(NamedTuple):
    """What an outcome counts for. A slice is a value of whatever it is cut by, "" where it is not."""

    version: str
    slice: str = ""
    cohort: str = ""
    window: int = 0
    """The prediction's time // the window's length; 0 without windows."""


class Judged(NamedTuple):
    """An outcome as quality sees it: the answer, and the label if there is one."""

    output: Mapping[str, Any]
    label: Mapping[str, Any] | None = None
    assumed: bool = False
    disputed: bool = False


class QualityTable:
    """Sums by cell.

    Args:
        measures: how labelled outcomes are scored.
    """

    def __init__(self, measures: Measures) -> None:
        self._measures = measures
        self._cells: dict[Cell, Sums] = {}

    def add(self, cell: Cell, outcome: Judged) -> None:
        """Take in an outcome."""
        self._cells.setdefault(cell, Sums()).add(self._terms(outcome))

    def remove(self, cell: Cell, outcome: Judged) -> None:
        """Take out one that was added: a newer revision takes its place."""
        self._cells.setdefault(cell, Sums()).add(self._terms(outcome), -1)

    def merge(self, other: "QualityTable") -> None:
        """Take in another table of the same measures."""
        for cell, sums in other._cells.items():
            self._cells[cell] = self._cells.get(cell, Sums()) + sums

    def cells(self) -> Iterator[Cell]:
        """The cells that hold an outcome, in order."""
        return iter(sorted(cell for cell, sums in self._cells.items() if sums.count("outcomes")))

    def count(self, cell: Cell, what: str = "outcomes") -> int:
        """How many `outcomes`; of these `labelled`, `assumed`, `disputed`, or `unjudged` (no measure for the label)."""
        sums = self._cells.get(cell)
        return sums.count(what) if sums else 0

    def figures(self, cell: Cell) -> Figures | None:
        """The figures over a cell's labelled outcomes; None where it has none."""
        sums = self._cells.get(cell)
        return self._measures.figures(sums) if sums else None

    def _terms(self, outcome: Judged) -> Terms:
        found: Terms = [(("outcomes",), 1)]
        if outcome.disputed:
            found.append((("disputed",), 1))
        if outcome.label is None:
            return found
        if outcome.assumed:
            found.append((("assumed",), 1))
        try:
            return found + self._measures.terms(outcome.output, outcome.label)
        except InvalidInput:  # of an older form of the resource
            return [*found, (("unjudged",), 1)]
