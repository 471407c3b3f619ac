"""Windows over labels: labels as events of their entities, online and in training alike."""

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.clock import to_ms
from tidemill.events.lake import LakeTable
from tidemill.events.sources import Source
from tidemill.features.connection import Keys
from tidemill.features.label_events import LABELS, label_events, label_kinds, label_layout
from tidemill.features.layout import Kind
from tidemill.features.online import OnlineReader
from tidemill.features.point_in_time import scan_windows
from tidemill.features.reader import Status
from tidemill.outcomes.label_rows import LabelRows
from tidemill.outcomes.tables import LABELS as COLUMNS
from tidemill.spec.model import ContinualModel
from tidemill.testing.clock import ManualClock
from tidemill.testing.loop import example_resource
from tidemill.testing.training import START

TOPIC = Source("c", "t", 0)
WINDOWS = [
    {"name": "defects", "agg": "mean", "of": "label.defect", "over": ["10m"]},
    {"name": "said", "agg": "count", "of": "label.defect", "over": ["1h"]},
    {"name": "grade", "agg": "last", "of": "label.grade", "over": ["1h"]},
]
NAMES = ["defects_10m", "said_1h", "grade_1h"]


def resource_named(name: str) -> ContinualModel:
    return example_resource(
        name,
        events={"entity": {"name": "station"}, "timestamp": "at", "fields": [{"name": "x", "type": "float"}]},
        features={"windows": WINDOWS},
        prediction={"type": "classification", "classes": ["ok", "scratch"]},
        labels={"fields": [{"name": "defect", "type": "bool"}, {"name": "grade", "type": "string"}]},
    )


RESOURCE = resource_named("m")


def labels(*said: tuple[str | None, float, Any]) -> pl.DataFrame:
    """Labels in the lake's columns: (entity, seconds after the start, value), each arriving a second later."""
    rows = [
        {
            "source": str(TOPIC),
            "offset": number,
            "label_id": f"{TOPIC}@{number}",
            "entity": entity,
            "value": None if value is None else json.dumps(value),
            "event_time": START + timedelta(seconds=seconds),
            "available_at": START + timedelta(seconds=seconds + 1),
            "available_date": START.date(),
        }
        for number, (entity, seconds, value) in enumerate(said)
    ]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


SAID = (
    ("A", 0, {"defect": True, "grade": "b"}),
    ("A", 60, {"defect": False, "grade": None}),
    ("B", 61, {"defect": True}),
    ("A", 90, {"defect": False, "grade": 'a"\\é'}),
    (None, 91, {"defect": True}),  # of a prediction that names no entity
    ("A", 92, None),  # refused
)


def test_a_label_is_an_event_of_its_entity() -> None:
    found = label_events(labels(*SAID).lazy(), label_kinds(RESOURCE)).collect()
    assert found["entity"].to_list() == ["A", "A", "B", "A"]
    assert found["label.defect"].to_list() == [True, False, True, False]
    assert found["label.grade"].to_list() == ["b", None, None, 'a"\\é']


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)))
def test_numbers_come_back_as_they_were_said(values: list[float]) -> None:
    said = labels(*(("A", 0, {"size": value}) for value in values))
    found = label_events(said.lazy(), [("label.size", "float")]).collect()
    assert found["label.size"].to_list() == [float(value) for value in values]


def test_what_was_said_of_another_type_is_nothing() -> None:
    said = labels(("A", 0, {"size": "7"}), ("A", 1, {"size": True}), ("A", 2, {}), ("A", 3, {"size": 2**70}))
    kinds: list[tuple[str, Kind]] = [("label.size", "int")]
    assert label_events(said.lazy(), kinds).collect()["label.size"].to_list() == [None] * 4


def test_the_layout_has_the_fields_that_windows_are_of_and_no_others() -> None:
    assert label_layout(RESOURCE).fields == (("label.defect", "bool"), ("label.grade", "string"))
    assert [window.name for window in label_layout(RESOURCE).windows] == NAMES


class Kept:
    """A model's labels: the lake's table, and the online rows that follow it."""

    def __init__(self, resource: ContinualModel, redis_url: str, lake: Path) -> None:
        self.clock = ManualClock(START + timedelta(seconds=95))
        self.table = LakeTable(str(lake / "labels"), COLUMNS, pipeline="outcomes", partition_by=["available_date"])
        self.rows = LabelRows(resource, redis_url, self.table, self.clock)
        self.reader = OnlineReader(redis_url, resource.id, LABELS, layout=label_layout(resource))

    def take(self, frame: pl.DataFrame) -> None:
        """What the worker does on a flush."""
        self.table.append(frame, {TOPIC: int(frame["offset"].max())})  # type: ignore[arg-type]
        self.rows.settle()
        self.rows.apply(frame)

    def served(self, entities: Sequence[str]) -> list[list[Any]]:
        rows = self.reader.read(entities, to_ms(self.clock.now()))
        return [[row.values[name] for name in NAMES] for row in rows]

    def recomputed(self, entities: Sequence[str]) -> list[list[Any]]:
        asked = pl.DataFrame({"entity": list(entities)}).with_columns(
            at=pl.lit(self.clock.now(), pl.Datetime("us", "UTC"))
        )
        times = RESOURCE.spec.events
        found = scan_windows(
            asked,
            label_events(self.table.scan(), label_kinds(RESOURCE)),
            RESOURCE.spec.features.label_windows,
            allowed_lateness=times.allowed_lateness,
            max_future=times.max_future,
        )
        return [list(row) for row in found.select(NAMES).iter_rows()]


@pytest.fixture
def kept(redis_url: str, topic_prefix: str, tmp_path: Path) -> Kept:
    return Kept(resource_named(topic_prefix), redis_url, tmp_path)


@pytest.mark.redis
def test_what_is_served_is_what_training_computes(kept: Kept) -> None:
    frame = labels(*SAID)
    kept.take(frame[:2])
    kept.take(frame[1:])  # a batch that begins again, as after a crash, has each label once
    kept.take(frame)
    assert kept.served("ABC") == kept.recomputed("ABC")
    assert kept.served("ABC") == [[pytest.approx(1 / 3), 3, 'a"\\é'], [1.0, 1, None], [None, 0, None]]
    kept.clock.advance(3540)  # a tile of the hour is a minute: the first label is out of it
    assert kept.served("A") == kept.recomputed("A") == [[None, 2, 'a"\\é']]


@pytest.mark.redis
def test_rows_that_are_lost_are_filled_from_the_lake(kept: Kept, redis_url: str) -> None:
    kept.take(labels(*SAID))
    before = kept.served("AB")
    client = redis.Redis.from_url(redis_url)
    client.delete(*cast("list[bytes]", client.keys(f"{Keys(kept.rows._model, LABELS).slot}*")))
    assert [row.status for row in kept.reader.read("AB")] == [Status.REBUILDING] * 2
    kept.rows.settle()
    assert kept.served("AB") == before == kept.recomputed("AB")
    kept.rows.apply(labels(*SAID))  # they are there already
    assert kept.served("AB") == before
