import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.features.sketches import (
    KEY_BITS,
    RELATIVE_ERROR,
    bucket_keys,
    bucket_values,
    distinct_counts,
    hashes,
    registers,
)


def counted(values: pl.Series) -> int:
    register, run = registers(hashes(values))
    order = np.lexsort((run, register))
    last = np.append(np.flatnonzero(np.diff(register[order])), len(order) - 1)
    kept = order[last]
    return int(distinct_counts(np.zeros(len(kept), np.int64), run[kept], 1)[0])


@pytest.mark.parametrize("many", [1, 10, 100, 1000, 10_000, 100_000, 1_000_000])
@pytest.mark.parametrize("kind", ["int", "float"])
def test_distinct_counts_are_within_four_standard_errors(many: int, kind: str) -> None:
    values = pl.Series(np.arange(many))
    found = counted(values.cast(pl.Float64()) if kind == "float" else values)
    assert abs(found - many) <= 4 * 1.04 / 45 * many


def test_strings_are_counted_as_well() -> None:
    assert abs(counted(pl.Series([f"part {number % 5000}" for number in range(20_000)])) - 5000) < 4 * 1.04 / 45 * 5000


def test_an_owner_without_registers_has_seen_nothing() -> None:
    nothing = np.zeros(0, np.int64)
    assert distinct_counts(nothing, nothing, 2).tolist() == [0, 0]


def test_hashes_are_the_same_for_ever() -> None:
    assert hashes(pl.Series([0, 1, -1])).tolist() == [0xE220A8397B1DCDAF, 0x910A2DEC89025CC1, 0xE4D971771B652C20]
    assert hashes(pl.Series([0.0, -0.0])).tolist() == [0xE220A8397B1DCDAF] * 2
    assert hashes(pl.Series(["a", "ü"])).tolist() == [0x2F42665B399EF840, 0x372F39C1F59DF155]


def test_registers_and_runs_are_those_of_the_definition() -> None:
    hashed = np.array([0, 1, (5 << 53) | (1 << 52), (1 << 64) - 1], dtype=np.uint64)
    register, run = registers(hashed)
    assert register.tolist() == [0, 0, 5, 2047]
    assert run.tolist() == [54, 53, 1, 1]


@given(st.floats(-1e150, 1e150))
def test_a_bucket_stands_for_its_values_within_one_percent(value: float) -> None:
    (key,) = bucket_keys(np.array([value])).tolist()
    assert 0 <= key < 1 << KEY_BITS
    (found,) = bucket_values(np.array([key])).tolist()
    assert found == pytest.approx(value, rel=RELATIVE_ERROR * 1.0001, abs=1e-300)


@given(st.floats(-1e150, 1e150), st.floats(-1e150, 1e150))
def test_keys_ascend_with_values(a: float, b: float) -> None:
    low, high = bucket_keys(np.array(sorted((a, b)))).tolist()
    assert low <= high
