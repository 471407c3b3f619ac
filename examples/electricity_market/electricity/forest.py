"""River's adaptive random forest (Gomes et al., Adaptive random forests for evolving data stream classification, 2017).

Test, then train: each label is learnt when it is known, with the row that it is about. Its settings are River's own.
"""

import time
from collections.abc import Hashable
from typing import Any

from river.forest import ARFClassifier

from electricity.rows import DELAY, Market

__all__ = ["Forest"]


class Forest:
    """Learns from every label; it has no runs.

    Args:
        market: the rows.
        seed: of the trees.
        windows: whether it is shown the windows, too, as the other models are, or the file's columns and the day alone.
    """

    def __init__(self, market: Market, *, seed: int = 0, windows: bool = True) -> None:
        self.runs, self.seconds = 0, 0.0
        self._market, self._windows = market, windows
        self._names = market.resource.spec.features.window_names
        self._forest = ARFClassifier(seed=seed)

    def begin(self, row: int) -> None:
        """Learn the history, one label after the other."""
        for known in range(row - DELAY):
            self.tell(known)

    def tell(self, row: int) -> None:
        """Learn the row."""
        begun = time.process_time()
        self._forest.learn_one(self._seen(row), self._market.directions[row])
        self.seconds += time.process_time() - begun

    def answer(self, row: int) -> str:
        """The forest's vote."""
        return str(self._forest.predict_one(self._seen(row)) or "down")

    def _seen(self, row: int) -> dict[Hashable, Any]:
        seen: dict[Hashable, Any] = dict(self._market.rows[row].items())
        for name in self._names:
            known = seen.pop(name)
            if self._windows:
                seen[name] = known or "none"
        return seen
