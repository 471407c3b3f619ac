import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from threading import Thread
from typing import Any

import numpy as np
import polars as pl
import pytest
import redis

from tidemill.core.clock import from_ms
from tidemill.core.errors import Permanent, Unavailable
from tidemill.features.connection import Keys
from tidemill.features.layout import EVENTS, Layout
from tidemill.features.online import Filling, OnlineReader, OnlineRow, OnlineRows, RowsLost, Status
from tidemill.features.tiles import tiled
from tidemill.spec.model import Window
from tidemill.stack.ports import free_ports

pytestmark = pytest.mark.redis


Event = dict[str, Any]

LATENESS = timedelta(seconds=10)
WINDOWS = (
    Window.model_validate({"name": "seen", "agg": "count", "over": ["6s"]}),
    Window.model_validate({"name": "mean", "agg": "mean", "of": "x", "over": ["1m"]}),
)
PLAIN = Layout((("x", "float"),))
WINDOWED = Layout((("x", "float"),), tiled(WINDOWS, LATENESS))


def event(entity: str, offset: int, *, time: int = 0, source: str = "s", x: float | None = None) -> Event:
    at = from_ms(time or offset)
    value = float(offset) if x is None else x
    return {"entity": entity, "source": source, "offset": offset, "event_time": at, "available_at": at, "x": value}


def frame(*events: Event) -> pl.DataFrame:
    time = pl.Datetime("us", "UTC")
    schema = {"entity": pl.String(), "source": pl.String(), "offset": pl.Int64(), "event_time": time}
    return pl.DataFrame(list(events), schema={**schema, "available_at": time, "x": pl.Float64()})


def nothing() -> Filling:
    return Filling({}, ())


def filled(fence: int, *events: Event) -> Filling:
    return Filling({"s": fence}, [frame(*events)])


@pytest.fixture
def rows(redis_url: str, topic_prefix: str) -> Iterator[OnlineRows]:
    made = OnlineRows(redis_url, topic_prefix, PLAIN)
    made.rebuild(nothing)
    yield made
    made.close()


@pytest.fixture
def reader(redis_url: str, topic_prefix: str) -> Iterator[OnlineReader]:
    made = OnlineReader(redis_url, topic_prefix)
    yield made
    made.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    made = redis.Redis.from_url(redis_url)
    yield made
    made.close()


def test_rows_are_read_in_the_order_asked_for_with_their_fences(rows: OnlineRows, reader: OnlineReader) -> None:
    rows.apply(frame(event("a", 3, x=1.5), event("b", 4, x=2.5)))
    assert reader.read(["b", "nobody", "a"]) == [
        OnlineRow(Status.PRESENT, {"x": 2.5}, 4, {"s": 4}),
        OnlineRow(Status.NOT_FOUND),
        OnlineRow(Status.PRESENT, {"x": 1.5}, 3, {"s": 3}),
    ]


def test_events_below_the_fence_change_nothing(rows: OnlineRows, reader: OnlineReader) -> None:
    rows.apply(frame(event("a", 5, x=1.0)))
    rows.apply(frame(event("a", 4, time=99, x=2.0), event("a", 5, time=99, x=3.0)))
    assert reader.read(["a"]) == [OnlineRow(Status.PRESENT, {"x": 1.0}, 5, {"s": 5})]


def test_more_rows_than_fit_into_one_round_trip_are_written_and_read(rows: OnlineRows, reader: OnlineReader) -> None:
    entities = [f"e{number}" for number in range(9000)]
    assert rows.apply(frame(*(event(entity, offset) for offset, entity in enumerate(entities)))) == 0
    assert [row.event_time or 0 for row in reader.read(entities)] == list(range(9000))


