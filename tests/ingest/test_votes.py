from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.events import parts as parts_module
from tidemill.events.cells import by_name
from tidemill.events.cluster import MAX_MESSAGE_BYTES
from tidemill.events.lake import Span
from tidemill.events.parts import MAX_SKETCH_BYTES
from tidemill.events.records import FeatureSketch, Sketch, decode, encode
from tidemill.events.sources import Source
from tidemill.events.tallies import places
from tidemill.ingest.votes import Voting, sketch, sketches
from tidemill.spec.model import ContinualModel, DriftTrigger

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
A = Source("c", "t", 0)
Event = tuple[int, int, str, float | None]
"""Event time and delay in ms, entity, value."""


@pytest.fixture(scope="module")
def voting(make_resource: Callable[..., ContinualModel]) -> Voting:
    fields = [{"name": "x", "type": "float", "required": False}]
    return Voting(make_resource("votes", features={}, fields=fields, allowedLateness="500ms"))


def frame(events: list[Event]) -> pl.DataFrame:
    columns = {
        "offset": range(len(events)),
        "event_time": [EPOCH + timedelta(milliseconds=time) for time, _, _, _ in events],
        "available_at": [EPOCH + timedelta(milliseconds=time + delay) for time, delay, _, _ in events],
        "entity": [entity for _, _, entity, _ in events],
        "x": [value for _, _, _, value in events],
    }
    schema = {"offset": pl.Int64(), "event_time": pl.Datetime("us", "UTC"), "available_at": pl.Datetime("us", "UTC")}
    return pl.DataFrame(columns, schema={**schema, "entity": pl.String(), "x": pl.Float64()})


def votes_of(sketched: Sketch) -> dict[int, dict[str, dict[str, FeatureSketch]]]:
    return {tick: by_name(votes) for tick, votes in sketched.votes.items()}


def made(voting: Voting, events: list[Event]) -> Sketch:
    return sketch(voting, A, Span(-1, len(events) - 1), frame(events))


def test_votes_are_summed_by_tick_entity_and_feature(voting: Voting) -> None:
    found = made(voting, [(1000, 0, "A", 1.0), (1999, 0, "A", 2.0), (2000, 0, "A", 4.0), (1500, 0, "B", None)])
    assert votes_of(found) == {
        1: {"A": {"x": FeatureSketch(count=2, total=3.0)}, "B": {"x": FeatureSketch(count=0, total=0.0, missing=1)}},
        2: {"A": {"x": FeatureSketch(count=1, total=4.0)}},
    }
    assert (found.tick_ms, found.max_event_time) == (1000, 2000)


def test_an_event_that_came_too_late_has_no_vote_but_moves_the_time(voting: Voting) -> None:
    found = made(voting, [(1000, 500, "A", 1.0), (3000, 501, "A", 9.0)])
    assert votes_of(found) == {1: {"A": {"x": FeatureSketch(count=1, total=1.0)}}}
    assert found.max_event_time == 3000


def test_a_range_without_events_is_a_sketch_without_votes(voting: Voting) -> None:
    found = sketch(voting, A, Span(4, 9), frame([]))
    assert (found.first_offset, found.last_offset, found.max_event_time, found.votes) == (5, 9, 0, {})


def test_without_a_drift_trigger_there_are_no_votes(make_resource: Callable[..., ContinualModel]) -> None:
    resource = make_resource("nodrift")
    spec = resource.spec.model_copy(update={"triggers": resource.spec.triggers.model_copy(update={"drift": None})})
    voting = Voting(resource.model_copy(update={"spec": spec}))
    assert voting.tick_ms == 10_000
    found = sketch(voting, A, Span(-1, 3), frame([(1000, 0, "A", 1.0), (3000, 501, "A", 9.0)]))
    assert (found.votes, found.max_event_time, found.last_offset) == ({}, 3000, 3)


def test_where_inputs_are_not_watched_there_are_no_votes(make_resource: Callable[..., ContinualModel]) -> None:
    resource = make_resource("labelsonly")
    drift = DriftTrigger.model_validate({"watch": ["labels"]})
    triggers = resource.spec.triggers.model_copy(update={"drift": drift})
    resource = resource.model_copy(update={"spec": resource.spec.model_copy(update={"triggers": triggers})})
    assert sketch(Voting(resource), A, Span(-1, 3), frame([(1000, 0, "A", 1.0)])).votes == {}


