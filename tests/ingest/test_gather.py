from collections.abc import Callable
from threading import Event
from types import SimpleNamespace
from typing import Any

from tidemill.events.waiting import Waiting
from tidemill.ingest.gather import Gatherer, most_records
from tidemill.spec.model import ContinualModel
from tidemill.testing.clock import ManualClock

MIB = 1 << 20


def raw(key: bytes | None = None, value: bytes | None = None, header: bytes | None = None) -> Any:
    return SimpleNamespace(key=key, value=value, headers=() if header is None else [("h", header)])


def gathered(found: Any, *, most: int = 20_000) -> list[Any]:
    """What is gathered where each poll brings this; each takes a tenth of a second."""
    clock = ManualClock()

    def poll(wait_s: float, max_records: int) -> dict[str, list[Any]] | None:
        clock.advance(0.1)
        return None if found is None else {"p": [found] * min(25, max_records)}

    return Gatherer(poll, clock, Waiting("test", Event()), 10.0, most).gather(0.5).get("p", [])


def test_a_batch_is_full_by_its_keys_and_headers_as_by_its_values() -> None:
    for one in (raw(key=b"x" * MIB), raw(value=b"x" * MIB), raw(value=b"", header=b"x" * MIB)):
        assert len(gathered(one)) == 50  # after the poll with which it has more than 32 MiB


def test_a_batch_has_no_more_records_than_it_may() -> None:
    assert len(gathered(raw(value=b"x"), most=60)) == 60


def test_what_was_gathered_is_dropped_where_partitions_have_moved() -> None:
    assert gathered(None) == []


def test_batches_are_small_where_pictures_have_to_be_fetched(make_resource: Callable[..., ContinualModel]) -> None:
    exposure = {"name": "exposure_ms", "type": "float"}
    image = {"name": "image", "type": "image", "required": False}
    by_value = make_resource("m", fields=[exposure, image])
    by_uri = make_resource("m", fields=[exposure, image | {"uris": ["s3://shelf/"]}])
    assert most_records(by_uri, 20_000) == 500 < most_records(by_value, 20_000) == 20_000
    assert most_records(by_uri, 100) == 100
