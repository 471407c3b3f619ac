"""The electricity market of New South Wales (elec.csv), as fast as it can be produced, compared with the file.

How fast that is, and that it is ten thousand a second, `benchmarks.bench_ingest` tells: a busy machine fails no test.
"""

import os
import time
from pathlib import Path

import polars as pl
import pytest
from tests.ingest.site import Site

from tidemill.core.clock import SystemClock, to_ms
from tidemill.events.cluster import ensure_topics
from tidemill.features.online import OnlineReader, Status
from tidemill.ingest.tables import events_table
from tidemill.spec.model import ContinualModel
from tidemill.testing import eventually
from tidemill.testing.loop import example_resource

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]

ENTITIES = 48
"""One for each half hour of the day."""
HALF_HOUR_MS = 1_800_000


@pytest.fixture
def market() -> pl.DataFrame:
    """The file, with its rows numbered; skips where it is not."""
    file = Path(os.environ.get("TIDEMILL_DATA", "")) / "elec.csv"
    if not os.environ.get("TIDEMILL_DATA") or not file.is_file():
        pytest.skip("TIDEMILL_DATA names no folder with elec.csv")
    return pl.read_csv(file).with_row_index("number")


@pytest.fixture
def model(topic_prefix: str, market: pl.DataFrame) -> ContinualModel:
    fields: list[dict[str, object]] = [{"name": name, "type": "float"} for name in market.columns[2:-1]]
    fields += [{"name": "class", "type": "int", "enum": [0, 1]}]
    events = {"entity": {"name": "period", "type": "int"}, "id": "number", "timestamp": "at", "fields": fields}
    return example_resource(topic_prefix, events=events, features={}, triggers={})


def test_the_lake_and_the_online_rows_are_those_of_the_file(
    kafka: str, redis_url: str, tmp_path: Path, model: ContinualModel, market: pl.DataFrame
) -> None:
    site = Site(model, kafka, redis_url, tmp_path / "lake", lambda **_: b"")
    ensure_topics(kafka, {site.topics.events: 2})
    first = to_ms(SystemClock().now()) - market.height * HALF_HOUR_MS
    sent = market.with_columns(
        period=pl.col("number") % ENTITIES, at=first + pl.col("number").cast(pl.Int64) * HALF_HOUR_MS
    )
    lines = sent.write_ndjson().splitlines()
    with site.worker():
        begun = time.perf_counter()
        site.send_values((str(number % ENTITIES), line.encode()) for number, line in enumerate(lines))
        rate = len(lines) / (time.perf_counter() - begun)
        eventually(lambda: len(site.ids()) == market.height, 60, every_s=0.5)
        took = time.perf_counter() - begun
    print(f"{rate:,.0f} events/s produced, {market.height / took:,.0f} events/s produced and taken in")

    columns = market.columns[2:]
    lake = events_table(site.lake, model).scan().with_columns(number=pl.col("event_id").cast(pl.UInt32))
    assert lake.sort("number").select(columns).collect().equals(market.select(columns))
    reader = OnlineReader(redis_url, model.id)
    last = market.sort("number").tail(ENTITIES)
    rows = reader.read([str(number % ENTITIES) for number in last["number"]])
    reader.close()
    assert {row.status for row in rows} == {Status.PRESENT}
    assert [[row.values[name] for name in columns] for row in rows] == list(map(list, last.select(columns).iter_rows()))
