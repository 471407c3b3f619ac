"""Windows of a prediction: all of them or none, and the answer never waits. Statistics of the request's picture."""

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from tidemill.core.clock import from_ms
from tidemill.core.errors import InvalidInput, Unavailable
from tidemill.core.telemetry import REGISTRY
from tidemill.events.records import Prediction
from tidemill.features.images import statistics
from tidemill.features.layout import layout_of
from tidemill.features.online import Filling, OnlineRows
from tidemill.features.reader import OnlineReader, OnlineRow, Status
from tidemill.features.tiles import window_values
from tidemill.serving.features import OnlineFeatures, Views
from tidemill.serving.predictor import Predictor
from tidemill.serving.rows import RequestRow
from tidemill.serving.server import _feature_source
from tidemill.spec.model import ContinualModel
from tidemill.testing.serving import picture, served_resource

NOW = 1_900_000_000_000


class Source:
    """Online rows in a dict; out of order while `broken`."""

    def __init__(self, rows: dict[str, OnlineRow]) -> None:
        self.rows, self.broken, self.reads = rows, False, 0

    def read(self, entities: Sequence[str], now_ms: int | None = None) -> list[OnlineRow]:
        assert now_ms == NOW
        self.reads += 1
        if self.broken:
            raise Unavailable("Redis does not answer")
        return [self.rows.get(entity, OnlineRow(Status.NOT_FOUND)) for entity in entities]


class HandClock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


PRESENT = OnlineRow(Status.PRESENT, {"seen_10m": 6, "mean_1h": 0.2, "exposure_ms": 4.0}, 1, {"c/t/0": 41})


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def test_the_named_features_come_with_their_fence(clock: HandClock) -> None:
    features = OnlineFeatures(Source({"A": PRESENT}), ("seen_10m", "mean_1h"), clock=clock)
    (found,) = features.of(["A"], NOW)
    assert found.values == {"seen_10m": 6, "mean_1h": 0.2}
    assert (found.fence, found.status) == ({"c/t/0": 41}, "PRESENT")


def test_rows_of_one_entity_are_read_once(clock: HandClock) -> None:
    source = Source({"A": PRESENT})
    found = OnlineFeatures(source, ("seen_10m",), clock=clock).of(["A", "B", "A"], NOW)
    assert [one.status for one in found] == ["PRESENT", "NOT_FOUND", "PRESENT"]
    assert source.reads == 1


@pytest.mark.parametrize("status", [Status.NOT_FOUND, Status.REBUILDING])
def test_what_is_not_there_is_absent_as_a_whole_with_its_status(clock: HandClock, status: Status) -> None:
    features = OnlineFeatures(Source({"A": OnlineRow(status)}), ("seen_10m", "mean_1h"), clock=clock)
    (found,) = features.of(["A"], NOW)
    assert found.values == {"seen_10m": None, "mean_1h": None}
    assert (found.fence, found.status) == ({}, status.value)


def test_a_store_that_does_not_answer_is_left_alone_for_a_moment(clock: HandClock) -> None:
    source = Source({"A": PRESENT})
    source.broken = True
    features = OnlineFeatures(source, ("seen_10m",), clock=clock)
    assert [features.of(["A"], NOW)[0].status for _ in range(5)] == ["UNAVAILABLE"] * 5
    assert source.reads == 1
    source.broken = False
    clock.sleep(1.1)
    assert features.of(["A"], NOW)[0].status == "PRESENT"


def test_two_views_are_read_as_one_row(clock: HandClock) -> None:
    said = OnlineRow(Status.PRESENT, {"defects_1h": 0.5}, 7, {"c/l/0": 3})
    rows = Views([Source({"A": PRESENT}), Source({"A": said, "B": said})]).read(["A", "B", "C"], NOW)
    assert rows[0] == OnlineRow(Status.PRESENT, PRESENT.values | said.values, 1, {"c/t/0": 41, "c/l/0": 3})
    assert [row.status for row in rows] == [Status.PRESENT, Status.PRESENT, Status.NOT_FOUND]


def test_while_one_view_is_rebuilt_no_part_of_a_row_is_given() -> None:
    views = Views([Source({"A": PRESENT}), Source({"A": OnlineRow(Status.REBUILDING)})])
    assert views.read(["A"], NOW) == [OnlineRow(Status.REBUILDING)]


