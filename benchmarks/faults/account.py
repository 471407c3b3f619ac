"""What the log held, and whether lake, quarantine, online rows and sketches hold each of it once."""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import msgspec
import polars as pl
from benchmarks.faults.load import NUMBER
from benchmarks.faults.site import Site
from kafka import KafkaConsumer, TopicPartition

from tidemill.core.clock import SystemClock, to_ms
from tidemill.core.errors import NotFound
from tidemill.events.cells import by_name
from tidemill.events.cluster import Cluster
from tidemill.events.kafka import RecordReader
from tidemill.events.records import Quarantined, Record, Sketch
from tidemill.events.sources import Source
from tidemill.features.reader import OnlineReader, OnlineRow, Status
from tidemill.features.rows import Value
from tidemill.features.tiles import window_values
from tidemill.ingest.tables import events_table, quarantine_table

__all__ = ["Account", "Log", "read_log", "reconcile"]

R = TypeVar("R", bound=Record)

_AT = ["source", "offset"]
_SCHEMA = {
    "source": pl.String(),
    "offset": pl.Int64(),
    "number": pl.Int64(),
    "available_at": pl.Int64(),
    "station": pl.String(),
    "captured_at": pl.Int64(),
    "exposure_ms": pl.Float64(),
}


class _Event(msgspec.Struct):
    station: str
    captured_at: int
    exposure_ms: float


@dataclass(frozen=True)
class Log:
    """Everything that one incarnation of the topic holds. `records` without a station are bad."""

    records: pl.DataFrame
    ends: Mapping[Source, int]


@dataclass
class Account:
    """Differences found; each is 0 where all is well. `counted` is what they are differences of."""

    counted: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)


