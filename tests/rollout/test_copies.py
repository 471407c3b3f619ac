"""Answers to copies: which request each belongs to, and what the two answers to it are worth as evidence."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.events.records import Outcome, Prediction
from tidemill.rollout.cells import Evidence, Fold
from tidemill.rollout.copies import WAIT_MS, Copies, Judged
from tidemill.rollout.plan import SHADOW, RolloutPlan, Span
from tidemill.rollout.verdict import judge_copies
from tidemill.testing.rollout import EPOCH_MS, example_plan, judged_outcome

PLAN = example_plan(shadow=True)
SPANS = (Span(step=SHADOW, weight=0, since=EPOCH_MS),)


def loss(output: Any, label: Any) -> float:
    return float(output["class"] != label["defect"])


def outcome(number: int, wrong: bool | None, request: str = "r", event: str | None = None, at: int = 0) -> Outcome:
    found = judged_outcome("v1", EPOCH_MS + at, None if wrong is None else float(wrong), name=f"p{number}")
    return msgspec.structs.replace(found, request_id=request, event_id=event)


def copy(number: int, answer: str, request: str = "r", event: str | None = None, at: int = 0) -> Prediction:
    return Prediction(
        prediction_id=f"c{number}",
        version="v2",
        entity="A",
        time=EPOCH_MS + at,
        output={"class": answer},
        event_id=event,
        request_id=request,
        boot="b",
        seq=0,
    )


def judged(outcomes: list[Outcome], copies: list[Prediction], plan: RolloutPlan = PLAN) -> Judged:
    held = Copies(plan, loss)
    for one in copies:
        held.add(one, one.time)
    return held.judge("r", outcomes)


def test_both_answers_are_judged_by_the_champions_label() -> None:
    # The label says ok where the champion was right, scratch where it was wrong.
    assert judged([outcome(0, False)], [copy(0, "ok")])[:2] == (0.0, 0.0)
    assert judged([outcome(0, False)], [copy(0, "scratch")])[:2] == (0.0, 1.0)
    assert judged([outcome(0, True)], [copy(0, "scratch")])[:2] == (1.0, 0.0)


def test_rows_are_told_by_their_place_and_a_request_counts_once() -> None:
    rows = [outcome(0, False), outcome(1, True), outcome(2, None)]
    found = judged(rows, [copy(2, "ok"), copy(0, "ok"), copy(1, "ok")])
    assert found == Judged(0.5, 0.5, 2 / 3, differs=False)


def test_rows_that_the_champions_log_lacks_are_told_by_their_events() -> None:
    copies = [copy(n, "scratch" if n == 1 else "ok", event=f"e{n}") for n in range(3)]
    assert judged([outcome(7, False, event="e1")], copies)[:2] == (0.0, 1.0)
    assert judged([outcome(7, False)], [copy(0, "ok"), copy(1, "ok")]).candidate is None, "which row it is, is open"


def test_an_answer_that_came_too_late_or_never_is_none() -> None:
    held = Copies(PLAN, loss)
    held.add(copy(0, "ok"), EPOCH_MS + WAIT_MS + 1)
    assert held.judge("r", [outcome(0, False)]) == Judged(0.0, None, 1.0, is_answered=False)
    assert judged([outcome(0, False)], []).candidate is None


def test_an_unlabelled_request_says_nothing_or_is_no_error_as_in_a_canary() -> None:
    late = example_plan(shadow=True, visible={"ok": 1.0, "scratch": 0.4})
    assert judged([outcome(0, None)], [copy(0, "scratch")])[:2] == (None, None)
    assert judged([outcome(0, None)], [copy(0, "scratch")], late)[:2] == (0.0, 0.0)


def test_other_versions_answers_are_nobodys_copies() -> None:
    assert judged([outcome(0, False)], [msgspec.structs.replace(copy(0, "ok"), version="v3")]).candidate is None


def test_a_share_of_the_requests_is_drawn_whatever_was_answered_and_copies_are_let_go_of() -> None:
    held = Copies(example_plan(shadow=True, copies_share=0.25), loss)
    drawn = [name for name in map(str, range(4000)) if held.is_drawn(name)]
    assert 850 <= len(drawn) <= 1150
    for name in drawn:
        held.add(copy(0, "ok", name), EPOCH_MS)
    held.forget(EPOCH_MS + 3_600_000)
    assert not held._held


def folded(pairs: list[tuple[bool | None, str | None]], plan: RolloutPlan = PLAN, asks: int = 1) -> Evidence:
    """The evidence of so many requests, one a second; the second of a pair is the copy's answer."""
    held = Copies(plan, loss)
    fold = Fold(plan, held)
    for number, (wrong, answer) in enumerate(pairs):
        at, name = number * 1000, str(number)
        if answer is not None:
            held.add(copy(number, answer, name, at=at), EPOCH_MS + at)
        fold.add(0, outcome(number, wrong, name, at=at))
        if number % asks == 0:
            fold.evidence(SPANS)
    fold.add(0, outcome(-1, None, "last", at=len(pairs) * 1000 + 60_000))
    return fold.evidence(SPANS)


