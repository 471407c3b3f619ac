"""The step snapshot on a lake with predictions."""

import json
from datetime import timedelta

import polars as pl
import pytest

from tidemill.core.clock import SystemClock
from tidemill.core.errors import DeadlineExceeded
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.records import Decision, Request
from tidemill.events.sources import Source
from tidemill.outcomes.tables import PREDICTIONS
from tidemill.retrain import data
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import Place
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.retrain import RUN, Site
from tidemill.testing.training import START, events_frame, tiny_resource

GRANT = Grant(run=RUN, token="token-1", expires_at=0, cause="initial", reason="enough labels")
WINDOWS = {"image": ["brightness", "contrast"], "windows": [{"name": "seen", "agg": "count", "over": ["1h"]}]}


def nobody(request: Request, deadline_s: float) -> Decision:
    raise DeadlineExceeded("nobody is asked here")


@pytest.fixture
def place(site: Site) -> Place:
    site.put(tiny_resource(site.resource.metadata.name, features=WINDOWS))
    return Place(
        resource=site.resource,
        lake=site.lake,
        root=site.artifacts,
        clock=SystemClock(),
        ask=nobody,
        registry=lambda: MemoryRegistry(SystemClock()),
    )


def predicted(site: Site, event: int) -> None:
    """Append a prediction of an event that saw 77 events."""
    source = Source("c", "predictions", 0)
    at = START + timedelta(seconds=event + 1)
    row = {
        "source": str(source),
        "offset": event,
        "prediction_id": f"p{event}",
        "entity": f"station-{event % 3}",
        "event_id": f"e{event}",
        "predicted_at": at,
        "available_at": at,
        "features": json.dumps({"seen_1h": 77}),
        "feature_status": "PRESENT",
    }
    table = LakeTable(table_uri(site.lake, site.resource.id, "predictions"), PREDICTIONS, pipeline="outcomes")
    table.append(pl.DataFrame([row], schema=PREDICTIONS, orient="row"), {source: event})


def test_a_snapshot_prefers_the_windows_that_were_served_and_says_so(site: Site, place: Place) -> None:
    site.fill(events_frame(200))
    before = data.snapshot(place, GRANT)
    assert before.record.predictions is None
    predicted(site, 30)
    after = data.snapshot(place, GRANT)
    frame = after.frame()
    assert frame.filter(pl.col("windows_from") == "p30")["seen_1h"].to_list() == [77]
    assert frame.filter(pl.col("event_id") != "e30")["windows_from"].null_count() == frame.height - 1
    rest = pl.col("event_id") != "e30"
    assert frame.filter(rest)["seen_1h"].equals(before.frame().filter(rest)["seen_1h"])
    assert "logged with the event's first prediction" in after.record.query
    assert after.record.predictions is not None
    assert after.record.predictions.offsets == {"c/predictions/0": 30}


def test_rows_of_one_lake_are_the_same_bits_each_time(site: Site, place: Place) -> None:
    site.fill(events_frame(200))
    for event in (30, 31):
        predicted(site, event)
    one, other = data.snapshot(place, GRANT), data.snapshot(place, GRANT)
    assert one.record.files == other.record.files
