"""The control: fences by batch. A batch is taken whole or not at all, by the last offset in it."""

from collections.abc import Iterable

import numpy as np
import polars as pl

from tidemill.events import lake
from tidemill.features import online, rows
from tidemill.features.packing import Rows
from tidemill.features.partials import Ints

__all__ = ["fence_by_batch"]

_fresh = rows.fresh


def fence_by_batch() -> None:
    """Break the lake's fence and that of the online rows in this process."""
    for module, name, wrong in ((lake, "_newer", _whole_batch), (online, "fresh", _whole_batch_of_a_row)):
        if not hasattr(module, name):
            raise AttributeError(f"the control breaks {module.__name__}.{name}, which is gone: break its successor")
        setattr(module, name, wrong)


def _whole_batch(frame: pl.DataFrame, spans: Iterable[object]) -> pl.DataFrame:
    return frame.filter(pl.col("source").is_in([str(source) for source in spans]))


def _whole_batch_of_a_row(have: Rows, events: pl.DataFrame, owner: Ints) -> Ints:
    return np.flatnonzero(np.isin(owner, owner[_fresh(have, events, owner)]))
