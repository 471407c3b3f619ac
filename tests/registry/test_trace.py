"""What made a thing, and what it went into: pure."""

from hypothesis import given
from hypothesis import strategies as st

from tidemill.registry.trace import (
    Fact,
    Trace,
    VersionKnown,
    ancestors,
    descendants,
    of_event,
    of_prediction,
    of_snapshot,
    of_version,
)


def known(version: str, snapshot: str, warm_from: str = "") -> VersionKnown:
    return VersionKnown(version=version, snapshot=snapshot, warm_from=warm_from, run={"cause": "drift"})


CHAIN = {"v1": known("v1", "s1"), "v2": known("v2", "s2", "v1"), "v3": known("v3", "s3", "v2"), "v4": known("v4", "s4")}
SNAPSHOTS = {f"s{number}": {"rows": number} for number in range(1, 5)}


def ids(facts: tuple[Fact, ...]) -> list[str]:
    return [f"{one.kind} {one.id}" for one in facts]


def test_a_version_is_made_of_its_run_its_snapshot_and_those_of_all_it_was_warm_started_from() -> None:
    found = of_version(CHAIN, SNAPSHOTS, "v3")
    expected = ["run v3", "snapshot s3", "version v2", "snapshot s2", "version v1", "snapshot s1"]
    assert (ids(found.back), found.forth) == (expected, ())
    assert ids(of_version(CHAIN, SNAPSHOTS, "v1").forth) == ["version v2", "version v3"]


def test_a_snapshot_goes_into_its_versions_and_theirs() -> None:
    assert ids(of_snapshot(CHAIN, SNAPSHOTS, "s2").forth) == ["version v2", "version v3"]


def test_fresh_rows_are_learnt_by_nobody() -> None:
    event = Fact(kind="event", id="c/events/0@7")
    found: Trace = of_event(CHAIN, event, (), {"s1": "fresh", "s4": "new"}, ())
    assert ids(found.forth) == ["snapshot s1", "snapshot s4", "version v4"]


def test_a_prediction_is_made_of_its_event_and_of_all_that_made_its_version() -> None:
    prediction = Fact(kind="prediction", id="p", told={"version": "v2"})
    event, outcome = Fact(kind="event", id="e"), Fact(kind="outcome", id="p/0")
    found = of_prediction(CHAIN, SNAPSHOTS, prediction, [event], [outcome])
    assert ids(found.back)[:3] == ["event e", "version v2", "run v2"]
    assert ids(found.back)[-1] == "snapshot s1"
    assert ids(found.forth) == ["outcome p/0"]


def test_what_is_gone_is_said_to_be_gone() -> None:
    found = of_version({"v2": known("v2", "s2", "v1")}, {}, "v2")
    assert ids(found.back) == ["run v2", "snapshot s2", "version v1"]
    assert all("gone" in one.told for one in found.back[1:])


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["", *"abcdef"]), max_size=6))
def test_chains_of_any_shape_end_and_both_ways_agree(warm: dict[str, str]) -> None:
    versions = {name: known(name, f"s{name}", before) for name, before in warm.items()}
    for name in versions:
        found = ancestors(versions, name)
        assert len(found) == len(set(found))
        assert name not in found
        assert all(name in descendants(versions, one) for one in found if one in versions)