def test_fields_of_text_yes_or_no_and_lists_are_counted_by_value(make_resource: Callable[..., ContinualModel]) -> None:
    fields = [
        {"name": "x", "type": "float"},
        {"name": "material", "type": "string", "required": False},
        {"name": "wet", "type": "bool"},
        {"name": "line", "type": "int", "enum": [1, 2]},
    ]
    voting = Voting(make_resource("kinds", features={}, fields=fields, allowedLateness="500ms"))
    assert (voting.numbers, voting.categories) == (("x",), ("material", "wet", "line"))
    rows = frame([(1000, 0, "A", 1.0), (1100, 0, "A", 1.0), (1200, 900, "A", 1.0)]).with_columns(
        material=pl.Series(["steel", None, "late"]), wet=pl.Series([True, False, True]), line=pl.Series([2, 2, 1])
    )
    assert votes_of(sketch(voting, A, Span(-1, 2), rows))[1]["A"] == {
        "x": FeatureSketch(count=2, total=2.0),
        "material": FeatureSketch(count=1, missing=1, values={"steel": 1}),
        "wet": FeatureSketch(count=2, values={"false": 1, "true": 1}),
        "line": FeatureSketch(count=2, values={"2": 2}),
    }
    assert sketch(voting, A, Span(-1, 2), rows[2:]).votes == {}


def test_of_very_many_entities_a_sample_is_kept_and_its_bound_told(voting: Voting) -> None:
    found = made(voting, [(1000 * (number % 2), 0, f"e{number}", 1.0) for number in range(3_000)])
    assert {tick: len(votes.entities) for tick, votes in found.votes.items()} == {0: 128, 1: 128}
    assert all(0 < votes.kept < 1 for votes in found.votes.values())
    assert decode(Sketch, encode(found)) == found


EVENTS = st.lists(
    st.tuples(st.integers(0, 4000), st.integers(-500, 900), st.sampled_from("AB"), st.none() | st.floats(-1e9, 1e9)),
    max_size=12,
)


@given(EVENTS, st.data())
def test_the_order_in_which_rows_are_read_back_does_not_show(voting: Voting, events: list[Event], data: Any) -> None:
    rows = frame(events)
    order = data.draw(st.permutations(range(len(events))))
    assert sketch(voting, A, Span(-1, len(events)), rows[order] if events else rows) == made_to(voting, events)


def made_to(voting: Voting, events: list[Event]) -> Sketch:
    return sketch(voting, A, Span(-1, len(events)), frame(events))


@given(EVENTS)
def test_each_event_that_is_not_late_is_counted_once(voting: Voting, events: list[Event]) -> None:
    counted: Counter[tuple[int, str]] = Counter()
    for tick, entities in votes_of(made(voting, events)).items():
        for entity, features in entities.items():
            counted[tick, entity] += features["x"].count + features["x"].missing
    assert counted == Counter((time // 1000, entity) for time, delay, entity, _ in events if delay <= 500)


@given(EVENTS)
def test_a_sketch_reads_back_from_its_bytes(voting: Voting, events: list[Event]) -> None:
    found = made(voting, events)
    assert decode(Sketch, encode(found)) == found


def test_a_sketch_fits_into_a_record_however_long_the_names_of_its_entities_are(voting: Voting) -> None:
    events: list[Event] = [(number, 0, chr(0x1F600 + number % 50) * 12_000 + str(number), 1.0) for number in range(500)]
    parts = sketches(voting, A, Span(6, 499), frame(events)[7:])
    assert max(len(encode(part)) for part in parts) <= MAX_SKETCH_BYTES < MAX_MESSAGE_BYTES
    assert (parts[0].first_offset, parts[-1].last_offset) == (7, 499)
    assert all(one.last_offset + 1 == after.first_offset for one, after in pairwise(parts))
    assert len(parts) > 1
    held = {entity for part in parts for votes in part.votes.values() for entity in votes.entities}
    bound = min(part.votes[0].kept for part in parts)
    assert {entity for entity, at in places([name for _, _, name, _ in events[7:]], 0).items() if at < bound} <= held


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 500), st.sampled_from("AB"), st.just(1.0)), max_size=40))
def test_the_parts_of_a_sketch_have_its_votes(voting: Voting, events: list[Event]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_module, "MAX_SKETCH_BYTES", 300)
        parts = sketches(voting, A, Span(-1, 99), frame(events))
    whole = sketch(voting, A, Span(-1, 99), frame(events))
    assert sum((counted(part) for part in parts), Counter()) == counted(whole)
    assert max(part.max_event_time for part in parts) == whole.max_event_time
    assert [parts[0].first_offset, *(part.last_offset + 1 for part in parts)] == [
        *(part.first_offset for part in parts),
        100,
    ]


def counted(found: Sketch) -> Counter[tuple[int, str]]:
    return Counter(
        {(tick, name): one["x"].count for tick, entities in votes_of(found).items() for name, one in entities.items()}
    )
