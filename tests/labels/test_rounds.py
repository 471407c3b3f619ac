"""The rounds of the queue in a lake: each prediction is considered once; what is picked waits for its label."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.labels.lake import LabelLake

from tidemill.core.clock import to_ms
from tidemill.labels import rounds
from tidemill.labels.queue import DISPUTE, FIRST, VERSIONS, Picks, pick
from tidemill.labels.rounds import Round, read_round, records_of
from tidemill.labels.waiting import Waiting, waiting
from tidemill.labels.words import judged_field
from tidemill.testing.loop import example_resource

START = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> LabelLake:
    return LabelLake(tmp_path, example_resource("a", labels={"fields": [{"name": "defect", "type": "class"}]}), START)


def ask(lake: LabelLake, *, record: bool = True, control: float = 0.0, budget: int = 5) -> tuple[Picks, list[Waiting]]:
    lake.now += timedelta(minutes=1)
    found: Round = read_round(lake.uri, lake.resource, judged_field(lake.resource), lake.now)
    picks = pick(found.things(), control=control, classes=2, budget=budget, drifted=())
    lines, total = waiting(lake.uri, lake.resource, found, picks.reasons, 50)
    assert total == len(lines)
    for one in records_of(picks.reasons, found) if record else ():
        lake.pick(one)
    return picks, lines


def answers(lake: LabelLake, *names: str, confidence: float = 0.6) -> None:
    for name in names:
        lake.predict(f"p{name}", "ok", confidence, event_id=name)


def test_what_was_picked_is_recorded_once_and_waits_until_it_has_a_label(lake: LabelLake) -> None:
    answers(lake, *"abcdef")
    picks, lines = ask(lake)
    assert {line.event_id for line in lines} == {item.rpartition(":")[2] for item in picks.reasons}
    again, same = ask(lake)
    assert again.considered == 0
    assert [(line.event_id, line.reasons) for line in same] == [(line.event_id, line.reasons) for line in lines]
    assert same[0].probability == 1.0
    lake.label("x", {"defect": "ok"}, entity="a", event_id=lines[0].event_id)
    assert [line.event_id for line in ask(lake)[1]] == [line.event_id for line in lines[1:]]


def test_a_round_begins_where_the_one_before_ended(lake: LabelLake) -> None:
    answers(lake, *"abc")
    ask(lake)
    answers(lake, *"defg")
    assert ask(lake)[0].considered == 4


def test_a_second_asker_before_the_record_is_in_the_lake_gets_the_same(lake: LabelLake) -> None:
    answers(lake, *"abcdef")
    first, second = ask(lake, record=False)[0], ask(lake, record=False)[0]
    assert first == second


def test_what_is_labelled_is_considered_too_so_that_labels_do_not_decide_what_is_picked(lake: LabelLake) -> None:
    answers(lake, *"abcd")
    unlabelled = ask(lake, record=False)[0]
    lake.label("x", {"defect": "ok"}, entity="a", event_id="b")
    assert ask(lake, record=False)[0] == unlabelled


def test_a_label_that_was_there_before_the_pick_does_not_answer_it(lake: LabelLake) -> None:
    answers(lake, *"ab")
    lake.label("x", {"defect": "ok"}, entity="a", event_id="b")
    assert {line.event_id for line in ask(lake, control=0.99)[1]} == {"a", "b"}
    assert {line.event_id for line in ask(lake, control=0.99)[1]} == {"a", "b"}
    lake.label("y", {"defect": "ok"}, entity="a", event_id="b")
    assert {line.event_id for line in ask(lake, control=0.99)[1]} == {"a"}


def test_where_everything_is_to_be_labelled_any_label_answers(lake: LabelLake, tmp_path: Path) -> None:
    fields = [{"name": "defect", "type": "class"}]
    everything = LabelLake(tmp_path, example_resource("a", labels={"fields": fields, "control": 1.0}), START)
    answers(everything, *"ab")
    everything.label("x", {"defect": "ok"}, entity="a", event_id="b")
    assert {line.event_id for line in ask(everything, record=False, control=1.0)[1]} == {"a"}


def test_a_pick_of_which_labellers_differ_already_is_one_line_with_both_reasons(lake: LabelLake) -> None:
    answers(lake, "a")
    lake.label("x", {"defect": "ok"}, entity="a", event_id="a")
    lake.label("y", {"defect": "scratch"}, prediction_id="pa")
    picks, (line,) = ask(lake)
    assert line.reasons == {**picks.reasons["1:a:a"], DISPUTE: 1.0}
    assert line.probability == 1.0


def test_two_versions_that_answer_an_event_differently_are_one_thing_with_a_reason(lake: LabelLake) -> None:
    answers(lake, *"abcdefgh", confidence=1.0)
    lake.predict("other", "scratch", 1.0, event_id="c", version="v2")
    lake.now += timedelta(minutes=1)
    found = read_round(lake.uri, lake.resource, judged_field(lake.resource), lake.now)
    picks = pick(found.things(), control=0.0, classes=2, budget=None, drifted=())
    assert picks.reasons == {"1:a:c": {VERSIONS: 1.0, FIRST: 1.0}}
    records = list(records_of(picks.reasons, found))
    assert {one.prediction_id for one in records} == {"pc", "other"}
    assert {one.time for one in records} == {to_ms(found.through)}
    assert {one.value for one in records} == {None}


def test_a_dispute_between_labellers_is_asked_once_more_and_not_recorded(lake: LabelLake) -> None:
    answers(lake, "a")
    ask(lake)
    lake.label("x", {"defect": "ok"}, entity="a", event_id="a")
    lake.label("y", {"defect": "scratch"}, prediction_id="pa")
    picks, (line,) = ask(lake)
    assert picks.reasons == {}
    assert (line.event_id, line.reasons, line.probability) == ("a", {DISPUTE: 1.0}, None)
    lake.label("x", {"defect": "scratch"}, entity="a", event_id="a")
    assert ask(lake)[1] == []


def test_a_round_takes_no_more_than_it_can_hold_and_the_next_goes_on(
    lake: LabelLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "MOST", 3)
    answers(lake, *"abcdefgh")
    assert [ask(lake)[0].considered for _ in range(4)] == [3, 3, 2, 0]


def test_a_prediction_that_just_arrived_is_left_for_the_next_round(lake: LabelLake) -> None:
    answers(lake, "a", "b")
    found = read_round(lake.uri, lake.resource, judged_field(lake.resource), lake.now + timedelta(seconds=9.5))
    assert found.predictions["event_id"].to_list() == ["a"]
