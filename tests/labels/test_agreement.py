"""What is said of labels in a lake: whose words count, what the figures are, and what cannot be said."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.labels.lake import LabelLake

from tidemill.core.errors import InvalidInput, NotFound
from tidemill.labels.agreement import Agreement, agreement
from tidemill.labels.likely_errors import weigh
from tidemill.labels.words import Said, judged_field, read_said
from tidemill.testing.loop import example_resource

START = datetime(2026, 11, 25, 12, tzinfo=UTC)
FIELDS = [
    {"name": "defect", "type": "class"},
    {"name": "depth", "type": "float"},
    {"name": "box", "type": "box"},
    {"name": "bad", "type": "bool"},
]
CLASSES = ("ok", "scratch", "dirt")


@pytest.fixture
def lake(tmp_path: Path) -> LabelLake:
    resource = example_resource(
        "a", labels={"fields": FIELDS}, prediction={"type": "classification", "classes": list(CLASSES)}
    )
    return LabelLake(tmp_path, resource, START)


def said_of(lake: LabelLake, field: str | None = None, **span: Any) -> Said:
    span = {"since": START - timedelta(days=1)} | span
    return read_said(lake.uri, lake.resource, judged_field(lake.resource, field), **span)


def report(lake: LabelLake, field: str | None = None) -> Agreement:
    return agreement(said_of(lake, field), CLASSES, 0.8, noun="pictures")


def say(lake: LabelLake, event: str, **words: Any) -> None:
    for labeller, word in words.items():
        lake.label(labeller, {"defect": word}, entity="a", event_id=event)


def test_a_labeller_counts_by_their_last_word_on_a_thing(lake: LabelLake) -> None:
    say(lake, "1", x="ok", y="scratch")
    lake.label("x", {"defect": "scratch"}, entity="a", event_id="1")
    found = report(lake)
    assert (found.labels, found.items, found.compared) == (2, 1, 1)
    assert [pair.same for pair in found.pairs] == [1.0]


def test_a_repair_by_somebody_who_saw_what_was_said_is_no_dispute(lake: LabelLake) -> None:
    for event in range(20):
        say(lake, str(event), x="ok" if event % 2 else "scratch", y="ok" if event % 2 else "scratch")
    for event in range(10):
        lake.label("expert", {"defect": "dirt"}, entity="a", event_id=str(event), repair=True)
    found = report(lake)
    assert (found.alpha, found.labels) == (1.0, 40)
    assert [one.name for one in found.labellers] == ["x", "y"]
    assert dict(said_of(lake).values.select("text", "labels").iter_rows())["dirt"] == 10


def test_who_repairs_their_own_label_has_said_another_word(lake: LabelLake) -> None:
    say(lake, "1", x="ok", y="scratch")
    lake.label("x", {"defect": "scratch"}, entity="a", event_id="1", repair=True)
    assert [pair.same for pair in report(lake).pairs] == [1.0]


def test_labels_by_event_and_by_prediction_are_of_one_thing(lake: LabelLake) -> None:
    lake.predict("p1", "ok", 0.9, event_id="1")
    lake.predict("p2", "ok", 0.9)
    lake.label("x", {"defect": "ok"}, entity="a", event_id="1")
    lake.label("y", {"defect": "ok"}, prediction_id="p1")
    lake.label("x", {"defect": "scratch"}, prediction_id="p2")
    lake.label("y", {"defect": "scratch"}, prediction_id="p2")
    lake.label("y", {"defect": "dirt"}, prediction_id="never seen")
    found = report(lake)
    assert (found.items, found.compared, found.alpha) == (3, 2, 1.0)
    assert found.trusted
    assert found.verdict == "trusted: alpha 1.00 reaches minAgreement 0.8"


def test_labels_outside_the_span_refused_or_picks_do_not_count(lake: LabelLake) -> None:
    say(lake, "1", x="ok", y="scratch")
    middle = lake.now + timedelta(seconds=0.5)
    say(lake, "1", x="scratch")
    lake.label("z", None, refused="no")
    lake.label("z", None, prediction_id="p", reasons='{"control": 0.1}')
    assert said_of(lake).read == 3
    assert said_of(lake, since=middle).read == 1
    assert said_of(lake, until=middle).words["text"].to_list() == ["scratch", "ok"]


def test_pairs_of_labellers_and_classes_have_counts(lake: LabelLake) -> None:
    for number in range(8):
        say(lake, str(number), x="ok" if number % 2 else "scratch", y="ok" if number % 2 else "dirt", z="ok")
    found = report(lake)
    pairs = {pair.labellers: (pair.items, pair.same) for pair in found.pairs}
    assert pairs == {("x", "y"): (8, 0.5), ("x", "z"): (8, 0.5), ("y", "z"): (8, 0.5)}
    assert [(one.name, one.labels) for one in found.classes] == [("ok", 16), ("scratch", 4), ("dirt", 4)]
    assert found.trusted is False


def test_classes_that_are_mixed_up_are_asked_about_in_words(lake: LabelLake) -> None:
    for number in range(3):
        say(lake, str(number), a="scratch", b="dirt", c="dirt")
    say(lake, "4", a="ok", b="ok", c="ok")
    (mixed,) = report(lake).mixed_up
    assert mixed.question == "is this dirt or scratch? 3 pictures; b and c say dirt, a says scratch"
    assert mixed.sides == {"a": {"scratch": 3}, "b": {"dirt": 3}, "c": {"dirt": 3}}
    assert mixed.examples[0].event_id == "0"
    assert mixed.examples[0].said == {"a": "scratch", "b": "dirt", "c": "dirt"}


def test_a_class_that_nobody_declared_is_shown_with_its_count_and_first_time(lake: LabelLake) -> None:
    say(lake, "1", x="dent")
    say(lake, "2", x="ok", y="dent")
    (new,) = report(lake).new_classes
    assert (new.value, new.labels, new.first_seen) == ("dent", 2, round((START.timestamp() + 1) * 1000))


@pytest.mark.parametrize(
    ("words", "verdict", "note"),
    [
        ([{"x": "ok"}, {"x": "scratch"}], "nothing was labelled by two", "1 labeller: agreement needs two"),
        ([{"x": "ok"}, {"y": "scratch"}], "nothing was labelled by two", ""),
        ([{"x": "ok", "y": "ok"}] * 2, "only one value was said", ""),
    ],
)
def test_what_cannot_be_said_is_said(lake: LabelLake, words: list[dict[str, str]], verdict: str, note: str) -> None:
    for number, one in enumerate(words):
        say(lake, str(number), **one)
    found = report(lake)
    assert (found.alpha, found.trusted) == (None, None)
    assert verdict in found.verdict
    assert any(note in one for one in found.notes) or not note
    weighed = weigh(said_of(lake), CLASSES)
    assert weighed.why
    assert weighed.reliability == {}


def test_labels_that_name_no_labeller_are_left_out_and_counted(lake: LabelLake) -> None:
    say(lake, "1", x="ok", y="ok")
    lake.label("", {"defect": "dirt"}, entity="a", event_id="1")
    found = report(lake)
    assert found.labels == 2
    assert "1 labels name no labeller and are left out" in found.notes


def test_measures_are_compared_by_their_differences(lake: LabelLake) -> None:
    for number, (x, y) in enumerate([(1, 1.1), (2, 2.1), (3, 2.9), (9, 9)]):
        for labeller, depth in (("x", x), ("y", y)):
            lake.label(labeller, {"defect": "ok", "depth": depth}, entity="a", event_id=str(number))
    found = report(lake, "depth")
    assert (found.kind, found.trusted) == ("interval", True)
    assert found.pairs[0].alpha == pytest.approx(found.alpha)
    assert weigh(said_of(lake, "depth"), CLASSES).why.startswith("depth is neither")


def test_boxes_are_compared_by_their_overlap(lake: LabelLake) -> None:
    for event, boxes in {"1": ([0, 0, 10, 10], [0, 0, 10, 5]), "2": ([0, 0, 4, 4], None), "3": (None, None)}.items():
        for labeller, box in zip("xy", boxes, strict=True):
            lake.label(labeller, {"defect": "scratch", "box": box}, entity="a", event_id=event)
    (pair,) = report(lake, "box").pairs
    assert (pair.items, pair.overlap) == (1, 0.5)
    assert pair.same == pytest.approx(2 / 3)


def test_yes_and_no_are_weighed_with_the_models_answer(lake: LabelLake) -> None:
    for number in range(12):
        truth = number % 2 == 0
        lake.predict(f"p{number}", "scratch" if truth else "ok", 0.95, event_id=str(number))
        for labeller in ("x", "y", "z"):
            word = truth if (labeller, number) != ("z", 3) else True
            lake.label(labeller, {"defect": "ok", "bad": word}, entity="a", event_id=str(number))
    weighed = weigh(said_of(lake, "bad"), CLASSES)
    assert weighed.with_prediction == 12
    assert [(one.labeller, one.event_id, one.said) for one in weighed.likely_errors] == [("z", "3", "true")]
    assert next(iter(weighed.reliability)) == "z"


def test_ties_that_nothing_decides_are_counted(lake: LabelLake) -> None:
    for number in range(6):
        say(lake, str(number), x="ok", y="ok" if number < 4 else "scratch")
    lake.predict("p", "ok", 0.9, event_id="5")
    assert weigh(said_of(lake), CLASSES).tied == 1


def test_a_field_that_labels_lack_is_refused_and_an_empty_lake_has_no_table(lake: LabelLake) -> None:
    with pytest.raises(InvalidInput, match="no field colour"):
        judged_field(lake.resource, "colour")
    with pytest.raises(NotFound):
        said_of(lake)
