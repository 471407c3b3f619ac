"""The process's metrics: what each process tells, and what bounds them."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from tidemill.core.telemetry import MOST, REGISTRY, REST, Spread, bounded

BOUNDS = (1, 2.5, 10, 100)


def samples(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """Values by name and labels."""
    return {(s.name, *s.labels.values()): s.value for family in registry.collect() for s in family.samples}


@given(st.lists(st.lists(st.floats(0, 200), max_size=20), max_size=5))
def test_a_spread_is_a_histogram_that_takes_many_values_at_once(batches: list[list[float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    spread, histogram = (
        Spread("tidemill_x_seconds", "X.", BOUNDS, ours),
        Histogram("tidemill_x_seconds", "X.", buckets=BOUNDS, registry=theirs),
    )
    for batch in batches:
        spread.add(batch)
        for value in batch:
            histogram.observe(value)
    assert samples(ours) == pytest.approx(samples(theirs))


@given(st.lists(st.text(max_size=3)), st.integers(0, 5), st.text(max_size=3))
def test_a_labels_values_are_bounded(names: list[str], most: int, other: str) -> None:
    label = bounded(names, most)
    values = {label(name) for name in [*names, other]}
    assert len(values - {REST}) <= most
    assert all(label(name) in {name, REST} for name in names)
    assert label(other) == REST or other in names


def test_the_first_names_are_themselves() -> None:
    label = bounded(f"f{number}" for number in range(1000))
    assert [label(f"f{number}") for number in (0, MOST - 1, MOST)] == ["f0", f"f{MOST - 1}", REST]


def test_a_process_tells_its_build() -> None:
    (family,) = [family for family in REGISTRY.collect() if family.name == "tidemill_build"]
    (build,) = family.samples
    assert build.value == 1
    assert build.labels.keys() == {"version", "python"}


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_a_process_tells_what_it_costs() -> None:
    for name in ("cpu_seconds_total", "resident_memory_bytes", "start_time_seconds"):
        value = REGISTRY.get_sample_value(f"tidemill_process_{name}")
        assert value is not None
        assert value > 0


def test_a_counter_is_one_series() -> None:
    assert [family.name for family in REGISTRY.collect() if family.name.endswith("_created")] == []
