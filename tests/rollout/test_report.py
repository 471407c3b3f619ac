"""The A/B report: the lift of a rollout with its interval, by slice."""

import random
from collections.abc import Iterator

import polars as pl
import pytest

from tidemill.core.clock import from_ms
from tidemill.rollout.plan import Span
from tidemill.rollout.report import Lift, lifts
from tidemill.testing.rollout import EPOCH_MS, example_plan

PLAN = example_plan(weights=(5, 50, 100))
SPANS = (
    Span(step=0, weight=5, since=EPOCH_MS, until=EPOCH_MS + 60_000),
    Span(step=1, weight=50, since=EPOCH_MS + 60_000),
)


def world(seed: int, *, worse: float = 0.05, users: int = 0, requests: int = 4000) -> pl.DataFrame:
    """Errors fall from 0.5 to 0.2 when the share rises; the candidate is worse by as much at each moment."""
    rng = random.Random(seed)
    rates = [(rng.random(), rng.betavariate(0.3, 1.2)) for _ in range(users)]

    def rows() -> Iterator[tuple[object, ...]]:
        for number in range(requests):
            late = number >= requests // 2
            user = rng.randrange(users) if users else 0
            draw, base = rates[user] if users else (rng.random(), 0.2 if late else 0.5)
            is_candidate = draw < (0.5 if late else 0.05)
            moment = EPOCH_MS + number * 120_000 // requests
            loss = None if number % 10 == 0 else float(rng.random() < base + worse * is_candidate)
            version = "v2" if is_candidate else "v1"
            yield version, f"u{user}", f"r{number}", f"p{number}", from_ms(moment), loss, "ab"[number % 2]

    names = ["version", "cohort", "request_id", "prediction_id", "predicted_at", "loss", "slice"]
    return pl.DataFrame(list(rows()), schema=names, orient="row")


def only(found: list[Lift], name: str = "") -> Lift:
    (line,) = (one for one in found if one.slice == name)
    return line


def test_the_lift_is_that_of_the_same_moments_although_the_world_became_easier() -> None:
    found = [only(lifts(world(seed), PLAN, SPANS)) for seed in range(40)]
    values = [one.lift for one in found if one.lift is not None]
    assert sum(values) / len(values) == pytest.approx(0.05, abs=0.012)
    holds = sum(one.interval is not None and one.interval.low <= 0.05 <= one.interval.high for one in found)
    assert holds >= 34  # of 40, 38 are to be expected; fewer than 34 has a probability of 0.001
    pooled = world(0).group_by("version").agg(pl.col("loss").mean()).sort("version")["loss"].to_list()
    assert pooled[1] < pooled[0], "over all moments the worse candidate looks better"


def test_slices_are_told_apart_and_unlabelled_outcomes_are_counted() -> None:
    found = lifts(world(1), PLAN, SPANS)
    assert [one.slice for one in found] == ["", "a", "b"]
    everything, one, other = found
    assert one.candidate.outcomes + other.candidate.outcomes == everything.candidate.outcomes
    assert everything.candidate.labelled + everything.champion.labelled == 3600
    assert other.candidate.labelled == other.candidate.outcomes
    assert one.interval is not None
    assert everything.interval is not None
    assert one.interval.high - one.interval.low > everything.interval.high - everything.interval.low


def test_outcomes_of_one_key_are_one_witness() -> None:
    rows = world(2, users=40)
    keyed = only(lifts(rows, example_plan(weights=(5, 50, 100), cohort="x-user"), SPANS))
    each = only(lifts(rows, PLAN, SPANS))
    assert (keyed.units, each.units) == (40, 3600)
    assert keyed.lift == pytest.approx(each.lift)
    assert keyed.interval is not None
    assert each.interval is not None
    assert keyed.interval.high - keyed.interval.low > 2 * (each.interval.high - each.interval.low)


def test_outcomes_outside_the_spans_and_of_other_versions_do_not_count() -> None:
    rows = world(3, requests=400)
    inside = lifts(rows, PLAN, SPANS)
    before = rows.with_columns(predicted_at=pl.col("predicted_at") - pl.duration(days=1), loss=pl.lit(1.0))
    other = rows.with_columns(version=pl.lit("v0"), loss=pl.lit(1.0))
    assert lifts(pl.concat([rows, before, other]), PLAN, SPANS) == inside


def test_without_labels_of_both_there_is_no_lift() -> None:
    rows = world(4, requests=400).with_columns(
        loss=pl.when(pl.col("version") == "v2").then(None).otherwise(pl.col("loss"))
    )
    line = only(lifts(rows, PLAN, SPANS))
    assert (line.lift, line.interval, line.candidate.error) == (None, None, None)
    assert line.champion.error is not None