def meanwhile(rows: OnlineRows, monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Has something happen between the reading and the writing of the second part of a batch."""
    real, calls = rows._changed, []

    def changed(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            action()
        return real(*args)

    monkeypatch.setattr(rows, "_changed", changed)


def test_rows_that_someone_else_changed_between_reading_and_writing_are_read_again(
    redis_url: str, topic_prefix: str, rows: OnlineRows, reader: OnlineReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    entities, other = [f"e{number}" for number in range(9000)], OnlineRows(redis_url, topic_prefix, PLAIN)
    newer = [event("e8500", 9500, source="t"), event("e8999", 9501, source="t")]
    meanwhile(rows, monkeypatch, lambda: other.apply(frame(*newer)))
    assert rows.apply(frame(*(event(entity, offset) for offset, entity in enumerate(entities)))) == 2
    found = dict(zip(entities, reader.read(entities), strict=True))
    assert found["e8999"] == OnlineRow(Status.PRESENT, {"x": 9501.0}, 9501, {"s": 8999, "t": 9501})
    assert {entity: row.fence["s"] for entity, row in found.items()} == {f"e{n}": n for n in range(9000)}
    other.close()


def test_a_store_that_is_lost_between_two_parts_of_a_batch_takes_nothing_more(
    rows: OnlineRows, client: Any, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(rows, monkeypatch, lambda: client.delete(Keys(topic_prefix, EVENTS).generation))
    with pytest.raises(RowsLost):
        rows.apply(frame(*(event(f"e{offset}", offset) for offset in range(9000))))
    assert client.exists(*Keys(topic_prefix, EVENTS).rows(["e8999"])) == 0


def test_workers_that_share_entities_lose_and_double_nothing(
    redis_url: str, topic_prefix: str, rows: OnlineRows, reader: OnlineReader
) -> None:
    entities = [f"e{number}" for number in range(5)]
    refusals = []

    def work(source: str) -> None:
        mine = OnlineRows(redis_url, topic_prefix, PLAIN)
        chosen = random.Random(source)
        for start in range(0, 300, 3):
            batch = [event(chosen.choice(entities), start + i, source=source) for i in range(3)]
            refusals.append(mine.apply(frame(*batch)))
        mine.close()

    threads = [Thread(target=work, args=[source]) for source in ("s0", "s1", "s2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected: dict[str, dict[str, int]] = {entity: {} for entity in entities}
    for source in ("s0", "s1", "s2"):
        chosen = random.Random(source)
        for offset in range(300):
            expected[chosen.choice(entities)][source] = offset
    assert {entity: row.fence for entity, row in zip(entities, reader.read(entities), strict=True)} == expected
    assert sum(refusals) > 0, "the workers never met, so the test showed nothing"


def test_a_lost_store_answers_rebuilding_and_takes_no_events(
    rows: OnlineRows, reader: OnlineReader, client: Any, topic_prefix: str
) -> None:
    rows.apply(frame(event("a", 1)))
    client.delete(Keys(topic_prefix, EVENTS).generation)
    assert reader.read(["a"]) == [OnlineRow(Status.REBUILDING)]
    assert not rows.ready()
    with pytest.raises(RowsLost):
        rows.apply(frame(event("a", 2)))


def test_a_server_that_came_back_with_an_older_copy_is_lost(rows: OnlineRows, client: Any, topic_prefix: str) -> None:
    key = Keys(topic_prefix, EVENTS).generation
    state, token, _, windows = client.get(key).decode().split(":")
    client.set(key, f"{state}:{token}:anotherrunoftheserver:{windows}")
    assert not rows.ready()
    with pytest.raises(RowsLost):
        rows.apply(frame(event("a", 2)))


def test_a_rebuild_fills_the_rows_with_their_fence_and_forgets_what_was_there(
    rows: OnlineRows, reader: OnlineReader, client: Any, topic_prefix: str
) -> None:
    rows.apply(frame(event("a", 9, x=9.0), event("stale", 9)))
    client.delete(Keys(topic_prefix, EVENTS).generation)
    assert rows.rebuild(lambda: filled(7, event("a", 6, time=5)))
    assert reader.read(["a", "stale"]) == [
        OnlineRow(Status.PRESENT, {"x": 6.0}, 5, {"s": 7}),
        OnlineRow(Status.NOT_FOUND),
    ]
    rows.apply(frame(event("a", 7, time=99, x=7.0), event("a", 8, time=99, x=8.0), event("stale", 9, x=1.0)))
    assert [row.values for row in reader.read(["a", "stale"])] == [{"x": 8.0}, {"x": 1.0}]


@pytest.mark.parametrize("found", [b"garbage!", b"x"])
def test_rows_that_cannot_be_read_are_lost_and_filled_again(
    rows: OnlineRows, reader: OnlineReader, client: Any, topic_prefix: str, found: bytes
) -> None:
    rows.apply(frame(event("a", 3, x=1.0)))
    client.set(*Keys(topic_prefix, EVENTS).rows(["a"]), found)
    with pytest.raises(RowsLost, match="cannot be read"):
        rows.apply(frame(event("a", 4, x=2.0)))
    assert reader.read(["a"]) == [OnlineRow(Status.REBUILDING)]
    assert rows.rebuild(lambda: filled(3, event("a", 3, x=1.0)))
    rows.apply(frame(event("a", 4, x=2.0)))
    assert reader.read(["a"]) == [OnlineRow(Status.PRESENT, {"x": 2.0}, 4, {"s": 4})]


def test_while_rows_are_filled_a_reader_never_sees_a_part(rows: OnlineRows, reader: OnlineReader) -> None:
    seen = []

    def filling() -> Iterator[pl.DataFrame]:
        for part in range(4):
            seen.append(reader.read(["e0"])[0].status)
            yield frame(*(event(f"e{number}", 1) for number in range(300 * part, 300 * part + 300)))

    rows.rebuild(lambda: Filling({"s": 1}, filling()), force=True)
    assert set(seen) == {Status.REBUILDING}
    assert reader.read(["e0", "e1199"]) == [OnlineRow(Status.PRESENT, {"x": 1.0}, 1, {"s": 1})] * 2


def test_complete_rows_are_filled_again_only_by_force(rows: OnlineRows) -> None:
    assert not rows.rebuild(nothing)
    assert rows.rebuild(nothing, force=True)


def test_a_second_worker_waits_while_the_first_rebuilds(redis_url: str, topic_prefix: str, rows: OnlineRows) -> None:
    other = OnlineRows(redis_url, topic_prefix, PLAIN)

    def meanwhile() -> Filling:
        with pytest.raises(Unavailable, match="another worker"):
            other.rebuild(nothing)
        with pytest.raises(RowsLost):
            other.apply(frame(event("a", 1)))
        return nothing()

    rows.rebuild(meanwhile, force=True)
    assert not other.rebuild(nothing)
    other.close()


def test_a_rebuild_that_was_taken_over_writes_nothing_more(
    redis_url: str, topic_prefix: str, rows: OnlineRows, reader: OnlineReader, client: Any
) -> None:
    other = OnlineRows(redis_url, topic_prefix, PLAIN)

    def slow() -> Filling:
        client.delete(Keys(topic_prefix, EVENTS).generation)  # its time ran out
        other.rebuild(lambda: filled(2, event("a", 2)))
        return filled(1, event("a", 1))

    with pytest.raises(RowsLost, match="another worker"):
        rows.rebuild(slow, force=True)
    assert reader.read(["a"])[0].values == {"x": 2.0}
    other.close()


def test_a_server_that_evicts_rows_is_refused(rows: OnlineRows, client: Any) -> None:
    assert rows.check() is None
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(Permanent, match="allkeys-lru") as refused:
            rows.check()
        assert "noeviction" in str(refused.value.hint)
    finally:
        client.config_set("maxmemory-policy", "noeviction")


def test_a_server_that_is_not_there_is_unavailable() -> None:
    (port,) = free_ports(1)
    with pytest.raises(Unavailable, match="does not answer"):
        OnlineReader(f"redis://127.0.0.1:{port}/0", "m").read(["a"])
    with pytest.raises(Unavailable, match="does not answer"):
        OnlineRows(f"redis://127.0.0.1:{port}/0", "m", PLAIN).apply(frame(event("a", 1)))


def test_windows_are_evaluated_at_the_time_of_the_read(redis_url: str, topic_prefix: str) -> None:
    rows = OnlineRows(redis_url, topic_prefix, WINDOWED)
    rows.rebuild(nothing)
    rows.apply(frame(*(event("a", n, time=1000 * n) for n in range(1, 9))))
    reader = OnlineReader(redis_url, topic_prefix, layout=WINDOWED)
    assert reader.read(["a"], 8000)[0].values == {"x": 8.0, "seen_6s": 6, "mean_1m": 4.5}
    assert reader.read(["a"], 13_000)[0].values == {"x": 8.0, "seen_6s": 1, "mean_1m": 4.5}
    assert reader.read(["a"], 90_000)[0].values == {"x": 8.0, "seen_6s": 0, "mean_1m": None}
    assert reader.read(["a"])[0].values == {"x": 8.0}
    assert reader.read(["nobody"], 8000) == [OnlineRow(Status.NOT_FOUND, {"seen_6s": 0, "mean_1m": None})]
    for one in (rows, reader):
        one.close()


def test_a_matrix_has_the_numbers_of_the_rows_and_nan_where_there_is_none(redis_url: str, topic_prefix: str) -> None:
    rows = OnlineRows(redis_url, topic_prefix, WINDOWED)
    rows.rebuild(nothing)
    rows.apply(frame(event("a", 1000, x=2.5), {**event("b", 2000), "x": None}))
    reader = OnlineReader(redis_url, topic_prefix, layout=WINDOWED, ttl_ms=5000)
    matrix, statuses = reader.read_matrix(["a", "nobody", "b", "a"], ["mean_1m", "x", "seen_6s"], 6000)
    nan = float("nan")
    expected = [[2.5, 2.5, 1], [nan, nan, 0], [nan, nan, 1], [2.5, 2.5, 1]]
    assert np.array_equal(matrix, expected, equal_nan=True)
    assert statuses == [Status.PRESENT, Status.NOT_FOUND, Status.PRESENT, Status.PRESENT]
    matrix, statuses = reader.read_matrix(["a", "b"], ["x", "mean_1m"], 6001)
    assert statuses == [Status.OUTSIDE_MAX_AGE, Status.PRESENT]
    assert np.array_equal(matrix, [[nan, 2.5], [nan, nan]], equal_nan=True)
    (old,) = reader.read(["a"], 6001)
    assert (old.status, old.values) == (Status.OUTSIDE_MAX_AGE, {"x": None, "seen_6s": 1, "mean_1m": 2.5})
    for one in (rows, reader):
        one.close()


def test_a_new_field_needs_no_stop_old_rows_have_none_of_it_until_their_next_event(
    redis_url: str, topic_prefix: str, rows: OnlineRows, reader: OnlineReader
) -> None:
    rows.apply(frame(event("a", 1), event("b", 2)))
    newer = OnlineRows(redis_url, topic_prefix, Layout((("x", "float"), ("y", "int"))))
    assert newer.ready()
    newer.apply(frame(event("a", 3)).with_columns(y=pl.lit(7)))
    assert [row.values for row in reader.read(["a", "b"])] == [{"x": 3.0, "y": 7}, {"x": 2.0}]
    matrix, _ = OnlineReader(redis_url, topic_prefix).read_matrix(["b", "a"], ["y", "x"], 9)
    assert np.array_equal(matrix, [[float("nan"), 2.0], [7.0, 3.0]], equal_nan=True)
    newer.close()


def test_another_set_of_windows_is_filled_from_the_lake(redis_url: str, topic_prefix: str, rows: OnlineRows) -> None:
    windowed = OnlineRows(redis_url, topic_prefix, WINDOWED)
    assert rows.ready()
    assert not windowed.ready()
    with pytest.raises(RowsLost):
        windowed.apply(frame(event("a", 1)))
    assert windowed.rebuild(lambda: filled(2, event("a", 1000), event("a", 2000)))
    reader = OnlineReader(redis_url, topic_prefix, layout=WINDOWED)
    assert reader.read(["a"], 2000)[0].values == {"x": 2000.0, "seen_6s": 2, "mean_1m": 1500.0}
    for one in (windowed, reader):
        one.close()


def test_a_user_without_rights_is_told_so(redis_url: str, topic_prefix: str, client: Any) -> None:
    client.acl_setuser(topic_prefix, enabled=True, passwords=["+secret"], keys=[f"{topic_prefix}*"], commands=["+get"])
    try:
        refused = redis_url.replace("redis://", f"redis://{topic_prefix}:secret@")
        with pytest.raises(Permanent, match="refuse"):
            OnlineReader(refused, topic_prefix).read(["a"])
        wrong = redis_url.replace("redis://", f"redis://{topic_prefix}:wrong@")
        with pytest.raises(Permanent, match="Redis refuses this user"):
            OnlineReader(wrong, topic_prefix).read(["a"])
    finally:
        client.acl_deluser(topic_prefix)
