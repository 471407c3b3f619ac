"""Labels that come weeks late, with a real lake: what the index no longer has is found there."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tidemill.core.errors import Unavailable
from tidemill.core.ids import new_id
from tidemill.events.records import Label, Outcome, Prediction, encode
from tidemill.outcomes.archive import Archive
from tidemill.outcomes.late import Hot
from tidemill.outcomes.log import Channel
from tidemill.outcomes.session import Session
from tidemill.outcomes.tables import Tables
from tidemill.testing.loop import example_resource
from tidemill.testing.outcome_stores import MemoryIndex
from tidemill.testing.outcomes import Faults, MemoryClock, MemoryLog, MemoryTopics

HOUR_MS = 3_600_000
START_MS = 1_750_000_000_000


class Mill:
    """A worker whose days pass in steps; its index forgets as Redis does."""

    def __init__(self, lake: Path, absent: str = "unknown", conflict: str = "last") -> None:
        self.resource = example_resource(
            prediction={"type": "classification", "classes": ["ok", "scratch"]},
            labels={
                "fields": [{"name": "defect", "type": "class"}],
                "maturity": {"after": "30m", "horizon": "14d", "absent": absent},
                "conflict": conflict,
            },
        )
        self.lake = str(lake)
        self.topics = MemoryTopics()
        self.topics.now = START_MS
        self.clock = MemoryClock(self.topics)
        self.faults = Faults()
        self.index = MemoryIndex(self.faults, lambda: self.topics.now, Hot.of(self.resource.spec.labels))
        self.alive: Session | None = None
        self.sent = 0

    def predict(self, event_id: str | None = None, output: str = "ok") -> str:
        prediction_id = new_id(self.clock.now())
        prediction = Prediction(
            prediction_id=prediction_id,
            version="v1",
            entity="a",
            event_id=event_id,
            time=self.topics.now,
            output={"class": output},
            boot="b",
            seq=self.sent,
            sample=0.25,
            cohort="blue",
        )
        self.sent += 1
        self.topics.append(Channel.PREDICTIONS, prediction)
        return prediction_id

    def label(self, truth: str, labeller: str = "", **about: Any) -> None:
        self.topics.append(Channel.LABELS, encode(Label(value={"defect": truth}, labeller=labeller, **about)))

    def work(self, steps: int = 6) -> None:
        """Some steps, each ten minutes: whatever is due is done and written."""
        for _ in range(steps):
            self.topics.now += HOUR_MS // 6
            if self.alive is None:
                self.alive = Session(
                    self.resource, MemoryLog(self.topics, self.faults), self.index, Tables(self.lake, "m"), self.clock
                )
            try:
                self.alive.step()
            except Unavailable:
                self.alive = None

    def days(self, count: int) -> None:
        """Days with some traffic, so that the index is not left alone."""
        for _ in range(2 * count):
            self.topics.now += 23 * HOUR_MS // 2
            self.predict()
            self.work(3)

    def said(self, prediction: str) -> list[tuple[int, Any, bool]]:
        mine = [outcome for outcome in self.topics.outcomes() if outcome.prediction_id == prediction]
        return [(of.revision, None if of.label is None else of.label["defect"], of.assumed) for of in mine]

    def last(self, prediction: str) -> Outcome:
        return [outcome for outcome in self.topics.outcomes() if outcome.prediction_id == prediction][-1]

    def forgot(self, prediction: str) -> bool:
        return next(self.index.recall([prediction]))[0] is None


def test_a_label_by_prediction_lands_after_30_days(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    prediction = mill.predict()
    mill.work()
    mill.label("ok", prediction_id=prediction)
    mill.days(30)
    assert mill.forgot(prediction)
    mill.label("scratch", prediction_id=prediction)
    mill.work()
    assert mill.said(prediction) == [(0, None, False), (1, "ok", False), (2, "scratch", False)]
    outcome = mill.last(prediction)
    assert (outcome.cohort, outcome.sample, outcome.loss) == ("blue", 0.25, 1.0)
    assert timedelta(days=30) <= timedelta(milliseconds=outcome.label_age_ms or 0) <= timedelta(days=31)


def test_a_label_by_event_lands_on_all_its_predictions_after_30_days(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    first, second = mill.predict("e1"), mill.predict("e1", "scratch")
    other = mill.predict("e2")
    mill.days(30)
    mill.label("scratch", entity="a", event_id="e1")
    mill.work()
    assert mill.said(first) == mill.said(second) == [(0, None, False), (1, "scratch", False)]
    assert mill.said(other) == [(0, None, False)]


def test_a_label_before_and_one_after_it_left_the_index_are_weighed_together(tmp_path: Path) -> None:
    mill = Mill(tmp_path, conflict="unanimous")
    prediction = mill.predict("e1")
    mill.label("ok", "anna", entity="a", event_id="e1")
    mill.days(30)
    mill.label("scratch", "ben", entity="a", event_id="e1")
    mill.work()
    assert mill.said(prediction) == [(0, "ok", False), (1, None, False)]
    assert mill.last(prediction).disputed


def test_what_was_taken_for_the_negative_at_the_horizon_is_corrected_by_a_label_30_days_late(tmp_path: Path) -> None:
    mill = Mill(tmp_path, absent="negative")
    prediction, labelled = mill.predict(), mill.predict()
    mill.label("scratch", prediction_id=labelled)
    mill.days(13)
    assert mill.said(prediction) == [(0, None, False)]
    mill.days(17)
    assert mill.said(prediction) == [(0, None, False), (1, "ok", True)]
    assert mill.forgot(prediction)
    mill.label("ok", prediction_id=prediction)
    mill.work()
    assert mill.said(prediction) == [(0, None, False), (1, "ok", True), (2, "ok", False)]
    assert mill.said(labelled) == [(0, "scratch", False)]


@pytest.mark.parametrize(
    ("effect", "nth"),
    [("know", 1), ("restore", 1), *((effect, nth) for effect in ("send", "hear", "emit", "commit") for nth in (1, 2))],
)
def test_a_crash_while_a_late_label_lands_neither_loses_nor_doubles_it(tmp_path: Path, effect: str, nth: int) -> None:
    mill = Mill(tmp_path)
    prediction = mill.predict("e1")
    mill.days(6)
    assert mill.forgot(prediction)
    asked = 0

    def fails(name: str) -> bool:
        nonlocal asked
        asked += name == effect
        return name == effect and asked == nth

    mill.faults.fails = fails
    mill.label("scratch", entity="a", event_id="e1")
    mill.label("ok", prediction_id=prediction)
    mill.work(12)
    assert asked >= nth
    found = mill.said(prediction)
    assert [revision for revision, _, _ in found] == [*range(len(found))]
    assert (found[0], found[-1][1]) == ((0, None, False), "ok")


def test_a_label_that_is_still_searched_for_when_the_worker_dies_is_taken_in_again(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    prediction = mill.predict("e2")
    mill.days(6)
    assert mill.alive is not None
    mill.label("ok", entity="a", event_id="e1")
    mill.alive.step()  # a search: the next one is due in a second
    mill.label("scratch", entity="a", event_id="e2")
    mill.alive.step()
    mill.alive.flush()
    mill.alive = None
    mill.work()
    assert mill.said(prediction) == [(0, None, False), (1, "scratch", False)]


def counting(search: Callable[..., Any], searches: list[str]) -> Callable[..., Any]:
    def counted(*asked: Any) -> Any:
        searches.append(search.__name__)
        return search(*asked)

    return counted


def test_labels_of_what_was_never_predicted_are_searched_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill = Mill(tmp_path)
    mill.days(6)
    searches: list[str] = []
    for name in ("of_events", "recall"):
        monkeypatch.setattr(Archive, name, counting(getattr(Archive, name), searches))
    for _ in range(5):
        mill.label("ok", entity="a", event_id="never")
        mill.label("ok", prediction_id="of another model")
        mill.label("ok", prediction_id=new_id(mill.clock.now()))  # young: it would be in the index
        mill.work(2)
    assert sorted(searches) == ["of_events", "recall"]


def test_where_nothing_is_old_nothing_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mill = Mill(tmp_path)
    mill.predict("e1")
    mill.work()
    monkeypatch.setattr(Archive, "of_events", None)
    monkeypatch.setattr(Archive, "recall", None)
    mill.label("ok", entity="a", event_id="not yet")
    mill.label("ok", prediction_id="not yet")
    mill.work()


def test_resolved_labels_are_in_the_lake_once_whatever_is_read_again(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    predictions = [mill.predict() for _ in range(3)]
    for prediction in predictions:
        mill.label("ok", prediction_id=prediction)
    mill.work()
    mill.alive = None
    mill.label("scratch", prediction_id=predictions[0])
    mill.work()
    resolved = Tables(mill.lake, "m").resolved.table.scan().collect()
    assert sorted(resolved["prediction_id"]) == sorted([*predictions, predictions[0]])
    assert resolved.filter(pl.col("through").is_null()).is_empty()
