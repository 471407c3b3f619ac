"""How many labelled events there are for the next run, counted in the lake, which is where training reads them.

Events of a class that the champion does not know are counted by the function by which a run adopts it.

For the first version that is events that are old enough for a snapshot (`labels.maturity.after`) and have a label, both
in the lake: a history that comes at once would otherwise start a run on the few of it that are. Later it is label rows
that arrived after the champion's data: each says something that the champion has not seen. Refused labels never count,
nor do picks for labelling.
"""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import polars as pl

from tidemill.artifacts.classes import as_known
from tidemill.control.state import Version
from tidemill.core.clock import Clock, from_ms, to_ms
from tidemill.core.errors import NotFound
from tidemill.events.lake import LakeTable, table_uri
from tidemill.spec.model import ContinualModel
from tidemill.training.classes import stated

__all__ = ["LabelledCount", "NewClassCount"]

_AT_LEAST_S = 1.0
_SHARE = 0.05
"""Largest share of the time that counting may take: a large lake is counted less often."""


Q = TypeVar("Q")
A = TypeVar("A")


class _Kept(Generic[Q, A]):
    """The last answer, given again until the next one is due or something else is asked."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: tuple[Q, A] | None = None
        self._due = 0.0

    def answer(self, question: Q, find: Callable[[Q], A]) -> A:
        begun = self._clock.monotonic()
        if self._last is None or self._last[0] != question or begun >= self._due:
            self._last = (question, find(question))
            done = self._clock.monotonic()
            self._due = done + max(_AT_LEAST_S, (done - begun) / _SHARE)
        return self._last[1]


def _tables(lake: str, resource: ContinualModel, *names: str) -> list[LakeTable]:
    return [LakeTable(table_uri(lake, resource.id, name)) for name in names]


class LabelledCount:
    """Counts for one model; the last count is given again until the next one is due. One thread.

    Args:
        lake: folder or URI of the lake.
        resource: the model, as it is declared when it is asked for.
        clock: the time.
    """

    def __init__(self, lake: str, resource: Callable[[], ContinualModel], clock: Clock) -> None:
        self._lake, self._resource, self._clock = lake, resource, clock
        self._kept = _Kept[int | None, int](clock)

    def __call__(self, since: int | None) -> int:
        """Labelled events that arrived after `since` (milliseconds); None: all. Raises `Unavailable`."""
        return self._kept.answer(since, self._counted)

    def _counted(self, since: int | None) -> int:
        resource = self._resource()
        events, said = _tables(self._lake, resource, "events", "labels")
        try:
            # Neither what was refused has a value nor a row that says that a prediction was picked for labelling.
            labels = said.scan().filter(pl.col("refused").is_null() & pl.col("value").is_not_null())
            if since is not None:
                return int(labels.filter(pl.col("available_at") > from_ms(since)).select(pl.len()).collect().item())
            key = ("entity", "event_id")
            old = pl.col("available_at") <= self._clock.now() - resource.spec.labels.maturity.after
            mature = events.scan().filter(old).select(pl.col("entity").cast(pl.String), "event_id").unique()
            return int(labels.select(key).unique().join(mature, on=key, how="semi").select(pl.len()).collect().item())
        except NotFound:
            return 0


class NewClassCount:
    """Counts events of classes that a version does not know, as `LabelledCount` does. One thread.

    Args:
        lake: folder or URI of the lake.
        resource: the model, as it is declared when it is asked for.
        clock: the time.
    """

    def __init__(self, lake: str, resource: Callable[[], ContinualModel], clock: Clock) -> None:
        self._lake, self._resource, self._clock = lake, resource, clock
        self._kept = _Kept[str, dict[str, int]](clock)

    def __call__(self, version: Version) -> Mapping[str, int]:
        """Mature labelled events by such a class, as far as labellers agree on them. Raises `Unavailable`."""
        return self._kept.answer(version.artifact, self._counted)

    def _counted(self, artifact: str) -> dict[str, int]:
        resource = self._resource()
        events, labels, predictions = _tables(self._lake, resource, "events", "labels", "predictions")
        try:
            return stated(
                events.scan(),
                labels.scan(),
                as_known(resource, artifact),
                as_of=to_ms(self._clock.now()),
                least=1,
                predictions=predictions.scan() if predictions.exists else None,
            )
        except NotFound:
            return {}