def test_pairs_feed_the_rollouts_own_evidence_and_no_arm() -> None:
    found = folded([(False, "ok")] * 600)
    assert (found.pairs.requests, found.pairs.answered, found.pairs.judged) == (600, 600, 600)
    assert (found.candidate.requests, found.champion.requests, found.steps) == (0, 0, ())
    assert judge_copies(PLAN, found).kind == "go on"
    assert judge_copies(PLAN, folded([(False, "scratch")] * 60)).kind == "roll back"


def test_missing_answers_neither_promote_nor_condemn() -> None:
    """A candidate that answers only what it knows gains nothing by that; one whose copies are lost is not blamed."""
    evasive = folded([(n % 5 == 0, None if n % 5 == 0 else "ok") for n in range(2000)])
    assert judge_copies(PLAN, evasive).kind == "go on", "it is missing where the champion errs, too"
    evasive = folded([(False, "ok" if n % 5 else None) for n in range(2000)])
    assert judge_copies(PLAN, evasive).kind == "inconclusive"
    assert "400 of 2000 copies without an answer" in judge_copies(PLAN, evasive).reason
    assert judge_copies(PLAN, folded([(False, None)] * 2000)).kind == "inconclusive"


def test_nothing_is_concluded_where_labels_may_depend_on_answers_or_come_late_unseen() -> None:
    assert judge_copies(example_plan(shadow=True, control=0.5), folded([(False, "ok")] * 400)).kind == "hold"
    unknown = example_plan(shadow=True, visible={})
    half = folded([(False if n % 2 else None, "ok") for n in range(800)], unknown)
    assert judge_copies(unknown, half).about == "label history"


def test_an_answer_of_the_candidate_as_if_to_a_user_is_seen() -> None:
    fold = Fold(PLAN, Copies(PLAN, loss))
    fold.add(0, judged_outcome("v2", EPOCH_MS, 0.0, name="p"))
    fold.add(0, outcome(1, False, at=60_000))
    assert fold.evidence(SPANS).pairs.unmarked == 1


def test_without_copies_at_hand_their_spans_are_left_out() -> None:
    fold = Fold(PLAN)
    fold.add(0, outcome(0, False))
    fold.add(0, outcome(1, False, at=60_000))
    assert fold.evidence(SPANS) == Evidence.none(PLAN)


@given(st.integers(0, 10_000), st.integers(1, 30))
def test_the_evidence_is_the_same_however_often_it_is_asked_for(seed: int, asks: int) -> None:
    rng = random.Random(seed)
    pairs = [(rng.choice([True, False, None]), rng.choice(["ok", "scratch", None])) for _ in range(80)]
    assert folded(pairs, asks=asks) == folded(pairs)


@pytest.mark.parametrize("age_ms", [500, 4000, 60_000])
def test_a_request_is_judged_once_its_copy_has_had_its_time(age_ms: int) -> None:
    plan = example_plan(shadow=True, age_ms=age_ms)
    held = Copies(plan, loss)
    fold = Fold(plan, held)
    fold.add(0, outcome(0, False, "0"))
    fold.add(0, outcome(1, False, "1", at=max(0, WAIT_MS - age_ms) + 500))
    assert fold.evidence(SPANS).pairs.requests == 0
    held.add(copy(0, "ok", "0"), EPOCH_MS + WAIT_MS)
    fold.add(0, outcome(2, False, "2", at=WAIT_MS + 3000))
    assert fold.evidence(SPANS).pairs.answered >= 1
