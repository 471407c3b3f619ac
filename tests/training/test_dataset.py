"""Which rows a run learns from."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.clock import to_ms
from tidemill.events.pictures import PictureStore
from tidemill.spec.model import ContinualModel
from tidemill.testing.training import START, events_frame, labels_frame, tiny_resource
from tidemill.training.dataset import MIN_TRAIN_ROWS, Known, content, labelled, reference_rows, split, without

LATER = to_ms(START + timedelta(days=1))


def rows_of(resource: ContinualModel, events: pl.DataFrame, labels: pl.DataFrame, as_of: int = LATER) -> pl.DataFrame:
    return labelled(events.lazy(), labels.lazy(), resource, as_of=as_of).rows


def known_at(events: pl.DataFrame, labels: pl.DataFrame, as_of: int) -> Known:
    def last(frame: pl.DataFrame) -> dict[str, int]:
        return dict(frame.group_by("source").agg(pl.col("offset").max()).iter_rows())

    return Known(last(events), last(labels), as_of)


def test_a_row_needs_a_label(resource: ContinualModel) -> None:
    events = events_frame(6)
    rows = rows_of(resource, events, labels_frame(events.head(4)))
    assert rows["event_id"].to_list() == ["e0", "e1", "e2", "e3"]


def test_the_label_that_arrived_last_wins(resource: ContinualModel) -> None:
    events = events_frame(1)
    labels = pl.concat(
        [
            labels_frame(events, after_s=9, offset=[7], value=['{"defect": "scratch"}']),
            labels_frame(events, after_s=3, offset=[8], value=['{"defect": "ok"}']),
        ]
    )
    assert rows_of(resource, events, labels)["label"].to_list() == ['{"defect": "scratch"}']


def test_a_row_is_seen_only_once_it_is_mature_and_its_label_is_there(resource: ContinualModel) -> None:
    events = events_frame(1)
    labels = labels_frame(events, after_s=2)
    at = to_ms(START)
    assert rows_of(resource, events, labels, as_of=at + 3_999).height == 0  # labelled, but maturity.after is 4 s
    assert rows_of(resource, events, labels, as_of=at + 4_000).height == 1
    late = labels_frame(events, after_s=10)
    assert rows_of(resource, events, late, as_of=at + 9_999).height == 0
    assert rows_of(resource, events, late, as_of=at + 10_000)["ready_at"].to_list() == [START + timedelta(seconds=10)]


def test_an_event_that_was_sent_twice_is_one_row(resource: ContinualModel) -> None:
    events = events_frame(2)
    again = events.head(1).with_columns(offset=pl.lit(9, pl.Int64), available_at=pl.col("available_at") + timedelta(1))
    labels = labels_frame(events)
    rows = rows_of(resource, pl.concat([events, again]), labels, as_of=LATER + 86_400_000)
    assert sorted(rows["offset"].to_list()) == [1, 9]


def test_labels_without_a_class_of_the_resource_are_left_out_and_counted(resource: ContinualModel) -> None:
    events = events_frame(4)
    values = ['{"defect": "ok"}', '{"defect": "dent"}', "nothing", '{"other": 1}']
    found = labelled(events.lazy(), labels_frame(events, value=values).lazy(), resource, as_of=LATER)
    assert found.rows["event_id"].to_list() == ["e0"]
    assert found.invalid == 2  # a class that nobody declared yet is no mistake


def test_a_refused_label_has_no_value_and_is_no_label(resource: ContinualModel) -> None:
    events = events_frame(2)
    found = labelled(
        events.lazy(), labels_frame(events, value=['{"defect": "ok"}', None]).lazy(), resource, as_of=LATER
    )
    assert (found.rows.height, found.invalid) == (1, 0)


def test_a_label_of_a_prediction_finds_the_event_that_was_predicted(resource: ContinualModel) -> None:
    events = events_frame(2)
    labels = labels_frame(events, entity=[None, None], event_id=[None, None], prediction_id=["p0", "unknown"])
    predictions = pl.DataFrame({"prediction_id": ["p0"], "entity": ["station-0"], "event_id": ["e0"]})
    found = labelled(events.lazy(), labels.lazy(), resource, as_of=LATER, predictions=predictions.lazy())
    assert found.rows["event_id"].to_list() == ["e0"]
    assert rows_of(resource, events, labels).height == 0


def test_the_newest_rows_are_held_out_and_never_trained_on(resource: ContinualModel) -> None:
    events = events_frame(100)
    parts = split(rows_of(resource, events, labels_frame(events)), fresh_rows=30, known=None, seed=1)
    fresh = parts.filter(pl.col("part") == "fresh")
    train = parts.filter(pl.col("part") != "fresh")
    assert (fresh.height, train.height) == (30, 70)
    assert train["event_time"].max() < fresh["event_time"].min()  # type: ignore[operator]
    assert set(train["part"]) == {"new"}


def test_what_the_champions_snapshot_saw_is_replayed_and_the_rest_is_new(resource: ContinualModel) -> None:
    events = events_frame(2000)
    labels = labels_frame(events)
    known = known_at(events.head(600), labels.head(600), to_ms(START + timedelta(seconds=700)))
    parts = split(rows_of(resource, events, labels), fresh_rows=100, known=known, seed=1)
    new = parts.filter(pl.col("part") == "new")
    replay = parts.filter(pl.col("part") == "replay")
    assert new["offset"].to_list() == list(range(600, 1900))
    assert replay.height == round(1300 * 0.3 / 0.7)
    assert replay["offset"].max() < 600  # type: ignore[operator]


def test_few_new_rows_are_filled_up_with_older_ones(resource: ContinualModel) -> None:
    events = events_frame(1000)
    labels = labels_frame(events)
    known = known_at(events.head(900), labels.head(900), LATER)
    parts = split(rows_of(resource, events, labels), fresh_rows=60, known=known, seed=1)
    counts = dict(parts["part"].value_counts().iter_rows())
    assert counts == {"new": 40, "replay": MIN_TRAIN_ROWS - 40, "fresh": 60}


def test_an_old_event_that_was_labelled_since_is_new(resource: ContinualModel) -> None:
    events = events_frame(200)
    early, late = labels_frame(events.head(150)), labels_frame(events.tail(50), after_s=3600)
    seen_at = to_ms(START + timedelta(seconds=600))
    known = known_at(events, early, seen_at)
    rows = rows_of(resource, events, pl.concat([early, late]))
    new = split(rows, fresh_rows=10, known=known, seed=1).filter(pl.col("part") == "new")
    assert new["offset"].to_list() == list(range(150, 190))


def test_a_source_that_the_champion_never_saw_is_new(resource: ContinualModel) -> None:
    """A topic made anew starts at offset 0 again; offsets of the old one say nothing about it."""
    old = events_frame(100)
    anew = events_frame(100, first=100).with_columns(source=pl.lit("c/other/0"), offset=pl.col("offset") - 100)
    labels = pl.concat([labels_frame(old), labels_frame(anew, offset=list(range(100, 200)))])
    known = Known({"c/events/0": 99}, {"c/labels/0": 99}, LATER)
    parts = split(rows_of(resource, pl.concat([old, anew]), labels), fresh_rows=20, known=known, seed=1)
    new = parts.filter(pl.col("part") == "new")
    assert set(new["source"]) == {"c/other/0"}
    assert new.height == 80


@given(st.integers(1, 120), st.integers(0, 120), st.integers(0, 130), st.integers(0, 5))
def test_every_row_is_in_at_most_one_part_and_no_new_row_is_lost(count: int, seen: int, fresh: int, seed: int) -> None:
    events = events_frame(count)
    rows = rows_of(tiny_resource(), events, labels_frame(events))
    known = Known({"c/events/0": seen - 1}, {"c/labels/0": seen - 1}, LATER)
    parts = split(rows, fresh_rows=fresh, known=known, seed=seed)
    assert parts["offset"].n_unique() == parts.height
    expected = set(range(seen, count - min(fresh, count)))
    assert set(parts.filter(pl.col("part") == "new")["offset"]) == expected
    assert parts.filter(pl.col("part") == "fresh").height == min(fresh, count)


def test_the_same_seed_replays_the_same_rows(resource: ContinualModel) -> None:
    events = events_frame(2000)
    labels = labels_frame(events)
    rows = rows_of(resource, events, labels)
    known = known_at(events.head(1500), labels.head(1500), LATER)
    one, same, other = (split(rows, fresh_rows=50, known=known, seed=seed) for seed in (1, 1, 2))
    assert one.equals(same)
    assert not one.equals(other)


def test_content_is_that_of_the_same_event(resource: ContinualModel) -> None:
    events = events_frame(50)
    parts = split(rows_of(resource, events, labels_frame(events)), fresh_rows=5, known=None, seed=1)
    wanted = parts.filter(pl.col("offset") % 7 == 0)
    found = content(events.lazy(), wanted, resource, PictureStore("none"))
    assert found["offset"].to_list() == wanted["offset"].to_list()
    assert found["image"].to_list() == events.filter(pl.col("offset") % 7 == 0)["image"].to_list()
    assert {"image", "brightness", "contrast", "label", "part"} <= set(found.columns)


def test_a_picture_in_the_store_is_content_like_one_in_its_row(resource: ContinualModel, tmp_path: Path) -> None:
    events, store = events_frame(20), PictureStore(str(tmp_path))
    day = date(2026, 11, 25)
    digests = [store.put(image, day) if offset % 2 else None for offset, image in events[["offset", "image"]].rows()]
    away = events.with_columns(
        pl.Series("picture_sha256", digests),
        pl.lit(day).alias("event_date"),
        image=pl.when(pl.Series(digests).is_null()).then(pl.col("image")),
    )
    wanted = split(rows_of(resource, away, labels_frame(events)), fresh_rows=5, known=None, seed=1)
    found = content(away.lazy(), wanted, resource, store)
    assert found.columns == content(events.lazy(), wanted, resource, store).columns
    assert found["image"].to_list() == events["image"].to_list()


def test_no_rows_have_no_content(resource: ContinualModel) -> None:
    events = events_frame(3)
    none = split(rows_of(resource, events, labels_frame(events)), fresh_rows=0, known=None, seed=1).clear()
    assert content(events.lazy(), none, resource, PictureStore("none")).height == 0


def test_the_reference_is_every_event_of_the_rows_newest_time_labelled_or_not(resource: ContinualModel) -> None:
    events = events_frame(200)
    labels = labels_frame(events.filter(pl.col("offset") % 4 == 0))
    known = known_at(events.head(100), labels.head(25), LATER)
    parts = split(rows_of(resource, events, labels), fresh_rows=5, known=known, seed=1)
    found = reference_rows(events.lazy(), parts, resource)
    assert found.columns == ["entity", "event_time", "brightness", "contrast"]
    newest = events.filter(pl.col("offset").is_between(100, 196))
    assert found["event_time"].to_list() == newest["event_time"].to_list()


def test_after_drift_the_reference_begins_where_the_drift_began(resource: ContinualModel) -> None:
    events = events_frame(100)
    parts = split(rows_of(resource, events, labels_frame(events)), fresh_rows=5, known=None, seed=1)
    since = START + timedelta(seconds=90)
    found = reference_rows(events.lazy(), parts, resource, since=since)
    assert (found["event_time"].min(), found.height) == (since, 10)
    assert reference_rows(events.lazy(), parts.clear(), resource).height == 0


@pytest.mark.parametrize("kind", ["string", "int"])
def test_entities_of_any_type_join_with_the_labels_text(kind: str) -> None:
    resource = tiny_resource()
    events = events_frame(2).with_columns(entity=pl.lit("7"))
    labels = labels_frame(events)
    if kind == "int":
        events = events.with_columns(pl.col("entity").cast(pl.Int64))
    assert rows_of(resource, events, labels).height == 2


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_in_which_files_are_read_changes_nothing(seed: int) -> None:
    windows = [{"name": "spread", "agg": "std", "of": "contrast", "over": ["1h"]}]
    resource = tiny_resource(features={"image": ["brightness", "contrast"], "windows": windows})
    events = events_frame(240).with_columns(
        event_time=pl.col("event_time").dt.truncate("60s"), contrast=(pl.col("offset") * 0.37) % 1
    )
    labels = labels_frame(events)

    def all_of(events: pl.DataFrame, labels: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        parts = split(rows_of(resource, events, labels), fresh_rows=60, known=None, seed=1)
        seen = content(events.lazy(), parts, resource, PictureStore("none"), labels=labels.lazy())
        return seen, reference_rows(events.lazy(), parts, resource)

    rows, reference = all_of(events, labels)
    again, same = all_of(*(frame.sample(fraction=1.0, shuffle=True, seed=seed) for frame in (events, labels)))
    assert again.equals(rows)
    assert same.equals(reference)


def test_rows_that_are_kept_for_judging_stay_fresh_and_leave_training(resource: ContinualModel) -> None:
    events = events_frame(100)
    parts = split(rows_of(resource, events, labels_frame(events)), fresh_rows=30, known=None, seed=1)
    left = without(parts, parts.gather([0, 10, 90]))
    assert set(parts["event_id"]) - set(left["event_id"]) == {"e0", "e10"}
    assert left["offset"].is_sorted()
