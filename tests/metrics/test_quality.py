"""Quality accumulators."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.metrics.quality import Quality, QualityTable

losses = st.sampled_from([None, 0.0, 1.0])
rows = st.lists(st.tuples(st.sampled_from(["v1", "v2"]), st.integers(0, 5000), losses))


def table(outcomes: list[tuple[str, int, float | None]]) -> QualityTable:
    made = QualityTable(window_ms=1000)
    for version, at, loss in outcomes:
        made.add(version, at, loss)
    return made


def test_quality_of_nothing_is_unknown() -> None:
    nothing = Quality()
    assert (nothing.error, nothing.accuracy, nothing.share_labelled) == (None, None, None)


def test_unlabelled_outcomes_lower_the_share_and_not_the_accuracy() -> None:
    quality = Quality.of(0.0) + Quality.of(1.0) + Quality.of(None) + Quality.of(None)
    assert (quality.error, quality.accuracy, quality.share_labelled) == (0.5, 0.5, 0.5)


@given(rows, st.integers(0, 50))
def test_parts_merge_to_the_whole(outcomes: list[tuple[str, int, float | None]], cut: int) -> None:
    merged = table(outcomes[cut:])
    merged.merge(table(outcomes[:cut]))
    assert merged.cells == table(outcomes).cells


@given(rows, losses)
def test_a_correction_counts_once(outcomes: list[tuple[str, int, float | None]], after: float | None) -> None:
    corrected = table([("v1", 1500, 1.0), *outcomes])
    corrected.correct("v1", 1500, 1.0, after)
    assert corrected.cells == table([("v1", 1500, after), *outcomes]).cells


def test_total_and_series_select_versions_and_windows() -> None:
    made = table([("v1", 100, 0.0), ("v1", 1100, 1.0), ("v2", 1200, 1.0), ("v1", 2100, None)])
    assert made.total().outcomes == 4
    assert made.total("v1", since_ms=1000, until_ms=2000) == Quality(1, 1, 1.0)
    assert list(made.series("v1")) == [(0, Quality(1, 1, 0.0)), (1000, Quality(1, 1, 1.0)), (2000, Quality(1, 0, 0.0))]


def test_tables_of_different_windows_do_not_merge() -> None:
    with pytest.raises(ValueError, match="500 ms"):
        table([]).merge(QualityTable(window_ms=500))
