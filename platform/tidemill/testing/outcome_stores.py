"""What outcomes keeps, in memory: the index and a lake table. Each can fail at any call (`Faults`)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

import polars as pl

from tidemill.events.lake import LakeTable, Span
from tidemill.events.sources import Source
from tidemill.labels.parse import KnownLabel, event_key
from tidemill.outcomes.join import Heard, Indexed
from tidemill.outcomes.late import Hot
from tidemill.outcomes.state import Recalled, StateLost
from tidemill.testing.outcomes import Faults

__all__ = ["MemoryIndex", "MemoryTable"]

_MS = timedelta(milliseconds=1)


class MemoryIndex:
    """Implements `OutcomeState` in memory; survives a worker, and `lose` empties it.

    Args:
        faults: where to fail.
        now: the time in milliseconds.
        hot: for how long entries are kept; None: for ever.
    """

    def __init__(
        self, faults: Faults | None = None, now: Callable[[], int] = lambda: 0, hot: Hot | None = None
    ) -> None:
        self._faults = faults or Faults()
        self._now, self._hot, self._asked = now, hot, now()
        self.lose()

    def lose(self) -> None:
        """Forget everything, as a server that was restarted."""
        self._whole = False
        self._rebuilding = False
        self._predictions: dict[str, dict[int, Indexed]] = {}
        self._heard: dict[str, dict[tuple[int, int], Heard]] = {}
        self._of_event: dict[str, dict[str, int]] = {}
        self._known: dict[str, dict[str, KnownLabel]] = {}
        self._touched: dict[tuple[str, str], int] = {}

    def is_whole(self) -> bool:
        """Whether everything written since the last `finish_rebuild` is there."""
        self._expire()
        return self._whole

    def begin_rebuild(self) -> None:
        """Say that what is there may be incomplete."""
        self._expire()
        self._whole, self._rebuilding = False, True

    def finish_rebuild(self) -> None:
        """Say that it is complete."""
        self._check()
        self._whole, self._rebuilding = True, False

    def index(self, predictions: Iterable[Indexed]) -> list[list[KnownLabel]]:
        """Keep predictions; for each the labels that are known of its event, by arrival."""
        found = []
        self._expire()
        for prediction in predictions:
            self._faults.at("index")
            self._touch("prediction", prediction.prediction_id)
            self._predictions.setdefault(prediction.prediction_id, {})[prediction.offset] = prediction
            known: dict[str, KnownLabel] = {}
            if prediction.event_id is not None:
                key = event_key(prediction.entity, prediction.event_id)
                self._touch("event", key)
                self._of_event.setdefault(key, {}).setdefault(prediction.prediction_id, prediction.partition)
                known = self._known.get(key, {})
            found.append(sorted(known.values(), key=lambda label: label.order))
        self._check()
        return found

    def know(self, labels: Iterable[tuple[str, KnownLabel]]) -> list[list[tuple[str, int]]]:
        """Keep labels by event key; for each the (id, partition) of that event's predictions."""
        self._expire()
        events = []
        for event, label in labels:
            events.append(event)
            self._faults.at("know")
            self._touch("event", event)
            self._known.setdefault(event, {}).setdefault(label.label_id, label)
        self._check()
        return [list(self._of_event.get(event, {}).items()) for event in events]

    def hear(self, heard: Sequence[tuple[str, Heard]], judged: int) -> Iterator[tuple[str, Recalled]]:
        """Keep resolved labels by prediction id; what is known then of those that may be judged, each once."""
        self._expire()
        for prediction, label in heard:
            self._faults.at("hear")
            self._touch("prediction", prediction)
            self._heard.setdefault(prediction, {})[label.offset, label.place] = label
        ids = list(dict.fromkeys(prediction for prediction, _ in heard))
        for of, recalled in zip(ids, self.recall(ids), strict=True):
            if recalled[0] is None or recalled[0].offset < judged:
                yield of, recalled

    def restore(self, predictions: Sequence[Indexed]) -> None:
        """Keep predictions that had left the index."""
        for prediction in predictions:
            self._faults.at("restore")
            self._touch("prediction", prediction.prediction_id)
            self._predictions.setdefault(prediction.prediction_id, {})[prediction.offset] = prediction

    def recall(self, predictions: Sequence[str]) -> Iterator[Recalled]:
        """What is known of each prediction."""
        self._expire()
        for of in predictions:
            kept = self._predictions.get(of, {}).values()
            labels = list(self._heard.get(of, {}).values())
            yield min(kept, key=lambda found: found.offset, default=None), labels
        self._check()

    def _touch(self, kind: str, key: str) -> None:
        if self._hot is not None:
            self._touched.pop((kind, key), None)
            self._touched[kind, key] = self._now()  # the longest untouched stand first

    def _expire(self) -> None:
        if self._hot is None:
            return
        now, asked, self._asked = self._now(), self._asked, self._now()
        if now - asked >= self._hot.away / _MS:
            self._whole = self._rebuilding = False
        while self._touched and now - next(iter(self._touched.values())) >= self._hot.kept / _MS:
            kind, key = next(iter(self._touched))
            del self._touched[kind, key]
            for entries in (self._predictions, self._heard) if kind == "prediction" else (self._of_event, self._known):
                entries.pop(key, None)

    def _check(self) -> None:
        if not self._whole and not self._rebuilding:
            raise StateLost("the index in memory was lost")


class MemoryTable(LakeTable):
    """A lake table in memory with the same rule for appending; `kept` survives a worker.

    Make one class per test with `MemoryTable.shared(faults)`.
    """

    kept: dict[str, pl.DataFrame]
    upto: dict[tuple[str, str], int]
    faults: Faults

    @classmethod
    def shared(cls, faults: Faults) -> type["MemoryTable"]:
        """A kind of table with a store of its own."""
        return type("MemoryTable", (cls,), {"kept": {}, "upto": {}, "faults": faults})

    @property
    def exists(self) -> bool:
        """Whether anything was appended."""
        return self.uri in self.kept

    def version_of(self, source: Source | str) -> int | None:
        """The last offset that the table has of a source."""
        return self.upto.get((self.uri, str(source)))

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """The rows."""
        return self.kept[self.uri].lazy()

    def append(
        self, rows: pl.DataFrame, upto: Mapping[Source, int], *, before_commit: Callable[[], None] | None = None
    ) -> dict[Source, Span]:
        """Append the rows that are new, and note how far each source was read."""
        self.faults.at("lake")
        known = {str(source): self.upto.get((self.uri, str(source)), -1) for source in upto}
        new = rows.filter(pl.col("offset") > pl.col("source").replace_strict(known, return_dtype=pl.Int64))
        self.kept[self.uri] = pl.concat([self.kept[self.uri], new]) if self.exists else new
        spans = {source: Span(known[str(source)], end) for source, end in upto.items() if end > known[str(source)]}
        self.upto |= {(self.uri, str(source)): span.upto for source, span in spans.items()}
        self.faults.at("lake")
        return spans
