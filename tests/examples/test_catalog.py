"""The marketplace's day: a kind that appears is in production within minutes, and what was known is not forgotten."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tidemill.core.clock import to_ms
from tidemill.ingest.parse import EventParser
from tidemill.labels.parse import read_label
from tidemill.spec.load import load
from tidemill.testing.clock import ManualClock

EXAMPLE = Path(__file__).parents[2] / "examples" / "product_catalog"
sys.path.insert(0, str(EXAMPLE))

from goods import live  # noqa: E402 -- the path comes first
from goods.desks import DESKS, Desks  # noqa: E402
from goods.model import Codec  # noqa: E402
from goods.products import DECLARED, KINDS, draw  # noqa: E402
from goods.story import tell  # noqa: E402


def test_its_resource_declares_what_the_catalogue_starts_with() -> None:
    assert load(EXAMPLE / "model.yaml").spec.prediction.classes == DECLARED


def test_the_same_numbers_draw_the_same_products() -> None:
    first, second = (draw(np.random.default_rng(3), 50, dict.fromkeys(KINDS, 1.0)) for _ in range(2))
    assert first == second
    assert {one.kind for one in first} <= set(KINDS)


def test_a_desk_that_does_not_know_a_kind_takes_it_for_another_until_they_agree() -> None:
    desks = Desks(np.random.default_rng(1), mistaken={"smartwatch": ("cleo", "phone")})
    (watch,) = draw(np.random.default_rng(1), 1, {"smartwatch": 1.0})
    said = {word.desk: word.kind for word in desks.label(watch, 0.2)}
    assert said == dict.fromkeys(DESKS, "smartwatch") | {"cleo": "phone"}
    assert desks.agree("smartwatch") == ("cleo", "phone")
    assert {word.kind for word in desks.label(watch, 0.2)} == {"smartwatch"}


def test_the_codec_numbers_the_classes_that_it_is_told() -> None:
    codec = Codec()
    codec.classes = (*DECLARED, "smartwatch")
    assert codec.targets([{"kind": "smartwatch"}, {"kind": "other"}])["kind"].tolist() == [5, 0]
    assert codec.decode({"scores": np.eye(6)[[5]] * 9})[0]["class"] == "smartwatch"


class Writer:
    """Keeps what is sent, by topic."""

    def __init__(self, *_: object, **__: object) -> None:
        self.sent: dict[str, list[bytes]] = {}

    def send(self, topic: str, record: bytes, **_: object) -> None:
        self.sent.setdefault(topic, []).append(record)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def test_what_a_running_stack_is_sent_are_events_and_labels_of_its_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    writer, resource, clock = Writer(), load(EXAMPLE / "model.yaml"), ManualClock()
    monkeypatch.setattr(live, "RecordWriter", lambda *_, **__: writer)
    with live.Market(resource, kafka="", endpoint="http://127.0.0.1:1", seed=1, clock=clock) as market:
        market.archive(20, {"phone": 1.0})
        market.run(10.0, 1.0, {"smartwatch": 1.0})
    events = [EventParser(resource).parse(value, to_ms(clock.now())) for value in writer.sent[resource.events_topic]]
    assert len({event.event_id for event in events}) == 20 + market.listed == 30
    labels = [read_label(value, resource.spec.labels.fields) for value in writer.sent[resource.labels_topic]]
    assert {label.event_id for label in labels} == {event.event_id for event in events}
    assert {label.value["kind"] for label in labels if label.value} <= {"phone", "smartwatch", "other"}
    assert market.answered == 0  # nobody answers, and listing goes on


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_new_kind_is_in_production_within_minutes_and_a_dispute_holds_it_until_it_is_over(tmp_path: Path) -> None:
    """On the pure loop, with a real lake and real training; the log, the registry and the traffic are in memory."""
    told: list[str] = []
    result = tell(tmp_path, load(EXAMPLE / "model.yaml"), say=told.append)
    watch, buds = result.arrivals
    assert watch.held_from is not None
    assert watch.released_at is not None
    assert watch.held_from < watch.enough_at < watch.released_at < watch.promoted_at
    assert any("no run starts: labellers agree to" in line for line in told)
    assert buds.held_from is None
    for arrival in result.arrivals:
        assert arrival.minutes <= 10
        assert arrival.recall >= 0.8
    assert [one.classes for one in result.versions] == [
        DECLARED,
        (*DECLARED, "smartwatch"),
        (*DECLARED, "smartwatch", "earbuds"),
    ]
    assert all(one.lost <= 0.01 for one in result.versions)
