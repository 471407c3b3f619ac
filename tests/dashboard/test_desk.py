"""What people change: checked, recorded, held for a moment, and taken back."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tidemill.core.errors import Conflict, InvalidInput, NotFound, Unavailable
from tidemill.core.settings import Settings
from tidemill.dashboard.audit import Audit
from tidemill.dashboard.desk import Change, Desk, Undone
from tidemill.dashboard.viewers import Forbidden, Viewer
from tidemill.events.records import Decision, Request
from tidemill.testing.clock import ManualClock
from tidemill.testing.loop import example_resource
from tidemill.wiring import Local

RESOURCE = example_resource()
ADA, BEN, EVE = Viewer("ada", "approver"), Viewer("ben", "labeller"), Viewer("eve", "viewer")
OK, SCRATCH = {"defect": "ok", "box": None}, {"defect": "scratch", "box": [1, 2, 3, 4]}


class Writer:
    """A topic in memory."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.away = False

    def send(self, topic: str, record: bytes, *, key: str) -> None:
        if self.away:
            raise Unavailable("Kafka does not answer")
        assert topic == RESOURCE.labels_topic
        self.sent.append(json.loads(record))

    def flush(self) -> None: ...

    def close(self) -> None: ...


class Machine(Local):
    """Control answers as the test says."""

    def ask(self, resource: Any, request: Request, *, deadline_s: float = 30.0) -> Decision:
        kind = "refuse" if request.arguments["reason"] == "no" else request.kind
        return Decision(decision_id="d", kind=kind, model=resource.id, time=0, subject="v2", reason="because")


