"""Online features of a prediction: all of them or none, and the answer never waits."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from tidemill.core.errors import Unavailable
from tidemill.features.online import OnlineRow, Status
from tidemill.serving.features import OnlineFeatures


class Source:
    """Online rows in a dict; out of order while `broken`."""

    def __init__(self, rows: dict[str, OnlineRow]) -> None:
        self.rows, self.broken, self.reads = rows, False, 0

    def read(self, entities: Sequence[str]) -> list[OnlineRow]:
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


PRESENT = OnlineRow(Status.PRESENT, {"brightness": 0.6, "contrast": 0.2, "exposure_ms": 4.0}, 1, {"c/t/0": 41})


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def test_the_named_features_come_with_their_fence(clock: HandClock) -> None:
    features = OnlineFeatures(Source({"A": PRESENT}), ("brightness", "contrast"), clock=clock)
    (found,) = features.of(["A"])
    assert found.values == {"brightness": 0.6, "contrast": 0.2}
    assert (found.fence, found.status) == ({"c/t/0": 41}, "PRESENT")


def test_rows_of_one_entity_are_read_once(clock: HandClock) -> None:
    source = Source({"A": PRESENT})
    found = OnlineFeatures(source, ("brightness",), clock=clock).of(["A", "B", "A"])
    assert [one.status for one in found] == ["PRESENT", "NOT_FOUND", "PRESENT"]
    assert source.reads == 1


@pytest.mark.parametrize("status", [Status.NOT_FOUND, Status.REBUILDING])
def test_what_is_not_there_is_absent_as_a_whole_with_its_status(clock: HandClock, status: Status) -> None:
    features = OnlineFeatures(Source({"A": OnlineRow(status)}), ("brightness", "contrast"), clock=clock)
    (found,) = features.of(["A"])
    assert found.values == {"brightness": None, "contrast": None}
    assert (found.fence, found.status) == ({}, status.value)


def test_a_store_that_does_not_answer_is_left_alone_for_a_moment(clock: HandClock) -> None:
    source = Source({"A": PRESENT})
    source.broken = True
    features = OnlineFeatures(source, ("brightness",), clock=clock)
    assert [features.of(["A"])[0].status for _ in range(5)] == ["UNAVAILABLE"] * 5
    assert source.reads == 1
    source.broken = False
    clock.sleep(1.1)
    assert features.of(["A"])[0].status == "PRESENT"


def test_without_features_nothing_is_read(clock: HandClock) -> None:
    source = Source({"A": PRESENT})
    (found,) = OnlineFeatures(source, (), clock=clock).of(["A"])
    assert (found.values, found.status, source.reads) == ({}, None, 0)
