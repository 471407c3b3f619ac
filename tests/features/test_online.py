import random
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
import redis

from tidemill.core.errors import Permanent, Unavailable
from tidemill.features.online import Filling, OnlineReader, OnlineRow, OnlineRows, RowsLost, Status
from tidemill.features.rows import Last, OnlineEvent
from tidemill.stack.ports import free_ports

pytestmark = pytest.mark.redis


def event(entity: str, offset: int, *, time: int = 0, source: str = "s", **values: float) -> OnlineEvent:
    return OnlineEvent(entity, source, offset, time or offset, dict(values) or {"x": float(offset)})


def nothing() -> Filling:
    return Filling({}, ())


@pytest.fixture
def rows(redis_url: str, topic_prefix: str) -> Iterator[OnlineRows]:
    made = OnlineRows(redis_url, topic_prefix)
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
    rows.apply([event("a", 3, x=1.5), event("b", 4, x=2.5)])
    assert reader.read(["b", "nobody", "a"]) == [
        OnlineRow(Status.PRESENT, {"x": 2.5}, 4, {"s": 4}),
        OnlineRow(Status.NOT_FOUND),
        OnlineRow(Status.PRESENT, {"x": 1.5}, 3, {"s": 3}),
    ]


def test_events_below_the_fence_change_nothing(rows: OnlineRows, reader: OnlineReader) -> None:
    rows.apply([event("a", 5, x=1.0)])
    rows.apply([event("a", 4, time=99, x=2.0), event("a", 5, time=99, x=3.0)])
    assert reader.read(["a"]) == [OnlineRow(Status.PRESENT, {"x": 1.0}, 5, {"s": 5})]


def test_more_rows_than_fit_into_one_round_trip_are_written_and_read(rows: OnlineRows, reader: OnlineReader) -> None:
    entities = [f"e{number}" for number in range(1500)]
    rows.apply(event(entity, offset) for offset, entity in enumerate(entities))
    assert [row.event_time or 0 for row in reader.read(entities)] == list(range(1500))


def test_workers_that_share_entities_lose_and_double_nothing(
    redis_url: str, topic_prefix: str, rows: OnlineRows, reader: OnlineReader
) -> None:
    entities = [f"e{number}" for number in range(5)]
    refusals = []

    def work(source: str) -> None:
        mine = OnlineRows(redis_url, topic_prefix)
        chosen = random.Random(source)
        for start in range(0, 300, 3):
            batch = [event(chosen.choice(entities), start + i, source=source) for i in range(3)]
            refusals.append(mine.apply(batch))
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
    rows.apply([event("a", 1)])
    client.delete(f"{topic_prefix}:events#generation")
    assert reader.read(["a"]) == [OnlineRow(Status.REBUILDING)]
    assert not rows.ready()
    with pytest.raises(RowsLost):
        rows.apply([event("a", 2)])


def test_a_server_that_came_back_with_an_older_copy_is_lost(rows: OnlineRows, client: Any, topic_prefix: str) -> None:
    key = f"{topic_prefix}:events#generation"
    state, token, _ = client.get(key).decode().split(":")
    client.set(key, f"{state}:{token}:anotherrunoftheserver")
    assert not rows.ready()
    with pytest.raises(RowsLost):
        rows.apply([event("a", 2)])


def test_a_rebuild_fills_the_rows_with_their_fence_and_forgets_what_was_there(
    rows: OnlineRows, reader: OnlineReader, client: Any, topic_prefix: str
) -> None:
    rows.apply([event("a", 9, x=9.0), event("stale", 9)])
    client.delete(f"{topic_prefix}:events#generation")
    assert rows.rebuild(lambda: Filling({"s": 7}, [("a", Last(5, "s", 6, {"x": 6.0}))]))
    assert reader.read(["a", "stale"]) == [
        OnlineRow(Status.PRESENT, {"x": 6.0}, 5, {"s": 7}),
        OnlineRow(Status.NOT_FOUND),
    ]
    rows.apply([event("a", 7, time=99, x=7.0), event("a", 8, time=99, x=8.0), event("stale", 8, x=1.0)])
    assert [row.values for row in reader.read(["a", "stale"])] == [{"x": 8.0}, {"x": 1.0}]


def test_while_rows_are_filled_a_reader_never_sees_a_part(rows: OnlineRows, reader: OnlineReader) -> None:
    seen = []

    def filling() -> Iterator[tuple[str, Last]]:
        for number in range(1200):
            if number % 300 == 0:
                seen.append(reader.read(["e0"])[0].status)
            yield f"e{number}", Last(1, "s", 1, {"x": 1.0})

    rows.rebuild(lambda: Filling({"s": 1}, filling()), force=True)
    assert set(seen) == {Status.REBUILDING}
    assert reader.read(["e0", "e1199"]) == [OnlineRow(Status.PRESENT, {"x": 1.0}, 1, {"s": 1})] * 2


def test_complete_rows_are_filled_again_only_by_force(rows: OnlineRows) -> None:
    assert not rows.rebuild(nothing)
    assert rows.rebuild(nothing, force=True)


def test_a_second_worker_waits_while_the_first_rebuilds(redis_url: str, topic_prefix: str, rows: OnlineRows) -> None:
    other = OnlineRows(redis_url, topic_prefix)

    def meanwhile() -> Filling:
        with pytest.raises(Unavailable, match="another worker"):
            other.rebuild(nothing)
        with pytest.raises(RowsLost):
            other.apply([event("a", 1)])
        return nothing()

    rows.rebuild(meanwhile, force=True)
    assert not other.rebuild(nothing)
    other.close()


def test_a_rebuild_that_was_taken_over_writes_nothing_more(
    redis_url: str, topic_prefix: str, rows: OnlineRows, reader: OnlineReader, client: Any
) -> None:
    other = OnlineRows(redis_url, topic_prefix)

    def slow() -> Filling:
        client.delete(f"{topic_prefix}:events#generation")  # its time ran out
        other.rebuild(lambda: Filling({"s": 2}, [("a", Last(2, "s", 2, {"x": 2.0}))]))
        return Filling({"s": 1}, [("a", Last(1, "s", 1, {"x": 1.0}))])

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
        OnlineRows(f"redis://127.0.0.1:{port}/0", "m").apply([event("a", 1)])