class Office:
    """A desk with all that belongs to it."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.writer = ManualClock(), Writer()
        self.audit = Audit(folder / "dashboard", self.clock)
        machine = Machine(Settings(state=folder), self.clock)
        self.desk = Desk(machine, self.audit, self.clock, writer=lambda: self.writer)  # type: ignore[arg-type,return-value]

    def told(self) -> list[str]:
        """Who did what and what came of it, the oldest first."""
        return [f"{one.by} {one.action} {one.result}" for one in reversed(self.audit.newest(RESOURCE.id))]


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """An empty desk."""
    return Office(tmp_path)


def test_a_label_in_view_of_another_is_sent_as_a_repair(office: Office) -> None:
    about = {"entity": "north", "event_id": "e1"}
    office.desk.say(BEN, RESOURCE, [Change(about, OK, SCRATCH, repair=True), Change(about, OK)])
    office.desk.send_due(all_of_them=True)
    assert [one.get("repair", False) for one in office.writer.sent] == [True, False]


def of(event: str, value: Mapping[str, Any] = SCRATCH, before: Mapping[str, Any] | None = None) -> Change:
    return Change({"entity": "north", "event_id": event}, value, before)


def test_labels_are_sent_after_a_moment_under_the_name_of_who_said_them(office: Office) -> None:
    office.desk.say(BEN, RESOURCE, [of("1"), of("2", OK)])
    office.desk.send_due()
    assert office.writer.sent == []
    office.clock.advance(office.desk.grace_s)
    office.desk.send_due()
    assert [(one["event_id"], one["labeller"], one["value"]["defect"]) for one in office.writer.sent] == [
        ("1", "ben", "scratch"),
        ("2", "ben", "ok"),
    ]
    assert office.told() == ["ben label taken", "ben label done"]


def test_labels_taken_back_in_time_leave_no_trace_in_the_log(office: Office) -> None:
    batch = office.desk.say(BEN, RESOURCE, [of("1"), of("2")])
    assert office.desk.undo(BEN, batch) == Undone(2, 0)
    office.clock.advance(office.desk.grace_s)
    office.desk.send_due()
    assert office.writer.sent == []
    assert office.told() == ["ben label taken", "ben label undone"]


def test_labels_taken_back_later_say_again_what_was_true_before(office: Office) -> None:
    batch = office.desk.say(BEN, RESOURCE, [of("1", SCRATCH, OK), of("2")])
    office.clock.advance(office.desk.grace_s)
    office.desk.send_due()
    assert office.desk.undo(BEN, batch) == Undone(1, 1)
    office.desk.send_due()
    assert [(one["event_id"], one["value"]) for one in office.writer.sent[2:]] == [("1", OK)]
    with pytest.raises(NotFound):
        office.desk.undo(BEN, batch)


def test_labels_are_taken_back_while_kafka_is_away(office: Office) -> None:
    new = office.desk.say(BEN, RESOURCE, [of("1", SCRATCH, OK)])
    office.writer.away = True
    assert office.desk.undo(BEN, new) == Undone(1, 0)
    tried = office.desk.say(BEN, RESOURCE, [of("2", SCRATCH, OK), of("3")])
    office.clock.advance(office.desk.grace_s)
    with pytest.raises(Unavailable):
        office.desk.send_due()
    # Nobody knows whether some of it was written: what was true before is said again, once that can be.
    assert office.desk.undo(BEN, tried) == Undone(1, 1)
    with pytest.raises(Unavailable):
        office.desk.send_due()
    office.writer.away = False
    office.desk.send_due()
    office.desk.close()
    assert [(one["event_id"], one["value"]) for one in office.writer.sent] == [("2", OK)]


def test_who_says_or_takes_back_labels_does_not_wait_for_kafka(office: Office) -> None:
    batch = office.desk.say(BEN, RESOURCE, [of("1", SCRATCH, OK)])
    office.clock.advance(office.desk.grace_s)
    inside, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        assert go_on.wait(30)

    office.writer.flush = wait  # type: ignore[method-assign]
    sending = threading.Thread(target=office.desk.send_due)
    sending.start()
    assert inside.wait(30)
    office.desk.say(BEN, RESOURCE, [of("2")])
    assert office.desk.undo(BEN, batch) == Undone(1, 0)
    go_on.set()
    sending.join()
    office.desk.close()
    assert [(one["event_id"], one["value"]) for one in office.writer.sent] == [
        ("1", SCRATCH),
        ("2", SCRATCH),
        ("1", OK),
    ]


def test_the_oldest_labels_are_sent_where_there_is_no_room(office: Office) -> None:
    first = office.desk.say(BEN, RESOURCE, [of("first")])
    for number in range(250):
        office.desk.say(BEN, RESOURCE, [of(str(number))])
    assert [one["event_id"] for one in office.writer.sent][:2] == ["first", "0"]
    assert len(office.writer.sent) == 51
    with pytest.raises(NotFound):
        office.desk.undo(BEN, first)


def test_nobody_takes_back_what_another_said(office: Office) -> None:
    batch = office.desk.say(BEN, RESOURCE, [of("1")])
    with pytest.raises(Forbidden):
        office.desk.undo(ADA, batch)
    assert office.desk.undo(BEN, batch).labels == 1


def test_one_label_that_is_refused_refuses_them_all(office: Office) -> None:
    with pytest.raises(InvalidInput, match="defect should be one of ok, scratch"):
        office.desk.say(BEN, RESOURCE, [of("1"), of("2", {"defect": "dent"})])
    for many in ([], [of("1")] * 501):
        with pytest.raises(InvalidInput, match="labels at once"):
            office.desk.say(BEN, RESOURCE, many)
    office.desk.close()
    assert office.writer.sent == []


def test_what_waits_is_sent_at_the_end(office: Office) -> None:
    office.desk.say(BEN, RESOURCE, [of("1")])
    office.desk.close()
    assert len(office.writer.sent) == 1


def test_a_role_that_is_not_enough_is_refused_and_recorded(office: Office) -> None:
    with pytest.raises(Forbidden):
        office.desk.say(EVE, RESOURCE, [of("1")])
    with pytest.raises(Forbidden):
        office.desk.ask(BEN, RESOURCE, "promote", "I like it")
    assert [one.split(":")[0] for one in office.told()] == ["eve label refused", "ben promote refused"]


def test_control_is_asked_with_a_reason_in_the_name_of_who_asks(office: Office) -> None:
    assert office.desk.ask(ADA, RESOURCE, "approve", " looks good ").kind == "approve"
    with pytest.raises(InvalidInput, match="say why"):
        office.desk.ask(ADA, RESOURCE, "approve", "  ")
    with pytest.raises(Conflict, match="control refused: because"):
        office.desk.ask(ADA, RESOURCE, "approve", "no")
    assert office.told() == ["ada approve asked", "ada approve done", "ada approve asked", "ada approve refused"]
    assert office.audit.newest(RESOURCE.id)[-1].told["reason"] == "looks good"


def test_the_record_is_read_from_its_end_and_by_model(office: Office) -> None:
    for number in range(5000):
        office.audit.note(ADA, "label", RESOURCE.id if number % 2 else "default.other", str(number))
    assert [one.result for one in office.audit.newest(RESOURCE.id, 3)] == ["4999", "4997", "4995"]
