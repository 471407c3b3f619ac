"""How many labelled events there are, counted in a real lake."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tidemill.control.labelled import LabelledCount, NewClassCount
from tidemill.control.state import Version
from tidemill.core.clock import to_ms
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.sources import Source
from tidemill.outcomes.tables import LABELS
from tidemill.testing.clock import ManualClock
from tidemill.testing.loop import example_resource

MODEL = "default.a"
START = datetime(2026, 1, 2, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
EVENTS: dict[str, pl.DataType] = {
    "source": pl.String(),
    "offset": pl.Int64(),
    "entity": pl.String(),
    "event_id": pl.String(),
    "event_time": TIME,
    "available_at": TIME,
}


class Lake:
    def __init__(self, folder: Path) -> None:
        self.uri = str(folder)
        self.clock = ManualClock(START)
        self.resource = example_resource(MODEL.removeprefix("default."))
        self.count = LabelledCount(self.uri, lambda: self.resource, self.clock)
        self.count_new = NewClassCount(self.uri, lambda: self.resource, self.clock)
        self._offsets = {"events": -1, "labels": -1}

    def events(self, *ids: str) -> None:
        self._append(
            "events",
            EVENTS,
            [{"entity": "s", "event_id": name, "event_time": START, "available_at": START} for name in ids],
        )

    def labels(self, *ids: str | None, at: datetime = START, refused: str | None = None, **said: str | None) -> None:
        value = None if refused else '{"defect": "ok"}'
        row = {"entity": "s", "available_at": at, "refused": refused, "value": value} | said
        self._append("labels", LABELS, [row | {"event_id": name} for name in ids])

    def counted(self, since: int | None = None, *, after_s: float = 5) -> int:
        self.clock.advance(after_s)
        return self.count(since)

    def new(self, *known: str, conflict: str = "last") -> dict[str, int]:
        """Events by class besides those that are known; the champion knows what is declared."""
        labels = {"fields": [{"name": "defect", "type": "class"}], "maturity": {"after": "0s"}, "conflict": conflict}
        prediction = {"type": "classification", "classes": list(known or ("ok", "scratch"))}
        self.clock.advance(2)
        self.resource = example_resource(MODEL.removeprefix("default."), labels=labels, prediction=prediction)
        return dict(self.count_new(Version(version="v1", artifact="", since=0)))

    def _append(self, name: str, schema: dict[str, pl.DataType], rows: list[dict[str, object]]) -> None:
        source = Source("c", name, 0)
        table = LakeTable(table_uri(self.uri, MODEL, name), schema, pipeline="tests")
        first = self._offsets[name] + 1
        self._offsets[name] += len(rows)
        filled = [
            dict.fromkeys(schema) | row | {"source": str(source), "offset": first + number}
            for number, row in enumerate(rows)
        ]
        table.append(pl.DataFrame(filled, schema=schema, orient="row"), {source: self._offsets[name]})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def test_a_pick_for_labelling_is_no_label(lake: Lake) -> None:
    lake.events("a", "b")
    lake.labels("a")
    lake.labels("b", value=None, reasons='{"control": 0.1}')
    assert lake.counted() == 1
    assert lake.counted(0) == 1


def test_an_empty_lake_has_none(lake: Lake) -> None:
    assert lake.counted() == 0
    assert lake.counted(0) == 0


def test_an_event_counts_once_both_it_and_a_label_are_there(lake: Lake) -> None:
    lake.labels("1", "2")
    assert lake.counted() == 0
    lake.events("1", "3")
    assert lake.counted() == 1
    lake.events("2")
    assert lake.counted() == 2


def test_an_event_counts_for_the_first_version_once_a_snapshot_would_take_it(lake: Lake) -> None:
    """The example's labels are mature after four seconds."""
    lake.events("1")
    lake.labels("1")
    assert lake.counted(after_s=2) == 0
    assert lake.counted(after_s=2) == 1


def test_an_event_that_is_labelled_twice_counts_once(lake: Lake) -> None:
    lake.events("1")
    lake.labels("1", "1")
    assert lake.counted() == 1


def test_refused_labels_and_labels_of_predictions_are_no_first_dataset(lake: Lake) -> None:
    lake.events("1")
    lake.labels("1", refused="class is no field")
    lake.labels(None)
    assert lake.counted() == 0


def test_later_only_labels_that_arrived_after_the_champions_data_count(lake: Lake) -> None:
    lake.labels("1", "2", at=START)
    lake.labels("3", None, at=START + timedelta(seconds=1))
    lake.labels("4", at=START + timedelta(seconds=2), refused="no")
    assert lake.counted(to_ms(START)) == 2


def dented(lake: Lake, *ids: str) -> None:
    lake.labels(*ids, value='{"defect": "dent"}', labeller="ann")


def test_events_of_a_class_that_the_champion_does_not_know_are_counted(lake: Lake) -> None:
    assert lake.new() == {}
    lake.events("1", "2", "3", "4")
    lake.labels("1", "2")
    assert lake.new() == {}
    dented(lake, "2", "3", "3")
    dented(lake, "elsewhere")
    assert lake.new() == {"dent": 2}
    assert lake.new("ok", "scratch", "dent") == {}


def test_a_new_class_is_counted_as_far_as_labellers_agree(lake: Lake) -> None:
    lake.events("1", "2", "3")
    dented(lake, "1", "2", "3")
    lake.labels("2", value='{"defect": "scratch"}', labeller="bob")
    assert lake.new(conflict="unanimous") == {"dent": 2}
    assert lake.new(conflict="last") == {"dent": 2}
    lake.labels("2", value='{"defect": "dent"}', labeller="bob")
    assert lake.new(conflict="unanimous") == {"dent": 3}


def test_it_counts_at_most_once_a_second(lake: Lake) -> None:
    lake.events("1")
    assert lake.counted() == 0
    lake.labels("1")
    assert lake.count(None) == 0
    assert lake.counted() == 1
    assert lake.count(0) == 1  # another question is answered at once
