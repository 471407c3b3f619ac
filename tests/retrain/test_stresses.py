"""A candidate that cannot do without a field that events may lack is stopped by the gate of robustness."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.retrain.test_worse import FIRST, next_grant, place_of, trained, verdicts

from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.sources import Source
from tidemill.retrain import version
from tidemill.testing.retrain import Site
from tidemill.testing.training import EVENTS, LABELS, events_frame, labels_frame, tiny_resource

CODEC = """
import tiny_model

class Needy(tiny_model.Codec):
    def encode(self, rows):
        if any(row["shift"] is None for row in rows):
            raise ValueError("what shift?")
        return super().encode(rows)
"""
EVENTS_SPEC = {
    "entity": {"name": "station"},
    "id": "event_id",
    "timestamp": "captured_at",
    "fields": [{"name": "image", "type": "image"}, {"name": "shift", "type": "int", "required": False}],
}


def append(site: Site, name: str, schema: dict[str, Any], rows: pl.DataFrame) -> None:
    table = LakeTable(table_uri(site.lake, site.resource.id, name), schema, pipeline="tests")
    table.append(
        rows, {Source.parse("c/events/0" if name == "events" else "c/labels/0"): int(rows["offset"].to_numpy().max())}
    )


def with_codec(site: Site, codec: str) -> None:
    more = {
        "events": EVENTS_SPEC,
        "model": {"codec": codec, "trainer": "tiny_model:Trainer"},
        "gates": {"fresh": {"rows": 150, "margin": 0.05}, "robustness": {"margin": 0.05}},
    }
    site.put(tiny_resource(site.resource.metadata.name, **more))


def test_a_model_that_needs_a_field_that_may_be_missing_is_refused_by_the_gate_of_robustness(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needy.py").write_text(CODEC)
    for folder in (site.code, tmp_path):
        monkeypatch.syspath_prepend(folder)
    with_codec(site, "tiny_model:Codec")
    events = events_frame(400)
    append(site, "events", EVENTS | {"shift": pl.Int64()}, events.with_columns(shift=pl.lit(2, pl.Int64())))
    append(site, "labels", LABELS, labels_frame(events))
    first = version.evaluate(place_of(site), FIRST, trained(site, FIRST))
    assert first.stresses is not None
    assert [one.name for one in first.stresses] == ["without shift"]

    with_codec(site, "needy:Needy")
    granted = next_grant(site)
    found = verdicts(site, granted, trained(site, granted))
    assert found["answers"].passed is True
    assert found["robustness"].passed is False
    assert found["robustness"].reason.startswith(
        "without shift the error rises by +1.000 against the champion's +0.000"
    )
