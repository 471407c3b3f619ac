"""Our watch in a process of its own, fed batch after batch.

`python -m benchmarks.drift.ours ROWS COLUMNS BATCH ROWS_A_VOTE`, of which the last are an entity's in a window tick.

Timed are the product's functions from a batch of rows to the verdict: `sketches` (votes) and `reduce` (ticks,
detectors and signals); apart from them `build_reference`. Values are drawn between the stopwatch's turns, so memory
is the batch's.
"""

import gc
import json
import resource
import sys
import time
from datetime import UTC, datetime

import numpy as np
import polars as pl
from benchmarks.drift.data import ENTITIES, columns, names

from tidemill.events.lake import Span
from tidemill.events.sources import Source
from tidemill.ingest.votes import Voting, sketches
from tidemill.testing.loop import example_resource
from tidemill.watch.plan import plan_of
from tidemill.watch.reducer import first_state, reduce
from tidemill.watch.reference import build_reference
from tidemill.watch.state import Promotion
from tidemill.watch.ticks import Arrived

START_MS = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
TICK_MS = 10_000
REFERENCE_TICKS, FEW_TICKS = 200, 70
LARGE = 100_000_000
"""Values from which a reference has few window ticks: all its rows are held at once."""


def main(rows: int, count: int, batch: int, rows_a_vote: int) -> dict[str, float]:
    """Seconds of processor time by part, signals, and peak memory (MiB)."""
    fields = [{"name": name, "type": "float"} for name in names(count)]
    events = {"entity": {"name": "user"}, "id": "event_id", "timestamp": "at", "fields": fields}
    events["allowedLateness"] = "10s"
    model = example_resource("bench", events=events, features={}, triggers={"drift": {"tolerance": 0.1}})
    trigger = model.spec.triggers.drift
    assert trigger is not None
    voting, plan, source = Voting(model), plan_of(model, trigger), Source("c", "bench", 0)
    gc.freeze()  # as `tidemill watch` does
    a_tick = ENTITIES * rows_a_vote
    ticks = REFERENCE_TICKS if REFERENCE_TICKS * a_tick * count < LARGE else FEW_TICKS
    seen = _frame(0, ticks * a_tick, count, a_tick, part=0)
    begun = time.process_time()
    reference = build_reference(seen, model.watched_features, trigger)
    spent = {"reference": time.process_time() - begun, "votes": 0.0, "reduce": 0.0}
    states = sum(feature.state == "ok" for feature in reference.features)
    first, signals = seen.height, 0
    del seen
    state, _ = reduce(first_state(plan), [Promotion(version="r1", at=0, reference=reference)], plan)
    for number, begin in enumerate(range(0, rows, batch)):
        frame = _frame(first + begin, batch, count, a_tick, part=1 + number)
        span = Span(first + begin - 1, first + begin + batch - 1)
        at = [time.process_time()]
        told = sketches(voting, source, span, frame)
        at.append(time.process_time())
        state, found = reduce(state, [Arrived(sketch, number + 1) for sketch in told], plan)
        at.append(time.process_time())
        spent["votes"] += at[1] - at[0]
        spent["reduce"] += at[2] - at[1]
        signals += sum(signal.kind == "drift" for signal in found)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return spent | {"signals": signals, "watched": states, "peak_mib": peak}


def _frame(first: int, rows: int, count: int, a_tick: int, *, part: int) -> pl.DataFrame:
    """Rows of the events table: each tick brings so many rows of all entities, in turn."""
    offsets = np.arange(first, first + rows)
    times = pl.Series(START_MS + offsets * TICK_MS // a_tick).cast(pl.Datetime("ms", "UTC")).dt.cast_time_unit("us")
    values = columns(rows, count, part)
    fixed = {"entity": [f"e{offset % ENTITIES}" for offset in offsets], "offset": offsets}
    of_fields = {name: values[:, number] for number, name in enumerate(names(count))}
    return pl.DataFrame(fixed | of_fields).with_columns(event_time=times, available_at=times)


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:]))))
