"""The same columns for all contenders; needs NumPy alone, so that the peers' environment can import it."""

import numpy as np
import numpy.typing as npt

__all__ = ["BUSY_ROWS_A_VOTE", "ENTITIES", "ROWS_A_VOTE", "columns", "names"]

SEED = 7
ENTITIES = 100
ROWS_A_VOTE = 10
"""Rows of an entity in a window tick."""
BUSY_ROWS_A_VOTE = 1_000
"""The same of a busy stream: a million rows are ten window ticks, as many as NannyML has chunks."""


def names(count: int) -> list[str]:
    """The columns' names."""
    return [f"f{number:04d}" for number in range(count)]


def columns(rows: int, count: int, part: int) -> npt.NDArray[np.float64]:
    """Independent normal values (rows, count); `part` tells the reference (0) from what comes after it."""
    return np.random.default_rng((SEED, part)).standard_normal((rows, count))
