"""`labels agreement`, `labels queue` and the labels in `describe`, on a lake and a real broker."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.labels.lake import LabelLake

from tidemill.cli import main
from tidemill.cli.label_quality import labels_story
from tidemill.control.store import LocalResourceStore
from tidemill.core.clock import SystemClock
from tidemill.events.kafka import RecordReader, ensure_topics
from tidemill.events.records import Label
from tidemill.labels.recent import recent_agreement
from tidemill.testing.loop import example_resource
from tidemill.wiring import local


@pytest.fixture
def lake(topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabelLake:
    """A stored model, and labels of some minutes ago: b takes dirt for a scratch, c found a dent."""
    monkeypatch.chdir(tmp_path)
    fields = [{"name": "defect", "type": "class"}]
    made = example_resource(topic_prefix, labels={"fields": fields, "control": 0.2})
    LocalResourceStore(tmp_path / ".tidemill" / "resources").put(made, code=str(tmp_path))
    lake = LabelLake(tmp_path / ".tidemill" / "lake", made, SystemClock().now() - timedelta(minutes=5))
    for number in range(6):
        lake.predict(f"p{number}", "ok" if number % 2 else "scratch", 0.7, event_id=str(number))
    for number in range(4):
        for labeller in ("a", "b", "c"):
            word = "scratch" if number % 2 == 0 or (labeller == "b" and number == 1) else "ok"
            lake.label(labeller, {"defect": word}, entity="a", event_id=str(number))
    lake.label("c", {"defect": "dent\x1b[2J"}, entity="a", event_id="elsewhere")
    return lake


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(*arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_report_says_whom_to_rely_on_and_what_is_wrong(
    lake: LabelLake, topic_prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = call(capsys, "labels", "agreement", topic_prefix)
    assert status == 0
    assert "defect: not trusted: alpha 0.69 is below minAgreement 0.8" in out
    assert "is this ok or scratch? 1 picture; a and c say ok, b says scratch" in out
    assert "new class dent\\x1b[2J: 1 labels, first" in out
    assert "\x1b[2J" not in out
    told: dict[str, Any] = json.loads(call(capsys, "labels", "agreement", topic_prefix, "-o", "json")[1])
    assert told["agreement"]["trusted"] is False
    (wrong,) = told["weighed"]["likely_errors"]
    assert wrong["labeller"] == "b"
    assert (wrong["event_id"], wrong["said"], wrong["consensus"]) == ("1", "scratch", "ok")


def test_a_field_that_is_none_and_a_lake_that_is_empty_are_told(
    lake: LabelLake, topic_prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call(capsys, "labels", "agreement", topic_prefix, "--field", "colour")
    assert (status, "no field colour" in err) == (2, True)
    LocalResourceStore(tmp_path / ".tidemill" / "resources").put(example_resource("empty"), code=str(tmp_path))
    status, _, err = call(capsys, "labels", "agreement", "empty")
    assert status != 0
    assert "no label or prediction is in the lake yet" in err


def test_describe_has_the_labels_of_the_week(lake: LabelLake) -> None:
    found = recent_agreement(lake.uri, lake.resource, local().clock.now())
    assert found is not None
    assert [one.value for one in found.new_classes] == ["dent\x1b[2J"]
    lines = [getattr(one, "plain", "") for one in labels_story(found)]
    assert "labels of the last 7 days" in lines[0]
    assert any("mixed up: is this ok or scratch?" in line for line in lines)
    assert recent_agreement(local().settings.lake_uri, example_resource("empty"), local().clock.now()) is None
    assert labels_story(None) == []


@pytest.mark.kafka
def test_picks_are_recorded_before_they_are_shown_and_wait_until_they_are_labelled(
    lake: LabelLake,
    topic_prefix: str,
    kafka: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TIDEMILL_KAFKA", kafka)
    ensure_topics(kafka, {lake.resource.labels_topic: 1})
    told = json.loads(call(capsys, "labels", "queue", topic_prefix, "--budget", "6", "-o", "json")[1])
    with RecordReader(kafka, lake.resource.labels_topic, Label) as reader:
        recorded = {one.record.prediction_id: one.record for one in reader.poll(timeout_s=5)}
    assert len(recorded) == told["round"]["recorded"] == told["round"]["picked"] > 0
    assert all(one.value is None and one.reasons["control"] == 0.2 for one in recorded.values())
    picks = [one for one in told["queue"] if one["probability"] is not None]
    # Labels that were there before do not answer a pick.
    assert {one["prediction_id"] for one in picks} == set(recorded)
    for one in picks:
        assert one["reasons"].items() >= recorded[one["prediction_id"]].reasons.items()
    assert [one["event_id"] for one in told["queue"] if "labellers-differ" in one["reasons"]] == ["1"]
    for record in recorded.values():
        lake.pick(record)
    out = call(capsys, "labels", "queue", topic_prefix)[1]
    assert "labellers-differ 1" in out
