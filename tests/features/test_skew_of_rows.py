"""What online rows served is what the skew check computes: the same on real rows, whatever came late or in between."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from tidemill.core.clock import to_ms
from tidemill.features.layout import layout_of
from tidemill.features.online import Filling, OnlineRows
from tidemill.features.reader import OnlineReader
from tidemill.features.skew import Served, compare, events_for
from tidemill.testing.loop import example_resource

pytestmark = pytest.mark.redis

START = datetime(2026, 11, 25, 12, tzinfo=UTC)
SOURCES = ("c/t/0", "c/t/1")
SCHEMA = {
    "source": pl.String(),
    "offset": pl.Int64(),
    "entity": pl.String(),
    "event_time": pl.Datetime("us", "UTC"),
    "available_at": pl.Datetime("us", "UTC"),
    "event_date": pl.Date(),
    "x": pl.Float64(),
    "word": pl.String(),
    "flag": pl.Boolean(),
}
WINDOWS = [
    {"name": "seen", "agg": "count", "over": ["6s", "1m"]},
    *({"name": agg, "agg": agg, "of": "x", "over": ["1m"]} for agg in ("sum", "mean", "std", "min", "max")),
    {"name": "share", "agg": "mean", "of": "flag", "over": ["1m"]},
    {"name": "word", "agg": "last", "of": "word", "over": ["1m"]},
    {"name": "words", "agg": "distinct", "of": "word", "over": ["1m"]},
    {"name": "high", "agg": "quantile", "of": "x", "q": 0.9, "over": ["1m"]},
]
RESOURCE = example_resource(
    events={
        "entity": {"name": "station"},
        "timestamp": "captured_at",
        "allowedLateness": "10s",
        "fields": [
            {"name": "x", "type": "float", "required": False},
            {"name": "word", "type": "string", "required": False},
            {"name": "flag", "type": "bool"},
        ],
    },
    features={"windows": WINDOWS},
)


def batches(chosen: random.Random) -> list[list[dict[str, Any]]]:
    """Events in the order of their arrival, a few a batch; some are late, some too late, some from a clock ahead."""
    offsets, now, made = dict.fromkeys(SOURCES, -1), START, []
    for _ in range(60):
        batch = []
        for _ in range(chosen.randrange(1, 6)):
            now += timedelta(milliseconds=chosen.randrange(400))
            source = chosen.choice(SOURCES)
            offsets[source] += chosen.randrange(1, 3)
            time = now - timedelta(milliseconds=chosen.choice([0, 0, 50, 5000, 20_000, -300]))
            batch.append(
                {
                    "source": source,
                    "offset": offsets[source],
                    "entity": chosen.choice("AB"),
                    "event_time": time,
                    "available_at": now,
                    "event_date": time.date(),
                    "x": chosen.choice([None, chosen.gauss(0, 100)]),
                    "word": chosen.choice([None, "a", "b", "c"]),
                    "flag": chosen.random() < 0.3,
                }
            )
        made.append(batch)
    return made


@pytest.mark.parametrize("seed", range(5))
def test_what_rows_served_is_what_the_lake_says(redis_url: str, topic_prefix: str, seed: int) -> None:
    chosen, layout = random.Random(seed), layout_of(RESOURCE)
    rows, reader = OnlineRows(redis_url, topic_prefix, layout), OnlineReader(redis_url, topic_prefix, layout=layout)
    rows.rebuild(lambda: Filling({}, ()))
    served: list[Served] = []
    taken: list[dict[str, Any]] = []
    for batch in batches(chosen):
        taken += batch
        rows.apply(pl.DataFrame(batch, schema=SCHEMA))
        at = batch[-1]["available_at"] + timedelta(milliseconds=chosen.randrange(-1500, 3000))  # clocks differ
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        for entity, found in zip("AB", reader.read("AB", to_ms(at)), strict=True):
            name = f"p{len(served)}"
            served.append(
                Served(
                    prediction_id=name,
                    entity=entity,
                    at=at,
                    features=found.values,
                    status=str(found.status),
                    fence=found.fence,
                )
            )
    rows.close()
    reader.close()
    lake = pl.DataFrame(taken, schema=SCHEMA)
    upto = dict(lake.group_by("source").agg(pl.max("offset")).iter_rows())
    skew = compare(served, events_for(lake.lazy(), served, RESOURCE), upto, RESOURCE)
    assert skew.differences == ()
    assert skew.compared == skew.equal == sum(one.status == "PRESENT" for one in served) > 100
    assert skew.values == skew.compared * 14
