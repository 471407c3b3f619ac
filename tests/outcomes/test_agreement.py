"""The figures of label quality on `.outcomes`: once a period, from the lake alone; readers of outcomes skip them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from tests.labels.lake import LabelLake
from tests.outcomes.test_crashes import World

from tidemill.control.log import KafkaLog
from tidemill.core.errors import NotFound, Unavailable
from tidemill.events.kafka import RecordReader, RecordWriter, ensure_topics
from tidemill.events.records import LabelAgreement, Outcome, Topics
from tidemill.outcomes.agreement import SPAN, AgreementTeller, figures
from tidemill.outcomes.log import Channel
from tidemill.testing import eventually
from tidemill.testing.clock import ManualClock
from tidemill.testing.loop import example_resource

START = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path, topic_prefix: str) -> LabelLake:
    resource = example_resource(topic_prefix, labels={"fields": [{"name": "defect", "type": "class"}]})
    made = LabelLake(tmp_path, resource, START)
    for number in range(8):
        for labeller in ("x", "y", "z"):
            word = "scratch" if number % 2 or (labeller, number) == ("z", 0) else "ok"
            made.label(labeller, {"defect": word}, entity="a", event_id=str(number))
    made.label("x", {"defect": "dent"}, entity="a", event_id="new")
    return made


def told(lake: LabelLake, clock: ManualClock) -> tuple[AgreementTeller, list[LabelAgreement]]:
    written: list[LabelAgreement] = []
    return AgreementTeller(lake.resource, kafka="", lake=lake.uri, clock=clock, write=written.append), written


def test_the_figures_say_how_far_labels_are_trusted_and_what_is_new(lake: LabelLake) -> None:
    found = figures(lake.resource, lake.uri, START + timedelta(minutes=5))
    assert found.alpha is not None
    assert 0.7 < found.alpha < 0.9
    assert found.trusted == (found.alpha >= found.min_agreement)
    assert (found.labels, found.compared) == (25, 8)
    assert min(found.reliability, key=lambda name: found.reliability[name]) == "z"
    assert [(one.value, one.labels) for one in found.new_classes] == [("dent", 1)]
    assert found.agreement_id == f"{lake.resource.id}/agreement/defect/{found.through}"


def test_a_class_that_a_version_answers_is_not_new(lake: LabelLake) -> None:
    lake.predict("p", "dent", 0.9, entity="a", event_id="new")
    assert figures(lake.resource, lake.uri, START + timedelta(minutes=5)).new_classes == []


def test_the_same_rows_and_period_give_the_same_record_whatever_came_later(lake: LabelLake) -> None:
    through = lake.now + timedelta(seconds=0.5)
    before = figures(lake.resource, lake.uri, through)
    lake.label("y", {"defect": "scratch"}, entity="a", event_id="2")
    assert figures(lake.resource, lake.uri, through) == before


def test_labels_older_than_the_span_are_no_longer_told(lake: LabelLake) -> None:
    with pytest.raises(NotFound):
        figures(lake.resource, lake.uri, lake.now + SPAN + timedelta(seconds=1))


def test_a_record_is_told_once_a_full_period_when_its_labels_are_surely_in_the_lake(lake: LabelLake) -> None:
    clock = ManualClock(START + timedelta(minutes=4, seconds=50))
    teller, written = told(lake, clock)
    clock.advance(20)  # 12:05:10: labels of 12:04:59 may still be on their way
    teller.begin_if_due()
    teller.close()
    assert written == []
    clock.advance(10)
    for _ in range(3):
        teller.begin_if_due()
        teller.close(60)
    assert [one.through for one in written] == [round((START + timedelta(minutes=5)).timestamp() * 1000)]
    clock.advance(300)
    teller.begin_if_due()
    teller.close(60)
    assert len(written) == 2


def test_nothing_is_told_before_the_worker_has_noted_how_far_it_judged(lake: LabelLake) -> None:
    written: list[LabelAgreement] = []
    clock, ready = ManualClock(START), [False]
    teller = AgreementTeller(
        lake.resource, kafka="", lake=lake.uri, clock=clock, ready=lambda: ready[0], write=written.append
    )
    for told in (0, 1):
        clock.advance(330)
        teller.begin_if_due()
        teller.close(60)
        assert len(written) == told
        ready[0] = True


def test_a_lake_without_labels_and_a_log_that_is_away_disturb_nothing(lake: LabelLake, tmp_path: Path) -> None:
    def away(_: LabelAgreement) -> None:
        raise Unavailable("no broker")

    clock = ManualClock(START)
    AgreementTeller(lake.resource, kafka="", lake=str(tmp_path / "none"), clock=clock).tell(1)
    AgreementTeller(lake.resource, kafka="", lake=lake.uri, clock=clock, write=away).tell(5_880_000)


def test_the_worker_keeps_no_row_of_the_figures_and_reads_on_behind_them(lake: LabelLake) -> None:
    world = World(Random(1), 1, 0.0)
    world.predict()
    world.settle()
    world.topics.append(Channel.OUTCOMES, figures(lake.resource, lake.uri, START + timedelta(minutes=5)))
    world.alive = None
    world.predict()
    world.settle()
    (table,) = [rows for uri, rows in world.table.kept.items() if uri.endswith(".outcomes")]
    written = [outcome.prediction_id for outcome in world.topics.outcomes()]
    assert len(written) == 2
    assert table["prediction_id"].to_list() == written


@pytest.mark.kafka
def test_control_reads_the_figures_between_the_outcomes(
    lake: LabelLake, kafka: str, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = Topics(lake.resource.id, lake.resource.events_topic, lake.resource.labels_topic)
    names = (topics.outcomes, topics.requests, topics.signals, topics.decisions)
    ensure_topics(kafka, dict.fromkeys(names, 1))
    now = round(START.timestamp() * 1000)
    outcome = Outcome(prediction_id="p", version="v", entity="a", predicted_at=now, eligible_at=now, output={})
    period = round((START + timedelta(minutes=5)).timestamp() / 300)
    AgreementTeller(lake.resource, kafka=kafka, lake=lake.uri, clock=ManualClock(START)).tell(period)
    with RecordWriter(kafka) as writer:
        writer.send(topics.outcomes, outcome, key="p")
        writer.flush()
    log = KafkaLog(kafka, topics)
    try:
        records = eventually(lambda: found if len(found := log.outcomes({}).records) == 2 else None, 15)
    finally:
        log.close()
    assert records is not None
    assert [type(one.record) for one in records] == [LabelAgreement, Outcome]
    assert "skipped what is no record" not in capsys.readouterr().out
    with RecordReader(kafka, topics.outcomes, LabelAgreement) as reader:
        found = [one.record for one in reader.poll(timeout_s=5)]
    assert [one.model for one in found] == [lake.resource.id]
