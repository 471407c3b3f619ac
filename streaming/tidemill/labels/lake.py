"""The labels that arrived: those in the lake, and those in the log that are not in the lake yet."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import polars as pl

from tidemill.core.clock import Clock
from tidemill.core.errors import InvalidInput, NotFound
from tidemill.events.cluster import Cluster
from tidemill.events.kafka import RecordReader
from tidemill.events.lake import LakeTable, Snapshot, table_uri
from tidemill.events.records import Label
from tidemill.events.sources import Source
from tidemill.labels.parse import read_label
from tidemill.spec.model import ContinualModel

__all__ = ["ArrivedLabels"]

_AT_ONCE = 10_000
_COLUMNS = ("prediction_id", "entity", "event_id", "labeller", "value", "event_time", "available_at")


class ArrivedLabels:
    """The labels of a model that were accepted.

    Args:
        lake: folder or URI of the lake.
        resource: the model.
    """

    def __init__(self, lake: str, resource: ContinualModel) -> None:
        self._resource = resource
        self._table = LakeTable(table_uri(lake, resource.id, "labels"))

    def in_lake(self) -> Iterator[Label]:
        """Those in the lake, a day at a time by arrival. Raises `Unavailable`."""
        snapshot = self._snapshot()
        return iter(()) if snapshot is None else self._labels(snapshot)

    def all(self, kafka: str, *, clock: Clock) -> Iterator[Label]:
        """Those in the lake, then those that stand in the log alone, as of now. Raises `Unavailable`."""
        snapshot = self._snapshot()
        if snapshot is not None:
            yield from self._labels(snapshot)
        yield from self._rest(kafka, {} if snapshot is None else dict(snapshot.upto), clock)

    def _snapshot(self) -> Snapshot | None:
        try:
            return self._table.snapshot()
        except NotFound:
            return None

    def _labels(self, snapshot: Snapshot) -> Iterator[Label]:
        rows = snapshot.rows.filter(pl.col("refused").is_null())
        days = self._table.collect(rows.select(pl.col("available_date").unique().sort()))["available_date"]
        order = ("available_at", "source", "offset")
        for day in days:
            times = [pl.col(name).dt.epoch("ms") for name in ("event_time", "available_at")]
            of_day = rows.filter(pl.col("available_date") == day).sort(order).select(*_COLUMNS[:5], *times)
            for row in self._table.collect(of_day).iter_rows():
                label = _label(row)
                if label is not None:
                    yield label

    def _rest(self, kafka: str, upto: dict[str, int], clock: Clock) -> Iterator[Label]:
        topic = self._resource.labels_topic
        with Cluster(kafka) as cluster:
            offsets = {part: upto.get(str(source), -1) + 1 for part, source in cluster.sources(topic).items()}
            starts = cluster.starts(topic, offsets)
        offsets = {part: max(offset, starts[part]) for part, offset in offsets.items()}
        odd: list[Label] = []
        take_odd = self._taking(odd)
        with RecordReader(kafka, topic, Label, offsets, on_bad=take_odd, clock=clock) as reader:
            ends = reader.ends()
            while any(reader.offsets()[part] < end for part, end in ends.items()):
                for stamped in reader.poll(_AT_ONCE):
                    if stamped.record.value is not None:
                        yield stamped.record
                yield from odd
                odd.clear()

    def _taking(self, odd: list[Label]) -> Callable[[Source, int, bytes], None]:
        """Takes what is no label record as ours are, but may be one as other systems write it: ids that are numbers."""
        fields = self._resource.spec.labels.fields

        def take(_: Source, __: int, data: bytes) -> None:
            try:
                label = read_label(data, fields)
            except InvalidInput:
                return
            if label.value is not None:
                odd.append(label)

        return take


def _label(row: tuple[Any, ...]) -> Label | None:
    """The label in a row; None for a row that says only why something was picked to be labelled."""
    prediction_id, entity, event_id, labeller, text, event_time, available_at = row
    value = None if text is None else msgspec.json.decode(text)
    if not isinstance(value, dict):
        return None
    return Label(
        value=value,
        labeller=labeller or "",
        prediction_id=prediction_id,
        entity=entity,
        event_id=event_id,
        # The lake has the time of arrival where the label said none.
        time=None if event_time == available_at else event_time,
    )
