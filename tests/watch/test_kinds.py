"""Categories, missing rates and losses: their references, and what is said when they move."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from tests.watch.conftest import START, make_rows

from tidemill.core.clock import to_ms
from tidemill.core.errors import Corrupt
from tidemill.events.records import Outcome, Signal, Sketch
from tidemill.events.tallies import tally
from tidemill.spec.model import DriftTrigger
from tidemill.stats.radius import mean_radius
from tidemill.watch.losses import Judged
from tidemill.watch.measure import measure
from tidemill.watch.plan import WatchPlan
from tidemill.watch.reducer import Input, first_state, reduce
from tidemill.watch.reference import Reference, build_reference, decode_reference, encode_reference
from tidemill.watch.state import Promotion
from tidemill.watch.ticks import Arrived
from tidemill.watch.votes import votes_of

AT = 1_000_000
LIVE = START + timedelta(days=1)


def rows(
    seconds: int,
    seed: int,
    *,
    start: Any = START,
    steel: float = 0.2,
    where: Sequence[str] = ("A", "B", "C"),
    copies: int = 1,
) -> pl.DataFrame:
    """As of conftest, and a material: steel, brass or tin; of stations elsewhere a fifth is of steel."""
    frame = make_rows(seed, seconds, start=start, copies=copies)
    draw = np.random.default_rng(seed).random(frame.height)
    share = np.where(frame["entity"].is_in(list(where)).to_numpy(), steel, 0.2)
    material = np.where(draw < share, "steel", np.where(draw < share + (1 - share) * 0.6, "brass", "tin"))
    return frame.with_columns(material=pl.Series(material))


def built(frame: pl.DataFrame, trigger: DriftTrigger) -> Reference:
    return build_reference(frame, ["brightness"], trigger, categories=["material"])


def live(frame: pl.DataFrame, *, numbers: Sequence[str], categories: Sequence[str]) -> list[Arrived]:
    """A sketch a tick, each a second after the one before."""
    tick = pl.col("event_time").dt.epoch("ms") // 1_000
    found = []
    for number, (key, part) in enumerate(frame.group_by(tick.alias("t"), maintain_order=True)):
        votes = tally(part, part.select(tick).to_series().to_numpy(), numbers=numbers, categories=categories)
        newest = int(key[0]) * 1_000 + 999
        sketch = Sketch(
            source="c/t/0",
            first_offset=10 * number,
            last_offset=10 * number + 9,
            max_event_time=newest,
            tick_ms=1_000,
            votes=votes,
        )
        found.append(Arrived(msgspec.json.decode(msgspec.json.encode(sketch), type=Sketch), AT + 1_000 * (number + 1)))
    return found


def said(reference: Reference, frame: pl.DataFrame, plan: WatchPlan) -> list[Signal]:
    numbers = [feature.name for feature in reference.features if feature.kind == "number"]
    categories = [feature.name for feature in reference.features if feature.kind == "category"]
    inputs: list[Arrived | Promotion] = [
        Promotion(version="r1", at=AT, reference=decode_reference(encode_reference(reference), "x")),
        *live(frame, numbers=numbers, categories=categories),
    ]
    return list(reduce(first_state(plan), inputs, plan)[1])


def test_a_category_has_a_share_for_each_value_and_for_others(trigger: DriftTrigger) -> None:
    material = built(rows(400, 1), trigger).features[1]
    assert (material.kind, material.state, material.labels) == ("category", "ok", ("brass", "tin", "steel"))
    assert material.shares == pytest.approx((0.48, 0.32, 0.2, 0), abs=0.05)
    assert sum(material.shares) == pytest.approx(1)
    assert material.entity_shares.keys() == {"A", "B", "C"}
    assert material.finds_in is not None


def test_its_margins_are_those_of_means_and_rare_values_are_known_better(trigger: DriftTrigger) -> None:
    material = built(rows(400, 1), trigger).features[1]
    expected = mean_radius(np.array(material.shares), material.votes / material.tau, 0.009 / 2 / 4)
    assert material.margins == pytest.approx(tuple(expected))
    assert material.c_ref == max(material.margins)
    assert material.margins[3] < material.margins[0] / 3


def test_a_category_is_too_small_where_its_shares_are_not_known_to_half_the_tolerance(trigger: DriftTrigger) -> None:
    small = built(rows(100, 1), trigger).features[1]
    assert small.state == "reference-too-small"
    assert f"has 300 votes, needs {small.votes_needed:,}" in small.reason
    assert built(rows(small.votes_needed // 3 + 20, 1), trigger).features[1].state == "ok"


def test_more_quantities_elsewhere_make_margins_wider(trigger: DriftTrigger) -> None:
    frame = rows(400, 1)
    alone = built(frame, trigger)
    among = build_reference(frame, ["brightness"], trigger, categories=["material"], quantities=20)
    for one, other in zip(alone.features, among.features, strict=True):
        assert one.c_ref < other.c_ref


def test_a_quiet_category_is_not_signalled(trigger: DriftTrigger, plan: WatchPlan) -> None:
    assert said(built(rows(400, 1), trigger), rows(600, 2, start=LIVE), plan) == []


def test_a_value_that_becomes_common_is_named_with_its_shares_and_where(trigger: DriftTrigger, plan: WatchPlan) -> None:
    reference = built(rows(400, 1, copies=3), trigger)
    calm, moved = rows(50, 2, start=LIVE), rows(250, 3, start=LIVE + timedelta(seconds=50), steel=0.95, where="BC")
    signals = said(reference, pl.concat([calm, moved]), plan)
    assert (signals[0].kind, signals[0].subject, signals[0].feature) == ("drift", "inputs", "material")
    assert signals[0].message.startswith("material: share of 'steel' rose from 0.22 to 0.")
    assert signals[0].message.endswith(", stations B and C")
    assert signals[0].entities == ["B", "C"]
    assert signals[0].before == pytest.approx(0.2, abs=0.05)
    assert signals[0].now == pytest.approx(0.7, abs=0.15)
    since = (signals[0].since or 0) - int(LIVE.timestamp() * 1_000)
    assert 40_000 <= since <= 60_000


def test_a_value_that_goes_is_named(trigger: DriftTrigger, plan: WatchPlan) -> None:
    signals = said(built(rows(400, 1), trigger), rows(90, 3, start=LIVE).with_columns(material=pl.lit("tin")), plan)
    messages = {signal.message.split(" from")[0] for signal in signals}
    assert messages <= {"material: share of 'tin' rose", "material: share of 'brass' fell"}
    assert messages


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (["x"], "material: 1 new value, such as 'x', holds 1"),
        ([f"x{number}" for number in range(7)], "material: 7 new values, such as 'x"),
        ([f"x{number}" for number in range(5_000)], "material: more than 100 new values, such as 'x"),
        (["l" * 200], "material: 1 new value, such as 'lllllllllllllllllllllllllllllll…', holds 1"),
        ([""], "material: 1 new value, such as '', holds 1"),
    ],
)
def test_new_values_are_counted_and_one_is_named(
    trigger: DriftTrigger, plan: WatchPlan, new: list[str], says: str
) -> None:
    frame = rows(60, 3, start=LIVE, copies=8)
    frame = frame.with_columns(material=pl.Series([new[position % len(new)] for position in range(frame.height)]))
    signals = said(built(rows(400, 1), trigger), frame, plan)
    assert says in [signal.message[: len(says)] for signal in signals]


def test_a_feature_that_is_often_missing_says_how_often(trigger: DriftTrigger, plan: WatchPlan) -> None:
    frame = rows(200, 3, start=LIVE, copies=4)
    gone = pl.Series(np.random.default_rng(5).random(frame.height) < 0.5)
    for name in ("brightness", "material"):
        signals = said(built(rows(400, 1), trigger), frame.with_columns(pl.when(~gone).then(name).alias(name)), plan)
        assert {signal.feature for signal in signals} == {name}
        assert signals[0].message.startswith(f"{name}: missing in 0.")
        assert "of rows, was 0" in signals[0].message
        assert signals[0].before == 0


def test_gaps_that_were_always_there_are_no_drift(trigger: DriftTrigger, plan: WatchPlan) -> None:
    def gappy(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
        gone = pl.Series(np.random.default_rng(seed).random(frame.height) < 0.6)
        return frame.with_columns(brightness=pl.when(~gone).then("brightness"))

    reference = built(gappy(rows(900, 1), 1), trigger)
    brightness = reference.features[0]
    assert brightness.state == "ok"
    assert brightness.missing is not None
    assert brightness.missing.share == pytest.approx(0.6, abs=0.05)
    assert said(reference, gappy(rows(400, 2, start=LIVE), 2), plan) == []
    filled = said(reference, rows(400, 2, start=LIVE), plan)  # and that they are gone is drift
    assert [signal.message[:24] for signal in filled[:1]] == ["brightness: missing in 0"]


def test_gaps_with_a_long_memory_are_not_watched_and_it_is_said(trigger: DriftTrigger, plan: WatchPlan) -> None:
    frame = rows(700, 1)
    seconds = (frame["event_time"] - START).dt.total_seconds()
    off = (seconds // 50 % 2 == 1) & (frame["entity"] == "A")
    brightness = built(frame.with_columns(brightness=pl.when(~off).then("brightness")), trigger).features[0]
    assert (brightness.state, brightness.missing) == ("ok", None)
    assert "how often brightness is missing depends on the past" in brightness.reason
    reference = Reference(tick_ms=1_000, tolerance=0.2, features=(brightness,))
    signals = said(reference, rows(5, 2, start=LIVE), plan)
    assert [(signal.kind, signal.message) for signal in signals] == [("state", f"brightness: {brightness.reason}")]


def test_a_category_of_more_values_than_can_be_counted_cannot_promise() -> None:
    frame = make_rows(1, 120, copies=100)
    many = pl.Series([f"v{number:02}" for number in np.random.default_rng(0).integers(0, 40, frame.height)])
    strict = DriftTrigger.model_validate({"tolerance": 0.05, "every": "1s"})
    feature = build_reference(frame.with_columns(m=many), [], strict, categories=["m"]).features[0]
    assert feature.state == "cannot-promise"
    assert "of its 40 values only the commonest are counted" in feature.reason


LOSS = DriftTrigger.model_validate({"tolerance": 0.2, "every": "1s", "rise": 0.2})


def losses(seconds: int, seed: int, level: float, *, start: Any = START) -> pl.DataFrame:
    frame = make_rows(seed, seconds, start=start)
    draw = np.random.default_rng(seed).random(frame.height) < level
    return frame.select("entity", "event_time", error=pl.Series(draw.astype(np.float64)))


def judged(frame: pl.DataFrame) -> list[Judged]:
    """An outcome a row."""
    found = []
    for number, (entity, time, error) in enumerate(frame.iter_rows()):
        at = to_ms(time)
        outcome = Outcome(
            prediction_id=f"p{number}",
            version="r1",
            entity=entity,
            predicted_at=at,
            eligible_at=at,
            output={"class": "ok"},
            label={"defect": "none"},
            loss=error,
            probability=1.0,
        )
        found.append(Judged(outcome, "c/o/0", number, AT + number))
    return found


def test_a_loss_is_measured_against_its_mean_and_only_its_rise_is_signalled(plan: WatchPlan) -> None:
    (error,) = measure(votes_of(losses(400, 1, 0.1), ["error"], 1_000, kind="loss"), LOSS, quantities=1)
    error = msgspec.structs.replace(error, subject="errors")
    assert (error.kind, error.state, error.tolerance, len(error.shares)) == ("loss", "ok", 0.2, 1)
    assert error.mean == pytest.approx(0.1, abs=0.03)
    assert error.c_ref < 0.06
    assert error.finds_in is not None
    reference = Reference(tick_ms=1_000, tolerance=0.2, features=(error,))
    plan = replace(plan, watch=("errors",), control=1.0, rise=0.2)

    def signals(level: float) -> list[Signal]:
        frame = losses(300, 2, level, start=LIVE)
        promoted = Promotion(version="r1", at=AT, reference=reference)
        inputs: list[Input] = [promoted, *judged(frame)]
        return list(reduce(first_state(plan), inputs, plan)[1])

    assert signals(0.0) == signals(0.12) == []
    found = signals(0.9)[0]
    assert (found.kind, found.subject, found.feature) == ("concept", "errors", "error")
    assert found.message.startswith("error rose from 0.08 to 0.9")
    assert found.message.endswith(", all 3 stations, since 00:00")


def test_a_loss_may_be_allowed_to_rise_by_more_than_half() -> None:
    trigger = LOSS.model_copy(update={"rise": 0.6})
    (error,) = measure(votes_of(losses(400, 1, 0.1), ["error"], 1_000, kind="loss"), trigger, quantities=1)
    assert (error.state, error.reason, error.tolerance) == ("ok", "", 0.6)


def test_what_shares_the_budget_with_others_is_said_to_be_found_later() -> None:
    votes = votes_of(losses(400, 1, 0.1), ["error"], 1_000, kind="loss")
    (alone,), (among,) = (measure(votes, LOSS, quantities=quantities) for quantities in (1, 20))
    assert alone.finds_in is not None
    assert among.finds_in is not None
    # ln 20 more of evidence, beside the wider margins.
    assert among.finds_in > 1.5 * alone.finds_in


def test_a_loss_that_was_lower_in_the_older_half_raises_its_tolerance() -> None:
    frame = pl.concat([losses(300, 1, 0.05), losses(300, 2, 0.4, start=START + timedelta(seconds=300))])
    older_worse = frame.with_columns(error=1 - pl.col("error"))
    (error,) = measure(votes_of(older_worse, ["error"], 1_000, kind="loss"), LOSS, quantities=1)
    assert error.raised or error.state == "cannot-promise"


def test_a_reference_of_the_first_format_is_read(reference: Reference) -> None:
    plain = msgspec.json.decode(encode_reference(reference))
    keys = {"kind", "subject", "slice", "labels", "others", "margins", "missing", "entity_shares", "finds_in"}
    plain["format"] = 1
    for feature in plain["features"]:
        for key in keys:
            del feature[key]
    old = decode_reference(msgspec.json.encode(plain), "reference.json")
    assert [feature.missing for feature in old.features] == [None, None]
    assert [feature.shares for feature in old.features] == [feature.shares for feature in reference.features]


@pytest.mark.parametrize("change", [{"labels": ("a",)}, {"margins": (0.1,)}, {"entity_shares": {"A": (0.1,)}}])
def test_a_category_whose_figures_do_not_fit_is_corrupt(trigger: DriftTrigger, change: dict[str, Any]) -> None:
    reference = built(rows(100, 1), trigger)
    wrong = msgspec.structs.replace(reference.features[1], **change)
    with pytest.raises(Corrupt, match="material do not fit"):
        decode_reference(encode_reference(msgspec.structs.replace(reference, features=(wrong,))), "x")
