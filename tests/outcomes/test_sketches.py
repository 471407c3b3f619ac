"""Sketches of predictions and labels: what they say, and that each range is told once whatever crashes."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest
from tests.outcomes.test_worker import Factory

from tidemill.core.clock import to_ms
from tidemill.events import parts as parts_module
from tidemill.events import tallies
from tidemill.events.cells import by_name
from tidemill.events.kafka import RecordReader, RecordWriter
from tidemill.events.lake import LakeTable, Span
from tidemill.events.records import FeatureSketch, Sketch, Topics, encode
from tidemill.events.sources import Source
from tidemill.outcomes.sketches import Kind, Sketches, label_answers, prediction_answers, sketches
from tidemill.outcomes.tables import Tables
from tidemill.spec.model import ContinualModel
from tidemill.testing import eventually
from tidemill.testing.loop import example_resource

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
TICK = to_ms(NOON) // 1_000
SOURCE = Source("c", "predictions", 0)


def resource(**spec: Any) -> ContinualModel:
    given = {
        "prediction": {"type": "classification", "classes": ["ok", "scratch"]},
        "labels": {"fields": [{"name": "defect", "type": "class"}, {"name": "depth", "type": "float"}]},
        "triggers": {"drift": {"tolerance": 0.2, "every": "1s"}},
    }
    return example_resource("phones", **{**given, **spec})


def predictions(rows: Sequence[tuple[str, str, float, str, float | None]]) -> pl.DataFrame:
    """Of (entity, version, seconds after noon, class, confidence): offsets from 0; they arrive 100 ms later."""
    return pl.DataFrame(
        {
            "source": [str(SOURCE)] * len(rows),
            "offset": list(range(len(rows))),
            "entity": [row[0] for row in rows],
            "version": [row[1] for row in rows],
            "predicted_at": [NOON + timedelta(seconds=row[2]) for row in rows],
            "available_at": [NOON + timedelta(seconds=row[2] + 0.1) for row in rows],
            "output": [encode_answer(row[3], row[4]) for row in rows],
        }
    )


def encode_answer(said: str, confidence: float | None) -> str:
    return f'{{"class":"{said}"}}' if confidence is None else f'{{"class":"{said}","confidence":{confidence}}}'


def told(rows: pl.DataFrame, of: ContinualModel | None = None, span: Span | None = None) -> list[Sketch]:
    model = of or resource()
    kind = Kind(model, LakeTable("nowhere"), prediction_answers(model))
    return sketches(kind, SOURCE, span or Span(-1, rows.height - 1), rows)


def test_predictions_are_counted_by_version_and_of_a_number_the_first_row_votes() -> None:
    (sketch,) = told(
        predictions(
            [
                ("a", "r1", 0.1, "ok", 0.75),
                ("a", "r1", 0.2, "scratch", 0.5),
                ("a", "r2", 0.3, "ok", None),
                ("b", "r1", 1.5, "ok", 0.25),
            ]
        )
    )
    assert (sketch.of, sketch.votes, sketch.first_offset, sketch.last_offset) == ("predictions", {}, 0, 3)
    assert sketch.max_event_time == to_ms(NOON) + 1_500
    assert by_name(sketch.answers["r1"][TICK])["a"] == {
        "prediction.class": FeatureSketch(count=2, values={"ok": 1, "scratch": 1}),
        "prediction.confidence": FeatureSketch(count=1, total=0.75),
    }
    assert by_name(sketch.answers["r1"][TICK + 1])["b"]["prediction.confidence"] == FeatureSketch(count=1, total=0.25)
    assert by_name(sketch.answers["r2"][TICK])["a"]["prediction.confidence"] == FeatureSketch(count=0, missing=1)


def test_a_prediction_that_arrived_too_late_has_no_vote_and_tells_how_far_the_source_is() -> None:
    rows = predictions([("a", "r1", 0.1, "ok", 0.5)]).with_columns(available_at=pl.lit(NOON + timedelta(hours=3)))
    (sketch,) = told(rows)
    assert sketch.answers == {}
    assert sketch.max_event_time == to_ms(NOON) + 100


def test_a_regression_is_watched_by_its_value() -> None:
    labels = {"fields": [{"name": "demand", "type": "float"}]}
    model = resource(prediction={"type": "regression", "tolerance": 0.1}, labels=labels)
    rows = predictions([("a", "r1", 0.1, "x", None)]).with_columns(output=pl.lit('{"value":1.5}'))
    (sketch,) = told(rows, model)
    assert by_name(sketch.answers["r1"][TICK])["a"] == {"prediction.value": FeatureSketch(count=1, total=1.5)}


def test_labels_stand_in_the_tick_of_their_arrival_and_without_an_entity_share_one() -> None:
    model = resource()
    rows = pl.DataFrame(
        {
            "source": ["s"] * 4,
            "offset": [0, 1, 2, 3],
            "entity": ["a", "a", None, "a"],
            "available_at": [NOON] * 4,
            "value": ['{"defect":"ok","depth":2}', '{"defect":"new"}', '{"defect":"ok"}', None],
        }
    )
    (sketch,) = sketches(Kind(model, LakeTable("nowhere"), label_answers(model)), SOURCE, Span(-1, 3), rows)
    assert sketch.of == "labels"
    assert {tick: by_name(votes) for tick, votes in sketch.votes.items()} == {
        TICK: {
            "": {
                "label.defect": FeatureSketch(count=1, values={"ok": 1}),
                "label.depth": FeatureSketch(count=0, missing=1),
            },
            "a": {
                "label.defect": FeatureSketch(count=2, values={"new": 1, "ok": 1}),
                "label.depth": FeatureSketch(count=1, total=2.0),
            },
        }
    }


def test_of_many_entities_those_below_one_bound_are_kept_of_all_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "MOST_ENTITIES", 8)
    rows = [(f"e{number}", f"r{number % 2}", 0.1, "ok", 0.5) for number in range(100)]
    (sketch,) = told(predictions(rows))
    (bound,) = {votes[TICK].kept for votes in sketch.answers.values()}
    kept = {entity for votes in sketch.answers.values() for entity in votes[TICK].entities}
    places = tallies.places([f"e{number}" for number in range(100)], TICK)
    assert kept == {name for name, at in places.items() if at < bound}
    assert 1 <= len(kept) <= 16


def test_a_large_sketch_is_written_in_parts_that_are_ranges_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts_module, "MAX_SKETCH_BYTES", 2_000)
    rows = predictions([(f"e{number}", "r1", number, "ok", 0.5) for number in range(100)])
    parts = told(rows)
    assert len(parts) > 4
    assert [part.first_offset for part in parts] == [0, *(part.last_offset + 1 for part in parts[:-1])]
    assert parts[-1].last_offset == 99
    assert all(len(encode(part)) <= 2_000 for part in parts)
    assert sum(len(part.answers["r1"]) for part in parts) == 100


class Log:
    """A writer that keeps what it is given, and can fail."""

    def __init__(self) -> None:
        self.sent: list[Sketch] = []
        self.fails = False

    def send(self, topic: str, record: Sketch, *, key: str) -> None:
        if self.fails:
            raise KeyboardInterrupt
        self.sent.append(record)

    def flush(self, timeout_s: float) -> None: ...


class Life:
    """One life of a worker: its tables, and the sketches that it writes."""

    def __init__(self, lake: Path, log: Log) -> None:
        model = resource()
        self.tables = Tables(str(lake), "a.b")
        self.sketches = Sketches(
            model, self.tables.predictions.table, self.tables.labels.table, cast("RecordWriter", log)
        )
        self.tables.tell(self.sketches, [SOURCE])

    def take(self, first: int, last: int) -> None:
        """Predictions at these offsets, a second apart."""
        offsets = list(range(first, last + 1))
        times = [to_ms(NOON) + 1_000 * offset for offset in offsets]
        columns: dict[str, list[Any]] = {
            "prediction_id": [str(offset) for offset in offsets],
            "version": ["r1"] * len(offsets),
            "entity": ["a"] * len(offsets),
            "predicted_at": times,
            "available_at": times,
            "output": [encode_answer("ok", 0.5)] * len(offsets),
        }
        self.tables.predictions.add(SOURCE, last, offsets, columns)
        self.tables.flush()


def ranges(log: Log) -> list[tuple[int, int, int]]:
    """First and last offset and number of votes, without those that the reader drops."""
    found, upto = [], -1
    for sketch in log.sent:
        if sketch.last_offset > upto:
            found.append((sketch.first_offset, sketch.last_offset, len(sketch.answers.get("r1", {}))))
            upto = sketch.last_offset
    return found


def test_each_commit_is_one_range_with_its_rows(tmp_path: Path) -> None:
    log = Log()
    life = Life(tmp_path, log)
    life.take(0, 4)
    life.take(3, 9)  # two of them were taken before
    assert ranges(log) == [(0, 4, 5), (5, 9, 5)]
    assert len(log.sent) == 2


def test_a_crash_between_lake_and_sketch_loses_no_range(tmp_path: Path) -> None:
    log = Log()
    life = Life(tmp_path, log)
    life.take(0, 4)
    log.fails = True
    with pytest.raises(KeyboardInterrupt):
        life.take(5, 9)
    log.fails = False
    again = Life(tmp_path, log)
    again.take(3, 12)
    assert ranges(log) == [(0, 4, 5), (5, 9, 5), (10, 12, 3)]


def test_of_two_workers_each_tells_the_others_range_before_its_own(tmp_path: Path) -> None:
    one, other = Log(), Log()
    first, second = Life(tmp_path, one), Life(tmp_path, other)
    first.take(0, 4)
    one.fails = True
    with pytest.raises(KeyboardInterrupt):
        first.take(5, 9)
    second.take(5, 14)
    both = Log()
    both.sent = [*one.sent, *other.sent]
    assert ranges(both) == [(0, 4, 5), (5, 9, 5), (10, 14, 5)]


def test_what_is_not_watched_gives_no_sketch(tmp_path: Path) -> None:
    log, tables = Log(), Tables(str(tmp_path), "a.b")
    quiet = resource(triggers={"drift": {"watch": ["inputs", "errors"]}})
    given = Sketches(quiet, tables.predictions.table, tables.labels.table, cast("RecordWriter", log))
    tables.tell(given, [SOURCE])
    life = Life.__new__(Life)
    life.tables, life.sketches = tables, given
    life.take(0, 4)
    assert log.sent == []


@pytest.mark.kafka
def test_the_worker_tells_what_was_predicted_and_labelled(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    model = example_resource(
        topic_prefix,
        prediction={"type": "classification", "classes": ["ok", "scratch"]},
        labels={"fields": [{"name": "defect", "type": "class"}]},
        triggers={"drift": {"tolerance": 0.2, "every": "1s"}},
    )
    topics = Topics(model.id, model.events_topic, model.labels_topic)
    with RecordWriter(kafka) as writer:
        factory = Factory(model, kafka, redis_url, tmp_path / "lake", writer)
        with factory.working():
            eventually(lambda: exists(kafka, topics.predictions), 30)
            factory.label("scratch", prediction_id=factory.predict("scratch"))
            eventually(lambda: {sketch.of for sketch in read(kafka, topics)} == {"predictions", "labels"}, 30)
    (predicted,) = [sketch for sketch in read(kafka, topics) if sketch.of == "predictions"]
    (votes,) = predicted.answers.values()
    assert [next(iter(by_name(of).values()))["prediction.class"].values for of in votes.values()] == [{"scratch": 1}]
    (said,) = [sketch for sketch in read(kafka, topics) if sketch.of == "labels"]
    assert [by_name(of)[""]["label.defect"].values for of in said.votes.values()] == [{"scratch": 1}]


def exists(kafka: str, topic: str) -> bool:
    try:
        RecordReader(kafka, topic, Sketch).close()
    except Exception:
        return False
    return True


def read(kafka: str, topics: Topics) -> list[Sketch]:
    """By the reader's rule: a session that had to begin anew, as where Redis was slow, wrote its last ranges again."""
    with RecordReader(kafka, topics.sketches, Sketch) as reader:
        found = [stamped.record for stamped in reader.rest()]
    return list({(sketch.source, sketch.last_offset): sketch for sketch in found}.values())
