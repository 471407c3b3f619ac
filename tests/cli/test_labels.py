"""The commands of labels on a real broker: what is sent arrives, once, and what is bad is told."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tidemill.cli import main
from tidemill.control.store import LocalResourceStore
from tidemill.core.clock import SystemClock, to_ms
from tidemill.core.errors import NotFound
from tidemill.core.settings import Settings
from tidemill.core.telemetry import setup_logging
from tidemill.events.kafka import RecordReader, RecordWriter, ensure_topics
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.records import Label, Outcome, Prediction, Topics
from tidemill.outcomes.worker import run as run_worker
from tidemill.spec.model import ContinualModel
from tidemill.testing import eventually
from tidemill.testing.loop import example_resource

ROWS = "station,event_id,defect,box,labeller\n"


class Site:
    """A model with its topics, and commands about it."""

    def __init__(self, resource: ContinualModel, kafka: str, lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.resource, self.kafka, self.lake, self._capsys = resource, kafka, lake, capsys
        self.name = resource.metadata.name

    def call(self, command: str, *arguments: str) -> tuple[int, Any, str]:
        """Exit status, the JSON on stdout, stderr."""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main("labels", command, self.name, *arguments, "-o", "json")
        out, err = self._capsys.readouterr()
        return int(ended.value.code or 0), json.loads(out) if out else None, err

    def written(self) -> list[tuple[str | None, str | None, Any, str]]:
        """Prediction or event, value and labeller of each label in the topic."""
        with RecordReader(self.kafka, self.resource.labels_topic, Label) as reader:
            found = [stamped.record for stamped in reader.rest()]
        return [(one.prediction_id or one.entity, one.event_id, one.value, one.labeller) for one in found]

    def in_lake(self) -> int:
        try:
            return LakeTable(table_uri(str(self.lake), self.resource.id, "labels")).scan().collect().height
        except NotFound:
            return 0

    @contextmanager
    def outcomes_worker(self, redis: str) -> Iterator[None]:
        setup_logging(Settings(), "outcomes")  # to stderr
        stop = threading.Event()
        where = {"kafka": self.kafka, "redis": redis, "lake": str(self.lake), "clock": SystemClock(), "stop": stop}
        thread = threading.Thread(target=run_worker, args=(self.resource,), kwargs=where)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def site(
    kafka: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Site:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEMILL_KAFKA", kafka)
    labels = {
        "fields": [{"name": "defect", "type": "class"}, {"name": "box", "type": "box"}],
        "maturity": {"after": "500ms", "horizon": "1h"},
    }
    resource = example_resource(topic_prefix, labels=labels)
    topics = Topics(resource.id, resource.events_topic, resource.labels_topic)
    ensure_topics(kafka, dict.fromkeys((topics.labels, topics.predictions, topics.resolved, topics.outcomes), 1))
    LocalResourceStore(tmp_path / ".tidemill" / "resources").put(resource)
    return Site(resource, kafka, tmp_path / ".tidemill" / "lake", capsys)


@pytest.mark.kafka
def test_a_label_that_is_added_is_in_the_topic(site: Site) -> None:
    arguments = ("--value", "defect=scratch", "--value", "box=[1,2,3,4]", "--by", "eve")
    status, out, _ = site.call("add", "--prediction", "p1", *arguments)
    assert status == 0
    assert out["label"]["prediction_id"] == "p1"
    assert site.call("add", "--entity", "A", "--event", "7", "--value", "defect=ok", "--by", "eve")[0] == 0
    value = {"defect": "scratch", "box": [1, 2, 3, 4]}
    assert site.written() == [("p1", None, value, "eve"), ("A", "7", {"defect": "ok"}, "eve")]


@pytest.mark.kafka
def test_a_label_that_the_resource_does_not_know_is_not_sent(site: Site) -> None:
    for value, why in (
        ("defect=dirt", "defect should be one of ok, scratch, not 'dirt'"),
        ("box=[1,2]", "defect should be one of"),
        ("defect", "--value takes NAME=TEXT, not 'defect'"),
    ):
        status, _, err = site.call("add", "--prediction", "p1", "--value", value)
        assert (status, why in err) == (2, True), err
    assert "names neither" in site.call("add", "--entity", "A", "--value", "defect=ok")[2]
    assert site.written() == []


@pytest.mark.kafka
def test_a_class_that_nobody_declared_is_sent_when_it_is_meant(site: Site) -> None:
    arguments = ("add", "--prediction", "p1", "--value", "defect=dirt", "--by", "eve")
    status, _, err = site.call(*arguments)
    assert (status, "--new-class sends it" in err) == (2, True)
    status, _, err = site.call(*arguments, "--new-class")
    assert (status, "does not declare" in err) == (0, True)
    assert [value for _, _, value, _ in site.written()] == [{"defect": "dirt"}]


@pytest.mark.kafka
def test_a_file_is_imported_once_however_often_and_what_is_bad_is_told(site: Site, tmp_path: Path) -> None:
    file, refused = tmp_path / "labels.csv", tmp_path / "refused.jsonl"
    file.write_text(ROWS + "A,1,ok,,eve\nA,2,dirt,,eve\nA,3,scratch,,\n")
    arguments = (str(file), "--by", "adam", "--refused", str(refused))
    status, out, _ = site.call("import", *arguments, "--dry-run")
    assert (status, out["taken"], site.written()) == (1, 2, [])
    status, out, _ = site.call("import", *arguments)
    assert (status, out["format"], out["taken"], out["repeated"], out["refused"]) == (1, "csv", 2, 0, 1)
    assert out["reasons"] == {"defect should be one of ok, scratch": 1}
    expected = [("A", "1", {"defect": "ok"}, "eve"), ("A", "3", {"defect": "scratch"}, "adam")]
    assert site.written() == expected
    assert json.loads(refused.read_text()) == {
        "line": 3,
        "place": "line 3",
        "reason": "defect should be one of ok, scratch, not 'dirt'",
        "text": "A,2,dirt,,eve",
    }
    file.write_text(file.read_text().replace("dirt", "ok"))  # mended, and the whole file again
    status, out, _ = site.call("import", *arguments)
    assert (status, out["taken"], out["repeated"], out["refused"]) == (0, 1, 2, 0)
    assert site.written() == [*expected, ("A", "2", {"defect": "ok"}, "eve")]
    assert site.call("import", *arguments, "--again")[1]["taken"] == 3


@pytest.mark.kafka
def test_a_file_of_which_nothing_is_good_says_so(site: Site, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(ROWS + "A,1,dirt,,eve\n")
    assert site.call("import", "labels.csv")[0] == 2
    (tmp_path / "labels.csv").write_text("")
    status, _, err = site.call("import", "labels.csv")
    assert (status, "there is no header" in err) == (2, True)


@pytest.mark.kafka
@pytest.mark.redis
def test_labels_come_to_an_outcome_to_the_lake_and_out_again(site: Site, redis_url: str, tmp_path: Path) -> None:
    topics = Topics(site.resource.id, site.resource.events_topic, site.resource.labels_topic)
    with RecordWriter(site.kafka) as writer:
        now, output = to_ms(SystemClock().now()), {"class": "ok", "box": None}
        prediction = Prediction(
            prediction_id="p1", version="v1", entity="A", event_id="1", time=now, output=output, boot="b", seq=0
        )
        writer.send(topics.predictions, prediction, key="p1")
        writer.send(topics.labels, b'{"value": {"defect": "ok", "box": 1}, "prediction_id": "p1"}')  # which is refused
        writer.flush()
    file = tmp_path / "labels.csv"
    file.write_text(ROWS + 'A,1,scratch,"[1,2,3,4]",=eve\nA,2,ok,,-1\n')
    assert site.call("import", str(file))[1]["taken"] == 2

    def judged() -> list[Any]:
        with RecordReader(site.kafka, topics.outcomes, Outcome) as reader:
            found = []
            while not reader.at_end():
                found += [stamped.record for stamped in reader.poll()]
        return [one.label for one in found if one.prediction_id == "p1" and one.label]

    with site.outcomes_worker(redis_url):
        label = {"defect": "scratch", "box": [1, 2, 3, 4]}
        eventually(lambda: judged() == [label], 30, every_s=0.2)
        eventually(lambda: site.in_lake() == 3, 30, every_s=0.2)
    assert site.call("import", str(file))[1]["repeated"] == 2
    for kind, name in (("csv", "out.csv"), ("jsonl", "out.jsonl.gz"), ("label-studio", "out.json")):
        status, out, _ = site.call("export", name, "--picture", "640x480")
        assert (status, out["format"]) == (0, kind)
        found = site.call("import", name)[1]
        assert (found["format"], found["taken"], found["repeated"]) == (kind, 0, 2)
    assert '"\'=eve"' in (tmp_path / "out.csv").read_text()
    assert len(site.written()) == 3


@pytest.mark.kafka
def test_an_export_without_labels_is_a_file_without_labels(site: Site, tmp_path: Path) -> None:
    assert site.call("export", "out.csv")[1]["labels"] == 0
    assert (tmp_path / "out.csv").read_text().count("\n") == 1
    status, _, err = site.call("export", "out.xlsx")
    assert (status, "--format" in err) == (2, True)
