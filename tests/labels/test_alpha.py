"""Krippendorff's alpha, against the package of that name, his own example, and what it must be."""

from typing import Any

import krippendorff
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.labels.alpha import interval_alpha, nominal_alpha

# Krippendorff 2011, section C: four observers, twelve units, gaps.
OBSERVED = (
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)
TABLES = st.integers(2, 4).flatmap(
    lambda labellers: st.lists(
        st.lists(st.none() | st.integers(0, 3), min_size=labellers, max_size=labellers), min_size=1, max_size=12
    )
)


def frame(table: list[list[Any]], column: str) -> pl.DataFrame:
    """`table[unit][labeller]`."""
    rows = [(str(unit), value) for unit, values in enumerate(table) for value in values if value is not None]
    texts = [(unit, str(value) if column == "text" else float(value)) for unit, value in rows]
    return pl.DataFrame(
        texts, schema={"item": pl.String(), column: pl.String() if column == "text" else pl.Float64()}, orient="row"
    )


def reference(table: list[list[Any]], level: Any) -> float | None:
    data = np.array([[np.nan if value is None else value for value in unit] for unit in table], float).T
    pairable = data[:, (~np.isnan(data)).sum(axis=0) >= 2]
    if pairable.size == 0 or len(np.unique(pairable[~np.isnan(pairable)])) < 2:
        return None
    return float(krippendorff.alpha(data, level_of_measurement=level))


def test_the_published_example_has_its_published_alphas() -> None:
    columns = [line.split() for line in OBSERVED]
    table = [[None if value == "." else int(value) for value in unit] for unit in zip(*columns, strict=True)]
    nominal, _ = nominal_alpha(frame(table, "text"))
    assert nominal.value == pytest.approx(0.743, abs=5e-4)
    assert interval_alpha(frame(table, "number")).value == pytest.approx(0.849, abs=5e-4)
    assert nominal.compared == 11


@given(TABLES)
def test_alpha_is_that_of_the_package(table: list[list[int | None]]) -> None:
    nominal, alone = nominal_alpha(frame(table, "text"))
    assert nominal.value == pytest.approx(reference(table, "nominal"))
    assert interval_alpha(frame(table, "number")).value == pytest.approx(reference(table, "interval"))
    for name, value in alone.items():
        against_rest = [[None if one is None else int(str(one) == name) for one in unit] for unit in table]
        assert value == pytest.approx(reference(against_rest, "nominal"))


@given(TABLES)
def test_neither_the_order_of_units_nor_of_labellers_matters(table: list[list[int | None]]) -> None:
    other = [list(reversed(unit)) for unit in reversed(table)]
    assert nominal_alpha(frame(table, "text"))[0].value == pytest.approx(nominal_alpha(frame(other, "text"))[0].value)


def test_labels_of_one_labeller_alone_say_nothing() -> None:
    alpha, alone = nominal_alpha(frame([[1, None], [2, None]], "text"))
    assert (alpha.value, alpha.compared, alone) == (None, 0, {})
    assert "two labellers" in alpha.why
    assert interval_alpha(frame([[1, None]], "number")).value is None


def test_where_all_say_the_same_of_everything_alpha_is_not_defined() -> None:
    alpha, alone = nominal_alpha(frame([[1, 1], [1, 1]], "text"))
    assert (alpha.value, alpha.compared, alone) == (None, 2, {"1": None})
    assert "one value" in alpha.why
    assert interval_alpha(frame([[1, 1], [1, 1]], "number")).value is None


def test_what_is_no_number_is_left_out_of_measures() -> None:
    with_gaps = pl.DataFrame(
        {"item": ["a", "a", "a", "b", "b"], "number": [1.0, 2.0, float("inf"), 5.0, 5.0], "other": [None] * 5}
    )
    assert interval_alpha(with_gaps).value == pytest.approx(
        interval_alpha(with_gaps.filter(pl.col("number") < 9)).value
    )
