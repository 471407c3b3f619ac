"""The worker on real Kafka and Redis."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis

from tidemill.core.clock import SystemClock, to_ms
from tidemill.core.errors import NotFound, TidemillError
from tidemill.events.kafka import RecordReader, RecordWriter
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.records import Label, Outcome, Prediction, Topics
from tidemill.features.connection import Keys
from tidemill.features.label_events import LABELS, label_layout
from tidemill.features.reader import OnlineReader
from tidemill.outcomes import worker
from tidemill.spec.model import ContinualModel
from tidemill.testing import eventually
from tidemill.testing.loop import example_resource

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

AFTER_MS = 400


@dataclass
class Factory:
    """One model's topics, from its producers' and readers' side."""

    resource: ContinualModel
    kafka: str
    redis: str
    lake: Path
    writer: RecordWriter
    sent: int = 0

    @property
    def topics(self) -> Topics:
        return Topics(self.resource.id, self.resource.events_topic, self.resource.labels_topic)

    def predict(self, answer: str = "ok", event_id: str | None = None, seq: int | None = None) -> str:
        prediction_id = f"p{self.sent}"
        prediction = Prediction(
            prediction_id=prediction_id,
            version="v1",
            entity="a",
            event_id=event_id,
            time=to_ms(SystemClock().now()),
            output={"class": answer},
            features={"brightness": 0.5},
            boot="b",
            seq=self.sent if seq is None else seq,
        )
        self.sent += 1
        self.writer.send(self.topics.predictions, prediction, key=prediction_id)
        self.writer.flush()
        return prediction_id

    def label(self, truth: str, **about: str) -> None:
        self.say(Label(value={"defect": truth}, labeller="check", **about))  # type: ignore[arg-type]

    def say(self, label: Label | bytes) -> None:
        self.writer.send(self.topics.labels, label, key="a")
        self.writer.flush()

    def outcomes(self) -> list[Outcome]:
        with RecordReader(self.kafka, self.topics.outcomes, Outcome) as reader:
            return [stamped.record for stamped in reader.rest()]

    def history(self, prediction_id: str) -> list[tuple[int, Any, float | None]]:
        mine = [outcome for outcome in self.outcomes() if outcome.prediction_id == prediction_id]
        return [(o.revision, None if o.label is None else o.label["defect"], o.loss) for o in mine]

    def until(self, prediction_id: str, *history: tuple[int, Any, float | None]) -> None:
        eventually(lambda: self.history(prediction_id) == list(history), 15, every_s=0.1)

    def table(self, name: str) -> pl.DataFrame:
        return LakeTable(table_uri(str(self.lake), self.resource.id, name)).scan().collect()

    def has(self, name: str, rows: int) -> bool:
        try:
            return self.table(name).height == rows
        except NotFound:
            return False

    @contextmanager
    def working(self) -> Iterator[threading.Thread]:
        """The worker runs until the block ends; what ends it earlier is raised."""
        stop = threading.Event()
        raised: list[BaseException] = []

        def work() -> None:
            try:
                worker.run(
                    self.resource,
                    kafka=self.kafka,
                    redis=self.redis,
                    lake=str(self.lake),
                    clock=SystemClock(),
                    stop=stop,
                )
            except TidemillError as error:
                raised.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield thread
        finally:
            stop.set()
            thread.join(60)
        assert not thread.is_alive()
        if raised:
            raise raised[0]


