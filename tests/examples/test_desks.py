"""The desks of the phone example, and what the report finds of them in a lake: against a truth that is known."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from inspection.desks import DESKS, DIRTY, WRONG, Checked, check, draw_checked, labels_of
from tests.labels.lake import LabelLake

from tidemill.core.clock import to_ms
from tidemill.events.records import Label, Prediction, encode
from tidemill.labels.agreement import agreement
from tidemill.labels.likely_errors import weigh
from tidemill.labels.parse import read_label
from tidemill.labels.words import Said, judged_field, read_said
from tidemill.spec.load import load
from tidemill.spec.model import ContinualModel
from tidemill.testing.clock import ManualClock

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
COUNT = 600


@pytest.fixture(scope="module")
def checked() -> list[Checked]:
    return draw_checked(1, COUNT)


def test_two_desks_call_dirt_a_scratch_and_all_slip_now_and_then(checked: list[Checked]) -> None:
    clean = [one for one in checked if one.picture.defect == "ok"]
    dirty = [one for one in clean if one.dirt]
    assert abs(len(dirty) / len(clean) - DIRTY) < 0.06
    called = {desk: [one.said[desk] == "scratch" for one in dirty if desk in one.said] for desk in DESKS}
    assert all((np.mean(said) > 0.9) == (desk in WRONG) for desk, said in called.items())
    slips = [defect != one.picture.defect for one in checked if not one.dirt for defect in one.said.values()]
    assert 0 < np.mean(slips) < 0.03
    assert {len(one.said) for one in checked} == {4}


def test_the_same_seed_gives_the_same_phones_and_the_same_words() -> None:
    assert draw_checked(5, 12) == draw_checked(5, 12)
    assert draw_checked(5, 12) != draw_checked(6, 12)


@pytest.fixture
def resource(example: Path) -> ContinualModel:
    return load(example / "model.yaml")


def enter(lake: str, resource: ContinualModel, checked: Iterable[Checked], right: float | None) -> None:
    """Labels and answers as they stand in the lake; the model is `right` so often, or has not answered."""
    rng, now = np.random.default_rng(7), to_ms(NOON)
    labels: list[Label] = []
    predictions: list[Prediction] = []
    for number, one in enumerate(checked):
        labels += labels_of(one, f"e{number}", now)
        if right is None:
            continue
        truth, other = ("ok", "scratch") if one.picture.defect == "ok" else ("scratch", "ok")
        answer = truth if rng.random() < right else other
        predictions.append(
            Prediction(
                prediction_id=f"p{number}",
                version="v1",
                entity=one.picture.station,
                time=now,
                output={"class": answer, "confidence": float(rng.uniform(0.6, 0.99))},
                event_id=f"e{number}",
                boot="b",
                seq=number,
            )
        )
    LabelLake(Path(lake), resource, NOON).enter(labels, predictions)


def said_in(lake: str, resource: ContinualModel) -> Said:
    return read_said(lake, resource, judged_field(resource), since=NOON - timedelta(days=1))


def found_and_true(said: Said, checked: list[Checked]) -> tuple[set[str], set[str]]:
    """Pictures with a likely error, and those with an error."""
    weighed = weigh(said, ("ok", "scratch"), most=10_000)
    assert len(weighed.likely_errors) == weighed.contradicted
    return {str(one.event_id) for one in weighed.likely_errors}, {
        f"e{number}" for number, one in enumerate(checked) if one.wrong
    }


@pytest.mark.parametrize(
    ("right", "precision", "recall"),
    [(0.93, 0.97, 0.97), (None, 0.97, 0.97)],
    ids=["with a model that is right in 93 %", "with labels alone"],
)
def test_the_report_finds_which_desks_and_which_pictures(
    tmp_path: Path,
    resource: ContinualModel,
    checked: list[Checked],
    right: float | None,
    precision: float,
    recall: float,
) -> None:
    enter(str(tmp_path), resource, checked, right)
    said = said_in(str(tmp_path), resource)
    weighed = weigh(said, ("ok", "scratch"))
    assert set(list(weighed.reliability)[:2]) == WRONG
    assert weighed.items == COUNT
    assert weighed.with_prediction == (0 if right is None else COUNT)
    found, true = found_and_true(said, checked)
    assert len(found & true) / len(found) >= precision
    assert len(found & true) / len(true) >= recall


def test_the_report_asks_the_question_in_words(
    tmp_path: Path, resource: ContinualModel, checked: list[Checked]
) -> None:
    enter(str(tmp_path), resource, checked, None)
    report = agreement(said_in(str(tmp_path), resource), ("ok", "scratch"), 0.8, noun="pictures")
    assert report.trusted is False
    assert report.verdict.startswith("not trusted: alpha 0.")
    (mixed,) = report.mixed_up
    assert "desk-2 and desk-4 say scratch" in mixed.question
    assert "desk-1, desk-3 and desk-5 say ok" in mixed.question
    disputed = sum(len(set(one.said.values())) == 2 for one in checked)
    assert mixed.items == disputed
    assert f"{disputed} pictures" in mixed.question
    assert set(mixed.examples[0].said.values()) == {"ok", "scratch"}


def test_every_label_of_the_desks_is_one_that_the_resource_takes(
    resource: ContinualModel, checked: list[Checked]
) -> None:
    fields, classes = resource.spec.labels.fields, resource.spec.prediction.classes
    for number, one in enumerate(checked[:60]):
        for label in labels_of(one, f"e{number}", to_ms(NOON)):
            assert read_label(encode(label), fields, classes).labeller in DESKS


def test_boxes_of_the_desks_overlap(tmp_path: Path, resource: ContinualModel, checked: list[Checked]) -> None:
    enter(str(tmp_path), resource, checked, None)
    field = judged_field(resource, "box")
    said = read_said(str(tmp_path), resource, field, since=NOON - timedelta(days=1))
    report = agreement(said, ("ok", "scratch"), 0.8)
    assert report.overlap is not None
    assert report.overlap > 0.75
    assert (report.alpha, report.trusted) == (None, None)
    assert "minAgreement is of alpha" in report.verdict


def test_phones_and_labels_of_the_desks_go_to_their_topics(resource: ContinualModel, checked: list[Checked]) -> None:
    class Sent:
        def __init__(self) -> None:
            self.records: list[tuple[str, bytes]] = []

        def send(self, topic: str, key: str, value: bytes) -> None:
            self.records.append((topic, value))

        def flush(self, deadline_s: float) -> None:
            assert deadline_s > 0

    delivery: Any = Sent()
    check(resource, checked[:5], delivery=delivery, inspector=None, clock=ManualClock(NOON))
    topics = [topic for topic, _ in delivery.records]
    assert topics.count(resource.events_topic) == 5
    assert topics.count(resource.labels_topic) == 20
    events = {msgspec.json.decode(value)["event_id"] for topic, value in delivery.records if "events" in topic}
    labels = [msgspec.json.decode(value) for topic, value in delivery.records if "labels" in topic]
    assert {label["event_id"] for label in labels} == events
