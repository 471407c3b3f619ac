"""Where a version came from and went, and which events two versions answered differently."""

import json
from dataclasses import replace
from pathlib import Path

from tests.dashboard.test_queries import NOON, RESOURCE, outcome, prediction, written

from tidemill.core.clock import to_ms
from tidemill.dashboard.queries.browse import Wanted, browse
from tidemill.dashboard.queries.differing import Differing, differing
from tidemill.dashboard.queries.groups import groups_of, slices_by
from tidemill.dashboard.queries.lineage import lineage_steps
from tidemill.dashboard.queries.versions import VersionRow
from tidemill.outcomes.tables import OUTCOMES, PREDICTIONS
from tidemill.spec.model import ContinualModel
from tidemill.testing.loop import example_resource

BLANK = VersionRow("", "", 0, "", "", "", "", (), "", "")
V2 = replace(BLANK, version="v2", snapshot="b" * 64, warm_from="v1", cause="drift", reason="it fell", created_at=7)
KNOWN = (replace(BLANK, version="v3", warm_from="v2", place="candidate"), V2)


def test_the_lineage_of_a_version_goes_both_ways(tmp_path: Path) -> None:
    written(tmp_path, "predictions", PREDICTIONS, [prediction(n, "ok", 0.9, version="v2") for n in range(3)])
    written(tmp_path, "outcomes", OUTCOMES, [outcome(n, "ok", n / 2, version="v2") for n in range(2)])
    found = lineage_steps(str(tmp_path), tmp_path / "any", RESOURCE.id, "v2", KNOWN)
    assert [(one.way, one.kind, one.id[:8], one.told) for one in found] == [
        ("made from", "run", "v2", "drift: it fell"),
        ("made from", "snapshot", "bbbbbbbb", "it is not there any more"),
        ("made from", "version", "v1", "neither the registry nor the artifacts have it"),
        ("went into", "version", "v3", "candidate, it began with these weights"),
        ("went into", "predictions", "3", "within 0.0 hours"),
        ("went into", "outcomes", "2", "mean loss 0.2500 of those with a label"),
    ]
    assert found[-2].since == to_ms(NOON)


def test_a_version_that_nobody_knows_has_no_lineage(tmp_path: Path) -> None:
    assert lineage_steps(str(tmp_path), tmp_path / "any", RESOURCE.id, "v9", KNOWN) == ()


def test_events_that_two_versions_answered_differently_are_found(tmp_path: Path) -> None:
    rows = [prediction(number, "ok", 0.9) for number in range(5)]
    for number, answer in ((1, "ok"), (2, "scratch"), (3, "scratch")):
        rows.append(prediction(number, answer, 0.6, version="v2", prediction_id=f"q{number}"))
    rows.append(prediction(2, "scratch", 0.6, version="v2", prediction_id="q9", entity="elsewhere"))
    written(tmp_path, "predictions", PREDICTIONS, rows)
    found = differing(str(tmp_path), RESOURCE, "v1", "v2")
    assert (found.both, found.differ) == (3, 2)
    assert [(one.one.prediction_id, one.other.prediction_id) for one in found.pairs] == [("p3", "q3"), ("p2", "q2")]
    assert [(one.one.answer, one.other.answer) for one in found.pairs] == [("ok", "scratch")] * 2
    assert differing(str(tmp_path), RESOURCE, "v1", "v7") == Differing(0, 0, ())


def test_nothing_differs_before_there_is_a_lake(tmp_path: Path) -> None:
    assert differing(str(tmp_path), RESOURCE, "v1", "v2") == Differing(0, 0, ())


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
