"""Which of several labels counts, and how likely it was to be asked for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.outcomes.conflict import Heard, Rule, probability, winner

VOTES = ("defect",)


def said(at: int, defect: str | None, labeller: str = "", **more: Any) -> Heard:
    return Heard(f"c/t/0@{at}", {"defect": defect, **more}, labeller, at, at, 0)


def picked(at: int, **reasons: float) -> Heard:
    return Heard(f"c/t/0@{at}", None, "", at, at, 0, 0, reasons)


def counts(labels: list[Heard], conflict: str, priority: tuple[str, ...] = ()) -> tuple[str | None, bool]:
    label, disputed = winner(labels, Rule(conflict, priority, VOTES))
    return (None if label is None or label.value is None else label.value["defect"]), disputed


def test_the_last_label_counts_whoever_says_it() -> None:
    assert counts([said(2, "dirt", "b"), said(1, "scratch", "a")], "last") == ("dirt", False)


def test_who_stands_first_counts_by_their_last_word() -> None:
    labels = [said(1, "ok", "b"), said(2, "dirt", "a"), said(3, "scratch", "a"), said(4, "ok", "c")]
    assert counts(labels, "priority", ("x", "a", "b")) == ("scratch", False)
    assert counts(labels, "priority", ("b", "a")) == ("ok", False)


def test_of_those_who_are_not_named_the_last_word_counts() -> None:
    labels = [said(1, "ok", "b"), said(2, "dirt", "c")]
    assert counts(labels, "priority", ("a",)) == ("dirt", False)
    assert counts([*labels, said(3, "scratch", "b")], "priority", ("a",)) == ("scratch", False)


def test_what_most_say_counts_each_by_their_last_word() -> None:
    labels = [said(1, "ok", "a"), said(2, "ok", "b"), said(3, "dirt", "c")]
    assert counts(labels, "majority") == ("ok", False)
    assert counts([*labels, said(4, "dirt", "b")], "majority") == ("dirt", False)


def test_among_equals_what_was_said_last_counts() -> None:
    assert counts([said(1, "ok", "a"), said(2, "dirt", "b")], "majority") == ("dirt", False)
    assert counts([said(3, "ok", "a"), said(2, "dirt", "b")], "majority") == ("ok", False)


def test_as_long_as_labellers_differ_there_is_no_unanimous_label() -> None:
    labels = [said(1, "ok", "a"), said(2, "dirt", "b")]
    assert counts(labels, "unanimous") == (None, True)
    assert counts([*labels, said(3, "ok", "b")], "unanimous") == ("ok", False)


def test_boxes_do_not_vote_and_the_last_one_stands() -> None:
    labels = [said(1, "dirt", "a", box=[0, 0, 1, 1]), said(2, "dirt", "b", box=[0, 0, 9, 9])]
    label, disputed = winner(labels, Rule("unanimous", (), VOTES))
    assert not disputed
    assert label == labels[1]


@given(
    st.lists(st.tuples(st.sampled_from(["ok", "dirt"]), st.sampled_from(["", "a", "b", "c"])), max_size=8),
    st.sampled_from(["last", "priority", "majority", "unanimous"]),
    st.randoms(use_true_random=False),
)
def test_the_order_in_memory_does_not_matter(words: list[tuple[str, str]], conflict: str, random: Any) -> None:
    labels = [said(at, defect, labeller) for at, (defect, labeller) in enumerate(words)]
    shuffled = [*labels, picked(99, control=0.5)]
    random.shuffle(shuffled)
    assert counts(shuffled, conflict, ("a", "b")) == counts(labels, conflict, ("a", "b"))


def test_only_what_was_known_before_the_label_makes_its_probability() -> None:
    known = [picked(1, control=0.1), picked(2, drift=0.5), picked(9, rare=0.9)]
    assert probability(said(5, "ok"), known) == pytest.approx(1 - 0.9 * 0.5)
    assert probability(said(1, "ok"), known[1:]) is None


def test_a_reason_counts_once_as_it_was_said_last() -> None:
    assert probability(said(5, "ok"), [picked(1, control=0.1), picked(2, control=0.3)]) == pytest.approx(0.3)
