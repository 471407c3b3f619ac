"""A sketch in records that Kafka takes: of a whole span, or of parts of it, one after the other."""

from collections.abc import Callable

import polars as pl

from tidemill.events.lake import Span
from tidemill.events.records import Sketch, encode

__all__ = ["MAX_SKETCH_BYTES", "in_parts"]

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
