"""Sketches on the log: in records that Kafka takes, and each commit's once (see `Sketch`)."""

from collections.abc import Callable, Iterable

import polars as pl

from tidemill.events.kafka import RecordWriter
from tidemill.events.lake import Span
from tidemill.events.records import Sketch, encode
from tidemill.events.sources import Source

__all__ = ["MAX_SKETCH_BYTES", "SketchWriter", "in_parts"]

_FLUSH_S = 5.0
MAX_SKETCH_BYTES = 4 << 20
"""Largest sketch; one with many entities of long names, or many features, is written in parts."""


def in_parts(sketch: Callable[[Span, pl.DataFrame], Sketch], span: Span, rows: pl.DataFrame) -> list[Sketch]:
    """The sketch of a span, as more than one where it would be too large; they too are a function of the rows alone.

    Args:
        sketch: makes that of a span and the rows in it.
        span: the whole span.
        rows: with a column `offset`, in any order.
    """
    whole = sketch(span, rows)
    if rows.height < 2 or len(encode(whole)) <= MAX_SKETCH_BYTES:
        return [whole]
    middle = sorted(rows["offset"])[rows.height // 2 - 1]
    first, second = pl.col("offset") <= middle, pl.col("offset") > middle
    return [
        *in_parts(sketch, Span(span.after, middle), rows.filter(first)),
        *in_parts(sketch, Span(middle, span.upto), rows.filter(second)),
    ]


class SketchWriter:
    """Writes the sketches of commits, unless it did so already.

    Args:
        writer: for the sketches.
        topic: where they go.
    """

    def __init__(self, writer: RecordWriter, topic: str) -> None:
        self._writer, self._topic = writer, topic
        self._told: dict[Source, int] = {}

    def tell(self, spans: Iterable[tuple[Source, Span]], made: Callable[[Source, Span], Iterable[Sketch]]) -> None:
        """Write what `made` gives for each span that was not written yet; returns once all is acknowledged.

        Raises `Unavailable` where Kafka does not answer; calling again is safe.
        """
        written: dict[Source, int] = {}
        for source, span in spans:
            if self._told.get(source, -1) >= span.upto:
                continue
            for sketch in made(source, span):
                self._writer.send(self._topic, sketch, key=str(source))
            written[source] = span.upto
        if written:
            self._writer.flush(_FLUSH_S)
            self._told.update(written)
