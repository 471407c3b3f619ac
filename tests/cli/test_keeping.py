"""The commands that keep features right, on a real broker and a real Redis."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

import msgspec
import polars as pl
import pytest
import redis

from tidemill.cli import main
from tidemill.control.store import LocalResourceStore
from tidemill.core.clock import SystemClock, to_ms
from tidemill.core.settings import Settings
from tidemill.core.telemetry import setup_logging
from tidemill.events.kafka import RecordWriter, ensure_topics
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.sources import Source
from tidemill.features.connection import Keys
from tidemill.features.layout import EVENTS
from tidemill.features.reader import OnlineReader
from tidemill.ingest.tables import events_table
from tidemill.ingest.worker import run as run_worker
from tidemill.outcomes.tables import PREDICTIONS
from tidemill.spec.model import ContinualModel
from tidemill.testing import eventually
from tidemill.testing.loop import example_resource

SOURCE = Source("c", "t", 0)
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def resource(topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContinualModel:
    """A stored model with one number."""
    monkeypatch.chdir(tmp_path)
    fields = [{"name": "x", "type": "float"}]
    events = {"entity": {"name": "station"}, "timestamp": "captured_at", "fields": fields}
    windows = [{"name": "seen", "agg": "count", "over": ["1m"]}]
    made = example_resource(topic_prefix, events=events, features={"windows": windows})
    LocalResourceStore(tmp_path / ".tidemill" / "resources").put(made, code=str(tmp_path))
    return made


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(*arguments, "-o", "json")
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), json.loads(out) if out else None, err


@contextmanager
def ingest(resource: ContinualModel, kafka: str, redis_url: str, lake: Path) -> Iterator[None]:
    """A worker, until the block ends."""
    setup_logging(Settings(), "ingest")  # to stderr
    stop = Event()
    where = {"kafka": kafka, "redis": redis_url, "lake": str(lake), "clock": SystemClock(), "stop": stop}
    thread = Thread(target=run_worker, args=(resource,), kwargs=where)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


@pytest.mark.kafka
@pytest.mark.redis
def test_online_rows_are_filled_from_the_lake_again_where_a_worker_runs(
    resource: ContinualModel,
    kafka: str,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TIDEMILL_KAFKA", kafka)
    monkeypatch.setenv("TIDEMILL_REDIS", redis_url)
    ensure_topics(kafka, {resource.events_topic: 1})
    status, _, err = call(capsys, "rebuild", "online", resource.metadata.name)
    assert (status, "no ingest of" in err) == (5, True), err
    reader = OnlineReader(redis_url, resource.id)
    with ingest(resource, kafka, redis_url, tmp_path / ".tidemill" / "lake"):
        with RecordWriter(kafka) as writer:
            event = {"station": "A", "captured_at": to_ms(SystemClock().now()), "x": 1.5}
            writer.send(resource.events_topic, msgspec.json.encode(event), key="A")
            writer.flush()
        eventually(lambda: reader.read(["A"])[0].values, 40)
        with redis.Redis.from_url(redis_url) as client:
            assert client.delete(*Keys(resource.id, EVENTS).rows(["A"])) == 1
        status, found, _ = call(capsys, "rebuild", "online", resource.metadata.name, "--timeout", "60")
    assert (status, found["were_complete"]) == (0, True)
    assert reader.read(["A"])[0].values["x"] == 1.5
    reader.close()


@pytest.mark.kafka
@pytest.mark.redis
def test_a_worker_outlives_a_row_that_cannot_be_read_and_fills_the_rows_again(
    resource: ContinualModel, kafka: str, redis_url: str, tmp_path: Path
) -> None:
    ensure_topics(kafka, {resource.events_topic: 1})
    with (
        ingest(resource, kafka, redis_url, tmp_path / ".tidemill" / "lake"),
        RecordWriter(kafka) as writer,
        redis.Redis.from_url(redis_url) as client,
    ):

        def send(x: float) -> None:
            event = {"station": "A", "captured_at": to_ms(SystemClock().now()), "x": x}
            writer.send(resource.events_topic, msgspec.json.encode(event), key="A")
            writer.flush()

        reader, (key,) = OnlineReader(redis_url, resource.id), Keys(resource.id, EVENTS).rows(["A"])
        send(1.5)
        eventually(lambda: reader.read(["A"])[0].values, 40)
        client.set(key, b"garbage")
        send(2.5)
        eventually(lambda: client.get(key) != b"garbage", 40)
        eventually(lambda: reader.read(["A"])[0].values.get("x") == 2.5, 40)
        reader.close()


def write_lake(resource: ContinualModel, lake: Path, **served: Any) -> None:
    """Two events of A, and a prediction after them with the features `served`."""
    events = {
        "source": [str(SOURCE)] * 2,
        "offset": [0, 1],
        "entity": ["A", "A"],
        "event_time": [NOON, NOON],
        "available_at": [NOON, NOON],
        "event_date": [NOON.date()] * 2,
        "x": [1.0, 2.0],
    }
    events_table(str(lake), resource).append(pl.DataFrame(events), {SOURCE: 1})
    prediction = dict.fromkeys(PREDICTIONS) | {
        "source": str(SOURCE),
        "offset": 0,
        "prediction_id": "p1",
        "entity": "A",
        "predicted_at": NOON.replace(second=30),
        "features": json.dumps(served),
        "feature_status": "PRESENT",
        "fence": json.dumps({str(SOURCE): 1}),
        "event_date": NOON.date(),
    }
    uri = table_uri(str(lake), resource.id, "predictions")
    frame = pl.DataFrame([prediction], schema=PREDICTIONS)
    LakeTable(uri, PREDICTIONS, pipeline="outcomes", partition_by=["event_date"]).append(frame, {SOURCE: 0})


@pytest.mark.parametrize(("x", "expected"), [(2.0, 0), (2.1, 1)])
def test_what_was_served_is_compared_with_the_lake(
    resource: ContinualModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], x: float, expected: int
) -> None:
    write_lake(resource, tmp_path / ".tidemill" / "lake", x=x, seen_1m=2)
    status, found, _ = call(capsys, "skew", resource.metadata.name)
    assert (status, found["compared"], found["differing"]) == (expected, 1, expected)
    differences = [(one["feature"], one["served"], one["computed"]) for one in found["differences"]]
    assert differences == [("x", 2.1, 2.0)][:expected]


def test_without_predictions_there_is_nothing_to_compare(
    resource: ContinualModel, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call(capsys, "skew", resource.metadata.name)
    assert (status, "there is no table" in err) == (3, True)