@pytest.fixture
def factory(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> Iterator[Factory]:
    resource = example_resource(
        topic_prefix,
        prediction={"type": "classification", "classes": ["ok", "scratch"]},
        labels={
            "fields": [{"name": "defect", "type": "class"}],
            "maturity": {"after": f"{AFTER_MS}ms", "horizon": "1h"},
        },
    )
    with RecordWriter(kafka) as writer:
        yield Factory(resource, kafka, redis_url, tmp_path / "lake", writer)


@pytest.fixture
def working(factory: Factory) -> Iterator[Factory]:
    with factory.working():
        eventually(lambda: _exists(factory), 30)
        yield factory


def _exists(factory: Factory) -> bool:
    try:
        factory.outcomes()
    except TidemillError:
        return False
    return True


def test_a_label_in_time_is_in_the_first_outcome(working: Factory) -> None:
    prediction = working.predict("scratch")
    working.label("ok", prediction_id=prediction)
    working.until(prediction, (0, "ok", 1.0))


def test_a_label_that_came_before_its_prediction_counts(working: Factory) -> None:
    working.label("scratch", entity="a", event_id="e1")
    prediction = working.predict("scratch", event_id="e1")
    working.until(prediction, (0, "scratch", 0.0))
    (outcome,) = working.outcomes()
    assert outcome.label_age_ms == 0


def test_without_a_label_there_is_one_outcome_all_the_same(working: Factory) -> None:
    prediction = working.predict()
    working.until(prediction, (0, None, None))


def test_a_late_label_and_a_changed_one_are_corrections(working: Factory) -> None:
    prediction = working.predict("ok", event_id="e1")
    working.until(prediction, (0, None, None))
    working.label("ok", entity="a", event_id="e1")
    working.until(prediction, (0, None, None), (1, "ok", 0.0))
    working.label("ok", entity="a", event_id="e1")
    working.label("scratch", entity="a", event_id="e1")
    working.until(prediction, (0, None, None), (1, "ok", 0.0), (2, "scratch", 1.0))


def test_one_label_is_about_every_prediction_of_its_event(working: Factory) -> None:
    first, second = working.predict("ok", event_id="e1"), working.predict("scratch", event_id="e1")
    working.label("ok", entity="a", event_id="e1")
    working.until(first, (0, "ok", 0.0))
    working.until(second, (0, "ok", 1.0))


def test_labels_that_fit_nothing_make_no_outcome_and_are_kept(working: Factory) -> None:
    working.label("ok", entity="a", event_id="never predicted")
    working.label("ok", prediction_id="of another model")
    working.label("", entity="a", event_id="e1")
    working.say(b'{"value": {"defect": "ok"}}')
    working.say(b"\xff")
    prediction = working.predict("ok", event_id="e1")
    working.until(prediction, (0, None, None))
    eventually(lambda: working.has("labels", 5), 15, every_s=0.2)
    labels = working.table("labels").sort("offset")
    assert labels["value"].to_list()[:2] == ['{"defect":"ok"}'] * 2
    assert [reason is None for reason in labels["refused"]] == [True, True, False, False, False]
    assert "a class of 1 to" in labels["refused"][2]
    assert "names neither" in labels["refused"][3]
    assert labels["original"][4] == b"\xff"
    assert labels["event_id"].to_list() == ["never predicted", None, None, None, None]
    assert len(working.outcomes()) == 1


def test_the_lake_follows_predictions_and_outcomes(working: Factory) -> None:
    prediction = working.predict("ok", event_id="e1")
    working.label("ok", entity="a", event_id="e1")
    working.until(prediction, (0, "ok", 0.0))
    eventually(lambda: working.has("outcomes", 1), 15, every_s=0.2)
    (outcome,) = working.table("outcomes").to_dicts()
    (predicted,) = working.table("predictions").to_dicts()
    assert (outcome["prediction_id"], outcome["label"], outcome["loss"]) == (prediction, '{"defect":"ok"}', 0.0)
    assert (predicted["output"], predicted["features"]) == ('{"class":"ok"}', '{"brightness":0.5}')
    assert outcome["predicted_at"] == predicted["predicted_at"]
    assert (outcome["eligible_at"] - outcome["predicted_at"]).total_seconds() * 1000 == AFTER_MS


def test_a_new_worker_goes_on_where_the_last_one_ended(factory: Factory) -> None:
    with factory.working():
        eventually(lambda: _exists(factory), 30)
        first = factory.predict("ok", event_id="e1")
        factory.until(first, (0, None, None))
    while_away = factory.predict("ok", event_id="e2")
    factory.label("ok", entity="a", event_id="e1")
    lost = factory.predict("ok", seq=4)
    with factory.working():
        factory.until(first, (0, None, None), (1, "ok", 0.0))
        factory.until(while_away, (0, None, None))
        factory.until(lost, (0, None, None))
    assert [outcome.lost for outcome in factory.outcomes()] == [0, 2, 2, 2]
    assert factory.table("predictions").height == 3


def test_an_emptied_redis_is_filled_again_from_the_log(factory: Factory) -> None:
    import redis

    with factory.working():
        eventually(lambda: _exists(factory), 30)
        predictions = [factory.predict("ok", event_id=f"e{n}") for n in range(5)]
        for prediction in predictions:
            factory.until(prediction, (0, None, None))
        client = redis.Redis.from_url(factory.redis)
        for key in client.scan_iter(f"{{{factory.resource.id}:*"):
            client.delete(key)
        client.close()
        factory.label("ok", entity="a", event_id="e3")
        factory.until(predictions[3], (0, None, None), (1, "ok", 0.0))
        new = factory.predict("ok", event_id="e3")
        factory.until(new, (0, "ok", 0.0))


def test_no_outcome_comes_before_it_is_eligible(working: Factory) -> None:
    with RecordReader(working.kafka, working.topics.outcomes, Outcome) as reader:
        seen = []
        for n in range(40):
            working.predict("ok", event_id=f"e{n}")
            seen += reader.poll(timeout_s=0.025)
        eventually(lambda: seen.extend(reader.poll(timeout_s=0.2)) or len(seen) >= 40, 15)  # type: ignore[func-returns-value]
    assert min(stamped.timestamp_ms - stamped.record.eligible_at for stamped in seen) >= 0


@pytest.fixture
def windowed(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> Iterator[Factory]:
    resource = example_resource(
        topic_prefix,
        events={"entity": {"name": "station"}, "timestamp": "at", "fields": [{"name": "x", "type": "float"}]},
        features={"windows": [{"name": "said", "agg": "count", "of": "label.defect", "over": ["1h"]}]},
        prediction={"type": "classification", "classes": ["ok", "scratch"]},
        labels={"fields": [{"name": "defect", "type": "class"}], "maturity": {"after": "1s", "horizon": "1h"}},
    )
    with RecordWriter(kafka) as writer:
        yield Factory(resource, kafka, redis_url, tmp_path / "lake", writer)


@pytest.mark.slow
def test_labels_are_in_their_windows_once_over_lives_and_a_lost_server(windowed: Factory) -> None:
    reader = OnlineReader(windowed.redis, windowed.resource.id, LABELS, layout=label_layout(windowed.resource))

    def said(count: int) -> bool:
        (row,) = reader.read(["a"], to_ms(SystemClock().now()))
        return row.values.get("said_1h") == count

    with windowed.working():
        eventually(lambda: _exists(windowed), 30)
        for event in ("e1", "e2"):
            windowed.label("ok", entity="a", event_id=event)
        eventually(lambda: said(2), 15)
    windowed.label("ok", entity="a", event_id="e3")
    with windowed.working():
        eventually(lambda: said(3), 15)
        client = redis.Redis.from_url(windowed.redis)
        client.delete(Keys(windowed.resource.id, LABELS).generation)
        eventually(lambda: said(3), 15)
        windowed.label("ok", entity="a", event_id="e4")
        eventually(lambda: said(4), 15)