def test_without_features_nothing_is_read(clock: HandClock) -> None:
    source = Source({"A": PRESENT})
    (found,) = OnlineFeatures(source, (), clock=clock).of(["A"], NOW)
    assert (found.values, found.status, source.reads) == ({}, None, 0)


def test_an_entity_without_events_has_been_seen_no_times(clock: HandClock) -> None:
    nothing = OnlineRow(Status.NOT_FOUND, {"seen_10m": 0, "mean_1h": None})
    (found,) = OnlineFeatures(Source({"A": nothing}), ("seen_10m", "mean_1h"), clock=clock).of(["A"], NOW)
    assert (found.values, found.status) == ({"seen_10m": 0, "mean_1h": None}, "NOT_FOUND")


class Model:
    """Keeps the rows that it was asked about."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []

    def answers(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        self.asked += rows
        return [{"class": "ok", "confidence": 1.0, "box": None} for _ in rows]


class Served:
    """A predictor over a source of rows, what its model saw and what it logged."""

    def __init__(self, resource: ContinualModel, source: Any, clock: HandClock) -> None:
        self.model, self.logged = Model(), list[Prediction]()
        log: Any = SimpleNamespace(put=self.logged.extend)
        features = OnlineFeatures(source, resource.spec.features.window_names, clock=clock)
        self.predictor = Predictor(resource, version="v1", model=self.model, features=features, log=log)

    def ask(self, *entities: str, at: datetime, image: bytes | None = None) -> None:
        values = {"image": image, "exposure_ms": 4.0}
        rows = [RequestRow(entity=entity, event_id=None, values=values) for entity in entities]
        self.predictor.answer(rows, request_id="r", now=at)


def test_statistics_are_those_of_the_picture_in_the_request(clock: HandClock) -> None:
    served = Served(served_resource(), Source({"A": PRESENT}), clock)
    served.ask("A", at=from_ms(NOW), image=picture(90))
    measured = statistics(picture(90), ["brightness", "contrast"])
    windows = {"seen_10m": 6, "exposure_1h": None}
    assert served.logged[0].features == measured | windows
    assert served.model.asked == [{"image": picture(90), "exposure_ms": 4.0} | measured | windows]
    assert (served.logged[0].fence, served.logged[0].feature_status) == ({"c/t/0": 41}, "PRESENT")


def test_what_is_redacted_is_answered_with_and_not_logged(clock: HandClock) -> None:
    resource = served_resource(serving={"log": {"redact": ["seen_10m", "confidence"]}})
    served = Served(resource, Source({"A": PRESENT}), clock)
    served.ask("A", at=from_ms(NOW), image=picture(90))
    (row,) = served.logged
    assert served.model.asked[0]["seen_10m"] == 6
    assert row.features == statistics(picture(90), ["brightness", "contrast"]) | {"exposure_1h": None}
    assert "confidence" not in row.output
    assert row.redacted == ["seen_10m", "confidence"]


def test_without_a_picture_there_are_no_statistics_and_a_damaged_one_is_refused(clock: HandClock) -> None:
    served = Served(served_resource(), Source({"A": PRESENT}), clock)
    served.ask("A", at=from_ms(NOW))
    assert {served.logged[0].features[name] for name in ("brightness", "contrast")} == {None}
    with pytest.raises(InvalidInput, match="row 0, field image: no picture"):
        served.ask("A", at=from_ms(NOW), image=b"damaged")
    assert len(served.logged) == 1


WINDOWS = [
    {"name": "seen", "agg": "count", "over": ["1m", "10m"]},
    {"name": "mean", "agg": "mean", "of": "exposure_ms", "over": ["1m"]},
    {"name": "top", "agg": "max", "of": "exposure_ms", "over": ["6s"]},
    {"name": "last_note", "agg": "last", "of": "note", "over": ["1m"]},
    {"name": "notes", "agg": "distinct", "of": "note", "over": ["1m"]},
    {"name": "p90", "agg": "quantile", "q": 0.9, "of": "exposure_ms", "over": ["1m"]},
]


@pytest.mark.redis
@pytest.mark.parametrize("seed", range(3))
def test_what_is_served_is_what_the_lake_gives_up_to_the_logged_fence(
    redis_url: str, topic_prefix: str, clock: HandClock, seed: int
) -> None:
    resource = served_resource(topic_prefix, features={"image": [], "windows": WINDOWS}, triggers={})
    layout, rng = layout_of(resource), random.Random(seed)
    rows = OnlineRows(redis_url, resource.id, layout)
    rows.rebuild(lambda: Filling({}, ()))
    reader = OnlineReader(redis_url, resource.id, layout=layout)
    served, lake, now = Served(resource, reader, clock), list[dict[str, Any]](), NOW
    for _ in range(12):
        batch = [_event(rng, len(lake) + number, now) for number in range(rng.randrange(20))]
        lake += batch
        rows.apply(_frame(batch))
        now += rng.randrange(20_000)
        served.ask("A", "B", "nobody", at=from_ms(now))
    for one in served.logged:
        seen = [event for event in lake if event["offset"] <= one.fence.get(event["source"], -1)]
        asked = pl.DataFrame({"entity": [one.entity], "at": [from_ms(one.time)]}, schema_overrides={"at": TIME})
        lateness = resource.spec.events.allowed_lateness
        expected = window_values(_frame(seen), asked, resource.spec.features.windows, lateness, as_of_fence=True)
        for name, value in expected.row(0, named=True).items():
            is_rounded = name == "mean_1m" and value is not None
            assert one.features[name] == (pytest.approx(value, rel=1e-9) if is_rounded else value)
    assert max(int(one.features["seen_10m"] or 0) for one in served.logged) > 20
    for closed in (rows, reader):
        closed.close()


@pytest.mark.redis
def test_an_entity_older_than_ttl_says_so_and_its_windows_stand(
    redis_url: str, topic_prefix: str, clock: HandClock
) -> None:
    windows = [{"name": "seen", "agg": "count", "over": ["1h"]}]
    features = {"image": [], "windows": windows, "ttl": "10m"}
    resource = served_resource(topic_prefix, features=features, triggers={})
    event = _event(random.Random(1), 0, NOW) | {"entity": "A"}
    event |= {"event_time": from_ms(NOW), "available_at": from_ms(NOW)}
    rows = OnlineRows(redis_url, resource.id, layout_of(resource))
    rows.rebuild(lambda: Filling({}, ()))
    rows.apply(_frame([event]))
    reader = _feature_source(redis_url, resource)
    served = Served(resource, reader, clock)
    for minutes in (10, 11, 70):
        served.ask("A", at=from_ms(NOW + minutes * 60_000))
    assert [(one.feature_status, one.features["seen_1h"]) for one in served.logged] == [
        ("PRESENT", 1),
        ("OUTSIDE_MAX_AGE", 1),
        ("OUTSIDE_MAX_AGE", 0),
    ]
    for closed in (rows, reader):
        closed.close()


TIME = pl.Datetime("us", "UTC")


def _event(rng: random.Random, number: int, now: int) -> dict[str, Any]:
    arrived = now + rng.randrange(-2000, 30_000)  # the broker's clock need not be the server's
    return {
        "entity": rng.choice("AB"),
        "source": rng.choice(["c/t/0", "c/t/1"]),
        "offset": number,
        "event_time": from_ms(arrived - rng.choice([0, 100, 5_000, 200_000, 700_000])),
        "available_at": from_ms(arrived),
        "exposure_ms": rng.uniform(0, 1000),
        "shift": None,
        "note": rng.choice([None, "a", "b", "c"]),
        "flash": None,
    }


def _frame(events: list[dict[str, Any]]) -> pl.DataFrame:
    kinds = {
        "entity": pl.String(),
        "source": pl.String(),
        "offset": pl.Int64(),
        "event_time": TIME,
        "available_at": TIME,
    }
    fields = {"exposure_ms": pl.Float64(), "shift": pl.Int64(), "note": pl.String(), "flash": pl.Boolean()}
    return pl.DataFrame(events, schema=kinds | fields)


def test_features_that_an_answer_goes_without_are_counted_by_name(clock: HandClock) -> None:
    def nulls(name: str) -> float:
        return REGISTRY.get_sample_value("tidemill_feature_null_values_total", {"feature": name}) or 0.0

    rows = {"A": PRESENT, "B": OnlineRow(Status.PRESENT, {"seen_10m": 0, "mean_1h": None}, 1, {})}
    before = nulls("seen_10m"), nulls("mean_1h")
    OnlineFeatures(Source(rows), ("seen_10m", "mean_1h"), clock=clock).of(["A", "B", "C"], NOW)
    assert (nulls("seen_10m") - before[0], nulls("mean_1h") - before[1]) == (1, 2)
