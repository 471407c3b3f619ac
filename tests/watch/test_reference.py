"""The reference: votes from rows, what it promises and what it does not, and its file."""

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from tidemill.core.errors import Corrupt, InvalidInput
from tidemill.spec.model import DriftTrigger
from tidemill.watch.reference import (
    FeatureReference,
    Reference,
    build_reference,
    decode_reference,
    encode_reference,
    replayed,
)
from tidemill.watch.votes import votes_of

FEATURES = ("brightness", "contrast")
Rows = Callable[..., pl.DataFrame]


def test_a_vote_is_the_mean_of_one_entitys_rows_in_one_tick(rows: Rows) -> None:
    frame = rows(copies=4, seconds=3)
    (votes, _) = votes_of(frame, FEATURES, 1_000)
    assert len(votes) == 9
    assert votes.rows == 36
    first = frame.filter(pl.col("entity") == "A").head(4)["brightness"].to_numpy()
    assert votes.entities[0] == "A"
    assert votes.values[0] == pytest.approx(first.mean())


def test_what_is_no_number_does_not_vote(rows: Rows) -> None:
    frame = rows(seconds=3)
    gone = frame.with_columns(brightness=pl.Series([None, float("nan"), float("inf"), *frame["brightness"][3:]]))
    (votes, others) = votes_of(gone, FEATURES, 1_000)
    assert (len(votes), len(others)) == (6, 9)


def test_half_of_the_votes_make_the_reference(reference: Reference) -> None:
    for feature in reference.features:
        assert feature.state == "ok"
        assert feature.votes == 450
        assert feature.ticks == 300
        assert feature.shares[0] == 0
        assert feature.shares[-1] == 1
        assert len(feature.edges) == 17
        np.testing.assert_allclose(feature.shares, np.arange(17) / 16, atol=0.01)
    brightness = reference.features[0]
    assert brightness.mean == pytest.approx(0.62, abs=0.01)
    assert brightness.entities == pytest.approx({"A": 0.6, "B": 0.62, "C": 0.64}, abs=0.02)
    assert brightness.finds_one_sigma_in is not None


def test_c_ref_is_the_dkw_bound_over_all_features(reference: Reference) -> None:
    for feature in reference.features:
        assert feature.c_ref == pytest.approx(np.sqrt(np.log(2 * 2 / 0.009) / (2 * 450 / feature.tau)))


def test_a_small_reference_says_how_many_votes_it_needs(rows: Rows, trigger: DriftTrigger) -> None:
    built = build_reference(rows(seconds=100), FEATURES, trigger)
    needed = built.features[0].votes_needed
    assert built.features[0].state == "reference-too-small"
    assert f"has 300 votes, needs {needed}" in built.features[0].reason
    enough = build_reference(rows(seconds=needed // 3 + 1), FEATURES, trigger)
    assert enough.features[0].state == "ok"


def test_a_reference_with_a_long_memory_cannot_promise(rows: Rows, trigger: DriftTrigger) -> None:
    frame = rows(seconds=400)
    walk = np.repeat(np.random.default_rng(1).standard_normal(400).cumsum(), 3)
    built = build_reference(frame.with_columns(brightness=walk), FEATURES, trigger)
    assert built.features[0].state == "cannot-promise"
    assert "still grows" in built.features[0].reason
    assert built.features[1].state == "ok"


def test_few_ticks_of_many_entities_cannot_promise(rows: Rows, trigger: DriftTrigger) -> None:
    stations = [f"s{number}" for number in range(40)]
    built = build_reference(rows(seconds=40, stations=stations), ("contrast",), trigger)
    assert built.features[0].state == "cannot-promise"
    assert "40 window ticks are fewer than 50 tau" in built.features[0].reason


def test_an_older_half_that_alarms_raises_the_tolerance(reference: Reference, rows: Rows) -> None:
    def play(shift: float) -> FeatureReference:
        older = votes_of(rows(seed=5, shift=shift), FEATURES, 1_000)
        (brightness, contrast) = replayed(reference.features, older, tick_ms=1_000, period=30 * 86_400_000.0)
        assert contrast == reference.features[1]
        return brightness

    assert play(0.0) == reference.features[0]
    raised = play(0.06)
    assert (raised.state, raised.raised) == ("ok", True)
    assert 0.2 < raised.tolerance < 0.5
    elsewhere = play(1.0)
    assert elsewhere.state == "cannot-promise"
    assert "the older half" in elsewhere.reason


def test_a_feature_without_values_is_too_small_and_leaves_the_others_alone(rows: Rows, trigger: DriftTrigger) -> None:
    frame = rows().with_columns(brightness=pl.lit(None, dtype=pl.Float64))
    built = build_reference(frame, FEATURES, trigger)
    assert [feature.state for feature in built.features] == ["reference-too-small", "ok"]
    assert decode_reference(encode_reference(built), "x") == built


def test_a_constant_feature_is_watched_on_both_sides(rows: Rows, trigger: DriftTrigger) -> None:
    built = build_reference(rows().with_columns(contrast=pl.lit(0.5)), ("contrast",), trigger)
    feature = built.features[0]
    assert feature.state == "ok"
    assert feature.edges == (np.nextafter(0.5, -np.inf), 0.5)
    assert feature.shares == (0, 1)


def test_no_rows_make_a_reference_that_is_too_small(rows: Rows, trigger: DriftTrigger) -> None:
    built = build_reference(rows().clear(), FEATURES, trigger)
    assert {feature.state for feature in built.features} == {"reference-too-small"}
    assert (built.rows, built.first_event) == (0, None)


def test_means_by_entity_are_kept_for_a_few_entities_only(rows: Rows, trigger: DriftTrigger) -> None:
    many = rows(seconds=60, stations=[f"s{number}" for number in range(65)])
    assert build_reference(many, FEATURES, trigger).features[0].entities == {}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda frame: frame.drop("contrast"), "lack contrast"),
        (lambda frame: frame.with_columns(event_time=pl.lit("today")), "not a Datetime"),
        (lambda frame: frame.with_columns(contrast=pl.lit("high")), "contrast of a reference's rows is String"),
    ],
)
def test_other_rows_are_refused(
    rows: Rows, trigger: DriftTrigger, change: Callable[[pl.DataFrame], pl.DataFrame], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        build_reference(change(rows()), FEATURES, trigger)


def test_the_file_is_read_back_as_it_was_written(reference: Reference) -> None:
    assert decode_reference(encode_reference(reference), "reference.json") == reference


@pytest.mark.parametrize(
    "broken", [b"", b"{}", b"\xff\xfe", b'{"format": 99, "tick_ms": 1, "tolerance": 0.1, "features": []}']
)
def test_another_file_is_corrupt(broken: bytes) -> None:
    with pytest.raises(Corrupt, match=r"reference\.json"):
        decode_reference(broken, "reference.json")


def test_edges_out_of_order_are_corrupt(reference: Reference) -> None:
    text = encode_reference(reference).decode()
    edge = str(reference.features[0].edges[3])
    with pytest.raises(Corrupt, match="do not fit"):
        decode_reference(text.replace(edge, "-99.5", 1).encode(), "reference.json")


def test_the_span_of_its_rows_is_noted(reference: Reference, rows: Rows) -> None:
    assert reference.first_event is not None
    assert reference.last_event is not None
    span = timedelta(milliseconds=reference.last_event - reference.first_event)
    assert span == timedelta(seconds=299)
    assert reference.rows == rows().height
    assert reference.rows_per_vote == 1
