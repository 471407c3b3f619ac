"""Two versions side by side: how right each is in every slice, and what they answered differently, copies too."""

from pathlib import Path
from typing import Any

import pytest
from tests.dashboard.test_queries import NOON, RESOURCE, outcome, prediction, written

from tidemill.core.clock import to_ms
from tidemill.core.errors import NotFound
from tidemill.dashboard.copies import newest_copies
from tidemill.dashboard.queries.differing import Differing, differing
from tidemill.dashboard.queries.sides import Side, slices_beside
from tidemill.events.cluster import ensure_topics
from tidemill.events.kafka import RecordWriter
from tidemill.events.records import Prediction, ServingCount
from tidemill.outcomes.tables import OUTCOMES, PREDICTIONS


def copy(number: int, answer: str, **more: Any) -> Prediction:
    """What v2 answered to a copy of the request about event `number`."""
    told = {
        "version": "v2",
        "event_id": f"e{number}",
        "entity": "north" if number % 2 else "south",
        "request_id": f"r{number}",
    } | more
    output = {"class": answer, "confidence": 0.6}
    at = to_ms(NOON) + number
    return Prediction(prediction_id=f"c{number}", output=output, time=at, boot="b", seq=number, **told)


@pytest.fixture
def lake(tmp_path: Path) -> str:
    """Five answers of v1 to users, that to p3 judged."""
    rows = [prediction(number, "ok", 0.9, request_id=f"r{number}") for number in range(5)]
    written(tmp_path, "predictions", PREDICTIONS, rows)
    written(tmp_path, "outcomes", OUTCOMES, [outcome(3, "scratch", 1.0)])
    return str(tmp_path)


def test_events_that_two_versions_answered_differently_are_found(tmp_path: Path) -> None:
    rows = [prediction(number, "ok", 0.9) for number in range(5)]
    for number, answer in ((1, "ok"), (2, "scratch"), (3, "scratch")):
        rows.append(prediction(number, answer, 0.6, version="v2", prediction_id=f"q{number}"))
    rows.append(prediction(2, "scratch", 0.6, version="v2", prediction_id="q9", entity="elsewhere"))
    written(tmp_path, "predictions", PREDICTIONS, rows)
    found = differing(str(tmp_path), RESOURCE, "v1", "v2")
    assert (found.both, found.differ, found.copies) == (3, 2, 0)
    assert [(one.one.prediction_id, one.other.prediction_id) for one in found.pairs] == [("p3", "q3"), ("p2", "q2")]
    assert [(one.one.answer, one.other.answer) for one in found.pairs] == [("ok", "scratch")] * 2
    assert differing(str(tmp_path), RESOURCE, "v1", "v7") == Differing(0, 0, ())


def test_nothing_differs_before_there_is_a_lake(tmp_path: Path) -> None:
    assert differing(str(tmp_path), RESOURCE, "v1", "v2") == Differing(0, 0, ())


def test_an_answer_to_a_copy_stands_beside_the_one_that_the_user_got_and_its_label(lake: str) -> None:
    copies = [copy(1, "ok"), copy(2, "scratch"), copy(3, "scratch"), copy(4, "scratch", version="v9")]
    found = differing(lake, RESOURCE, "v1", "v2", copies=copies)
    assert (found.both, found.differ, found.copies) == (3, 2, 3)
    first, _ = found.pairs
    assert (first.one.prediction_id, first.other.prediction_id, first.is_copy) == ("p3", "c3", True)
    assert (first.one.label, first.other.answer, first.other.confidence, first.other.label) == (
        "scratch",
        "scratch",
        0.6,
        None,
    )
    turned = differing(lake, RESOURCE, "v2", "v1", copies=copies)
    assert [(one.one.answer, one.other.answer) for one in turned.pairs] == [("scratch", "ok")] * 2


def test_requests_without_events_are_told_apart_by_their_ids_where_they_have_one_row(tmp_path: Path) -> None:
    asked = [("r0", "north"), ("r1", "north"), ("r1", "north"), ("r2", "south")]
    rows = [
        prediction(number, "ok", 0.9, event_id=None, request_id=request, entity=entity)
        for number, (request, entity) in enumerate(asked)
    ]
    written(tmp_path, "predictions", PREDICTIONS, rows)
    copies = [
        copy(number, "scratch", event_id=None, request_id=request, entity=entity)
        for number, (request, entity) in enumerate(asked)
    ]
    found = differing(str(tmp_path), RESOURCE, "v1", "v2", copies=copies)
    assert [(one.one.prediction_id, one.other.prediction_id) for one in found.pairs] == [("p3", "c3"), ("p0", "c0")]


@pytest.mark.kafka
def test_the_newest_copies_are_read_from_their_log_without_its_counts(kafka: str, topic_prefix: str) -> None:
    topic = f"{topic_prefix}.copies"
    with pytest.raises(NotFound):
        newest_copies(kafka, topic, 2)
    ensure_topics(kafka, {topic: 1})
    assert newest_copies(kafka, topic, 2) == []
    with RecordWriter(kafka) as writer:
        for number in range(4):
            writer.send(topic, copy(number, "ok"), key="north")
        writer.send(topic, ServingCount(boot="b", answered=4, logged=4, settled=4, every_ms=1000, capacity=10))
        writer.flush()
    assert [one.prediction_id for one in newest_copies(kafka, topic, 3)] == ["c2", "c3"]


def test_two_versions_are_compared_over_all_and_slice_by_slice(tmp_path: Path) -> None:
    rows = [
        outcome(number, "ok", float(wrong), version=version, entity=entity)
        for number, (version, entity, wrong) in enumerate(
            [("v1", "north", 0)] * 3 + [("v1", "south", 1)] + [("v2", "north", 1)] * 2 + [("v2", "east", 0)]
        )
    ]
    rows.append(outcome(0, "scratch", 1.0, revision=1, version="v1", entity="north"))
    written(tmp_path, "outcomes", OUTCOMES, rows)
    found = slices_beside(str(tmp_path), RESOURCE, "v1", "v2")
    shown = [(one.by, one.name, _told(one.one), _told(one.other)) for one in found]
    assert shown == [
        ("", "", (4, 0.5), (3, pytest.approx(2 / 3))),
        ("station", "north", (3, pytest.approx(1 / 3)), (2, 1.0)),
        ("station", "east", None, (1, 0.0)),
        ("station", "south", (1, 1.0), None),
    ]
    assert all(side.low <= (side.error or 0) <= side.high for one in found for side in (one.one, one.other) if side)


def _told(side: Side | None) -> tuple[int, float | None] | None:
    return None if side is None else (side.outcomes, side.error)


def test_versions_without_outcomes_have_no_slices(lake: str, tmp_path: Path) -> None:
    assert slices_beside(str(tmp_path / "nowhere"), RESOURCE, "v1", "v2") == ()
    (every, *_) = slices_beside(lake, RESOURCE, "v1", "v9")
    assert every.other is None
