"""Filling the online rows: how long others wait for it, and what it means for those who knew the rows before."""

from collections.abc import Iterator
from datetime import UTC, datetime
from threading import Event as Moment
from typing import Any

import polars as pl
import pytest
import redis

from tidemill.core.errors import Unavailable
from tidemill.features import online
from tidemill.features.connection import Keys
from tidemill.features.layout import EVENTS, Layout
from tidemill.features.online import Filling, OnlineReader, OnlineRows, RowsLost, Status
from tidemill.testing import eventually

pytestmark = pytest.mark.redis

LAYOUT = Layout((("x", "float"),))
NOW = datetime(2025, 4, 11, 12, tzinfo=UTC)


def events(source: str, *offsets: int) -> pl.DataFrame:
    time = pl.lit(NOW, pl.Datetime("us", "UTC"))
    frame = pl.DataFrame({"entity": "a", "source": source, "offset": offsets})
    return frame.with_columns(event_time=time, available_at=time, x=pl.col("offset").cast(pl.Float64()))


def nothing() -> Filling:
    return Filling({}, ())


@pytest.fixture
def two(redis_url: str, topic_prefix: str) -> Iterator[tuple[OnlineRows, OnlineRows]]:
    made = OnlineRows(redis_url, topic_prefix, LAYOUT), OnlineRows(redis_url, topic_prefix, LAYOUT)
    for rows in made:
        rows.rebuild(nothing)
    yield made
    for rows in made:
        rows.close()


@pytest.fixture
def reader(redis_url: str, topic_prefix: str) -> Iterator[OnlineReader]:
    made = OnlineReader(redis_url, topic_prefix)
    yield made
    made.close()


def test_a_writer_that_knew_another_filling_is_told_before_it_writes(
    two: tuple[OnlineRows, OnlineRows], reader: OnlineReader
) -> None:
    zombie, owner = two
    zombie.apply(events("old", 1, 2))
    owner.rebuild(lambda: Filling({}, [events("old", 1, 2)], gone={"old"}), force=True)
    with pytest.raises(RowsLost, match="filled anew"):
        zombie.apply(events("old", 1, 2))  # there is no fence any more that would keep it from being taken again
    assert reader.read(["a"])[0].fence == {}
    zombie.rebuild(nothing)
    zombie.apply(events("new", 5))
    assert reader.read(["a"])[0].fence == {"new": 5}


def test_the_last_event_may_be_of_a_source_that_is_gone(
    redis_url: str, topic_prefix: str, two: tuple[OnlineRows, OnlineRows], reader: OnlineReader
) -> None:
    two[0].rebuild(lambda: Filling({}, [events("s2", 7)], gone={"s2"}), force=True)
    newcomer = OnlineRows(redis_url, topic_prefix, LAYOUT)
    newcomer.apply(events("s1", 9))  # the same event time: the greater source wins
    assert reader.read(["a"])[0].values == {"x": 7.0}
    newcomer.apply(events("s3", 1))
    assert reader.read(["a"])[0].values == {"x": 1.0}
    newcomer.close()


def test_an_entity_that_is_new_does_not_change_what_is_known_of_others(
    two: tuple[OnlineRows, OnlineRows], reader: OnlineReader
) -> None:
    rows = two[0]
    rows.apply(events("s2", 1))
    newcomer = events("s1", 9).with_columns(entity=pl.lit("b"))
    rows.apply(pl.concat([events("s1", 8), newcomer]))  # the same event time: the greater source wins
    assert [row.values for row in reader.read(["a", "b"])] == [{"x": 1.0}, {"x": 9.0}]


def test_others_wait_for_a_filling_however_long_it_takes(
    monkeypatch: pytest.MonkeyPatch, two: tuple[OnlineRows, OnlineRows], reader: OnlineReader
) -> None:
    monkeypatch.setattr(online, "_REBUILD_MS", 150)

    def slow() -> Filling:
        Moment().wait(0.5)
        with pytest.raises(Unavailable, match="another worker"):
            two[1].rebuild(nothing)
        return Filling({"s": 3}, [events("s", 3)])

    assert two[0].rebuild(slow, force=True)
    assert reader.read(["a"])[0].status is Status.PRESENT


class Killed(BaseException):
    """The process ends here."""


def test_a_filling_whose_worker_died_half_way_is_done_anew_by_another(
    monkeypatch: pytest.MonkeyPatch, two: tuple[OnlineRows, OnlineRows], reader: OnlineReader
) -> None:
    monkeypatch.setattr(online, "_REBUILD_MS", 300)

    def parts() -> Iterator[pl.DataFrame]:
        yield events("s", 1)
        raise Killed

    with pytest.raises(Killed):
        two[0].rebuild(lambda: Filling({"s": 2}, parts()), force=True)
    assert reader.read(["a"])[0].status is Status.REBUILDING

    def taken_over() -> bool:
        try:
            return two[1].rebuild(lambda: Filling({"s": 2}, [events("s", 1, 2)]))
        except Unavailable:
            return False

    eventually(taken_over)
    assert reader.read(["a"])[0].values == {"x": 2.0}


def test_a_server_that_was_started_again_while_rows_were_filled_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, two: tuple[OnlineRows, OnlineRows]
) -> None:
    rows = two[0]

    def started_again() -> Filling:
        monkeypatch.setattr(rows, "_run_id", lambda: "another run of the server")
        return nothing()

    rows.rebuild(started_again, force=True)
    assert not rows.ready()


def test_rows_that_were_emptied_while_they_were_read_are_asked_for_later(
    redis_url: str, topic_prefix: str, two: tuple[OnlineRows, OnlineRows]
) -> None:
    two[0].apply(events("s", 1))
    client: Any = redis.Redis.from_url(redis_url)
    client.delete(Keys(topic_prefix, EVENTS).names)  # as if between the rows and their names
    client.close()
    newcomer = OnlineReader(redis_url, topic_prefix)
    with pytest.raises(Unavailable, match="emptied"):
        newcomer.read(["a"])
    newcomer.close()