def read_log(site: Site) -> Log:
    """The topic as it is now, read by a plain consumer: what the workers ought to have seen."""
    with Cluster(site.bootstrap) as cluster:
        sources = cluster.sources(site.topics.events)
        ends = cluster.ends(site.topics.events, sources)
    partitions = {TopicPartition(site.topics.events, number): source for number, source in sources.items()}
    consumer = KafkaConsumer(bootstrap_servers=site.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    rows = []
    try:
        consumer.assign(list(partitions))
        while any(consumer.position(tp) < ends[tp.partition] for tp in partitions):
            for tp, records in consumer.poll(timeout_ms=500, max_records=5000).items():
                rows += [_row(str(partitions[tp]), record) for record in records if record.offset < ends[tp.partition]]
    finally:
        consumer.close()
    frame = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
    return Log(frame, {source: ends[number] for number, source in sources.items()})


def reconcile(site: Site, gone: Sequence[Log], now: Log, acknowledged: set[int]) -> Account:
    """Compare what was produced with what is kept, once the lag is zero.

    Of the topics that are `gone`, that counts which was ingested before; of the one there is `now`, all.
    """
    account = Account()
    upto = events_table(site.lake, site.resource).snapshot().upto
    account.wrong["records not read"] = sum(
        max(0, end - 1 - upto.get(str(source), -1)) for source, end in now.ends.items()
    )
    logs = pl.concat([*(log.records for log in gone), now.records])
    seen = logs.filter(pl.col("offset") <= pl.col("source").replace_strict(dict(upto), default=-1))
    numbers = set(logs["number"].to_list())
    account.counted["produced"] = logs.height
    account.counted["acknowledged"] = len(acknowledged)
    account.wrong["acknowledged, not in the log"] = len(acknowledged - numbers)
    account.wrong["in the log twice"] = logs.height - len(numbers)
    good, bad = seen.filter(pl.col("station").is_not_null()), seen.filter(pl.col("station").is_null())
    _check_lake(site, account, good)
    _check_quarantine(site, account, bad, logs.filter(pl.col("station").is_null()))
    _check_rows(site, account, good, {str(source) for source in now.ends})
    _check_sketches(site, account, good, upto)
    return account


def _row(source: str, record: object) -> tuple[object, ...]:
    offset, value, timestamp, headers = (getattr(record, name) for name in ("offset", "value", "timestamp", "headers"))
    number = next(int(content) for name, content in headers if name == NUMBER)
    try:
        event = msgspec.json.decode(value, type=_Event)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return source, offset, number, timestamp, None, None, None
    return source, offset, number, timestamp, event.station, event.captured_at, event.exposure_ms


def _check_lake(site: Site, account: Account, good: pl.DataFrame) -> None:
    lake = events_table(site.lake, site.resource).scan().collect()
    kept = lake.select(
        *_AT,
        pl.col("event_id").str.slice(1).cast(pl.Int64()).alias("number"),
        pl.col("available_at").dt.epoch("ms"),
        pl.col("entity").alias("station"),
        pl.col("event_time").dt.epoch("ms").alias("captured_at"),
        "exposure_ms",
    )
    account.counted["events in the lake"] = kept.height
    account.wrong["events doubled"] = kept.height - kept.unique(_AT).height
    account.wrong["event numbers doubled"] = kept.height - kept["number"].n_unique()
    account.wrong["events missing"] = good.join(kept, on=_AT, how="anti").height
    account.wrong["events that were never sent"] = kept.join(good, on=_AT, how="anti").height
    account.wrong["events with other values"] = kept.unique().join(good, on=good.columns, how="anti").height


def _check_quarantine(site: Site, account: Account, bad: pl.DataFrame, all_bad: pl.DataFrame) -> None:
    """Of a topic that is gone, quarantine may have a batch that the events' table did not come to."""
    try:
        kept = quarantine_table(site.lake, site.resource).scan().select(_AT).collect()
    except NotFound:
        kept = bad.select(_AT).clear()
    with RecordReader(site.bootstrap, site.topics.quarantine, Quarantined) as reader:
        told = {(record.source, record.offset) for record in _all(reader)}
    account.counted["bad records in quarantine"] = kept.height
    account.wrong["bad records doubled"] = kept.height - kept.unique().height
    account.wrong["bad records missing"] = bad.join(kept, on=_AT, how="anti").height
    account.wrong["good records in quarantine"] = kept.join(all_bad, on=_AT, how="anti").height
    account.wrong["bad records not told"] = len(set(bad.select(_AT).iter_rows()) - told)


def _check_rows(site: Site, account: Account, good: pl.DataFrame, live: Set[str]) -> None:
    """Each online row is what one pass over all its events makes of them."""
    last = good.sort("captured_at", *_AT).unique("station", keep="last")
    now = SystemClock().now()
    reader = OnlineReader(site.redis_url, site.resource.id)
    try:
        found = reader.read(last["station"].to_list(), to_ms(now))
    finally:
        reader.close()
    rows = dict(zip(last["station"], found, strict=True))
    account.counted["online rows"] = last.height
    account.wrong["online rows that differ"] = sum(
        rows[event["station"]].status is not Status.PRESENT
        or rows[event["station"]].event_time != event["captured_at"]
        or rows[event["station"]].values["exposure_ms"] != event["exposure_ms"]
        for event in last.iter_rows(named=True)
    )
    fences = good.filter(pl.col("source").is_in(list(live))).group_by("station", "source").agg(pl.col("offset").max())
    account.wrong["online rows with a fence below their events"] = sum(
        rows[station].fence.get(source, -1) < offset for station, source, offset in fences.iter_rows()
    )
    account.wrong["fences of topics that are gone"] = sum(bool(row.fence.keys() - live) for row in found)
    _check_windows(site, account, good, rows, now)


def _check_windows(
    site: Site, account: Account, good: pl.DataFrame, rows: Mapping[str, OnlineRow], now: datetime
) -> None:
    """Each window has the value that training would compute for this moment from what was produced."""
    moment = pl.Datetime("us", "UTC")
    events = good.select(
        *_AT,
        pl.col("station").alias("entity"),
        pl.from_epoch("captured_at", "ms").cast(moment).alias("event_time"),
        pl.from_epoch("available_at", "ms").cast(moment),
        "exposure_ms",
    )
    asked = pl.DataFrame({"entity": list(rows)}).with_columns(at=pl.lit(now, moment))
    spec = site.resource.spec
    expected = window_values(events, asked, spec.features.windows, spec.events.allowed_lateness)
    wrong = 0
    for row, values in zip(rows.values(), expected.iter_rows(named=True), strict=True):
        wrong += sum(not _close(row.values.get(name), value) for name, value in values.items())
    account.counted["window values"] = expected.height * expected.width
    account.wrong["window values that differ"] = wrong


def _check_sketches(site: Site, account: Account, good: pl.DataFrame, upto: Mapping[str, int]) -> None:
    """By the reader's rule each range is there once, and they join without a gap (see `Sketch`)."""
    have: dict[str, int] = {}
    torn = 0
    votes: dict[str, int] = {}
    with RecordReader(site.bootstrap, site.topics.sketches, Sketch) as reader:
        for sketch in _all(reader):
            before = have.get(sketch.source, -1)
            if sketch.last_offset <= before:
                continue
            torn += sketch.first_offset != before + 1
            have[sketch.source] = sketch.last_offset
            cells = [cell["exposure_ms"] for tick in sketch.votes.values() for cell in by_name(tick).values()]
            votes[sketch.source] = votes.get(sketch.source, 0) + sum(cell.count for cell in cells)
    expected = dict(good.group_by("source").len().iter_rows())
    account.counted["votes in sketches"] = sum(votes.values())
    account.wrong["sketches that leave a gap or overlap"] = torn
    account.wrong["sketches that end short"] = sum(have.get(source, -1) < last for source, last in upto.items())
    account.wrong["votes missing or doubled"] = sum(
        abs(votes.get(source, 0) - expected.get(source, 0)) for source in {*votes, *expected}
    )


def _close(kept: Value, expected: Value) -> bool:
    """Floats agree within what the order of additions may change."""
    if isinstance(kept, float) and isinstance(expected, float):
        return math.isclose(kept, expected, rel_tol=1e-9)
    return kept == expected


def _all(reader: RecordReader[R]) -> list[R]:
    return [stamped.record for stamped in reader.rest()]
