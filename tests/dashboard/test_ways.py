"""Where a version came from and went, and by what its answers can be cut."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.dashboard.test_queries import NOON, prediction, written

from tidemill.core.clock import to_ms
from tidemill.dashboard.queries.browse import Wanted, browse
from tidemill.dashboard.queries.groups import groups_of, slices_by
from tidemill.dashboard.queries.lineage import steps_of
from tidemill.outcomes.tables import PREDICTIONS
from tidemill.registry.trace import Fact, VersionKnown, of_version
from tidemill.spec.model import ContinualModel
from tidemill.testing.loop import example_resource

SNAPSHOT = {"rows": {"new": 900, "fresh": 9}, "events": {"c/t/0": 1200}, "labels": {}, "at": NOON.isoformat()}


def known(version: str, warm_from: str = "", **told: Any) -> VersionKnown:
    run = {"cause": "drift", "reason": "it fell", "at": NOON.isoformat()}
    return VersionKnown(version=version, snapshot=f"{version}a", warm_from=warm_from, run=run, told=told)


def test_the_lineage_of_a_version_is_told_in_words_and_goes_both_ways() -> None:
    versions = {"v2": known("v2", "v1"), "v3": known("v3", "v2", alias="candidate", at=NOON.isoformat())}
    answers = [
        Fact(kind="prediction", id="of v2", told={"count": 3000, "first": NOON, "last": NOON + timedelta(hours=2)}),
        Fact(kind="outcome", id="of v2", told={"count": 2, "mean_loss": 0.25}),
    ]
    found = steps_of(of_version(versions, {"v2a": SNAPSHOT}, "v2", answers))
    assert [(one.way, one.kind, one.id, one.told) for one in found] == [
        ("made from", "run", "v2", "drift: it fell"),
        (
            "made from",
            "snapshot",
            "v2a",
            "900 rows new, 9 rows fresh; events of partition 0 up to 1,200; labels none",
        ),
        ("made from", "version", "v1", "neither the registry nor the artifacts have it"),
        ("went into", "version", "v3", "candidate, it began with these weights"),
        ("went into", "predictions", "of v2", "3,000 within 2.0 hours"),
        ("went into", "outcomes", "of v2", "2: mean loss 0.2500 of those with a label"),
    ]
    assert [one.since for one in found] == [to_ms(NOON), to_ms(NOON), None, to_ms(NOON), to_ms(NOON), None]


def test_what_is_gone_or_damaged_is_said_in_the_lineage() -> None:
    versions = {"v1": known("v1", **{"files gone": "2026-11-20"}), "v2": known("v2", "v1")}
    found = steps_of(of_version(versions, {"v1a": {"problem": "torn", "frozen_as": ""}}, "v2"))
    assert [one.told for one in found[1:]] == [
        "it is not there any more",
        "its weights were the beginning, its files are gone since 2026-11-20",
        "torn",
    ]


def with_a_camera() -> ContinualModel:
    """The example, whose events also name their camera, by which it is cut."""
    events = example_resource().spec.events.model_dump(by_alias=True, exclude_unset=True)
    events["fields"] = [*events["fields"], {"name": "camera", "type": "string"}]
    entity = events["entity"]["name"]
    return example_resource(events=events, triggers={"drift": {"tolerance": 0.2, "slices": [entity, "camera"]}})


def test_outcomes_are_cut_by_the_slices_that_are_declared() -> None:
    assert groups_of(with_a_camera()) == ("camera",)
    assert slices_by(with_a_camera())[:2] == ("entity", "camera")


def test_predictions_are_found_by_a_slice_that_is_declared(tmp_path: Path) -> None:
    seen = [{"camera": "left"}, {"camera": "right"}, {"camera": None}, {}]
    rows = [prediction(number, "ok", 0.9, features=json.dumps(one)) for number, one in enumerate(seen)]
    written(tmp_path, "predictions", PREDICTIONS, rows)
    wanted = Wanted(groups=(("camera", "right"),))
    found = browse(str(tmp_path), with_a_camera(), wanted, NOON, limit=5)
    assert [one.prediction_id for one in found.things] == ["p1"]
    assert found.groups == (("camera", ("left", "right")),)
