"""What people change: requests to control, and labels. Each is checked, recorded, and only then done.

Labels are held for a few seconds before they are sent, in which they can be taken back without a trace in the log.
Later, taking back is one more label: the same labeller says again what was true before. A label that nothing came
before cannot be unsaid then; it can be said anew.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import Conflict, InvalidInput, NotFound
from tidemill.core.ids import new_id
from tidemill.dashboard.audit import Audit
from tidemill.dashboard.viewers import Forbidden, Viewer
from tidemill.events.kafka import RecordWriter
from tidemill.events.records import Decision, Record, Request, encode
from tidemill.labels.check import LabelCheck
from tidemill.spec.model import ContinualModel
from tidemill.wiring import Local

__all__ = ["Asking", "Change", "Desk", "Undone"]

MOST_AT_ONCE = 500
_KEPT = 200
"""Batches that can still be taken back."""
_BACK = "back of "
"""Before the name of a batch that takes one back, by which nobody can ask for it."""

Asking = Literal["approve", "pause", "resume", "abort", "promote", "revert", "retrain"]


@dataclass(frozen=True, slots=True)
class Change:
    """One label."""

    about: Mapping[str, str]
    """What it is of: prediction_id, or entity and event_id."""
    value: Mapping[str, Any]
    before: Mapping[str, Any] | None = None
    """What counted as true before; None: nothing did."""
    repair: bool = False
    """Whether it is said in view of what others had said."""


@dataclass(frozen=True, slots=True)
class Undone:
    """What became of taking back a batch."""

    labels: int
    """That are as they were before."""
    stay: int
    """That nothing came before, and were sent already."""


@dataclass(slots=True)
class _Batch:
    viewer: Viewer
    resource: ContinualModel
    changes: Sequence[Change]
    records: Sequence[tuple[bytes, str]]
    due: float
    tried: bool = False
    """Whether any of it may be in the log."""
    sent: bool = False


class Desk:
    """The one place from which the dashboard changes anything. Thread-safe.

    Args:
        machine: where control and the brokers are.
        audit: the record of what people did.
        clock: the time.
        writer: what writes labels; a test has its own.
    """

    def __init__(
        self, machine: Local, audit: Audit, clock: Clock, *, writer: Callable[[], RecordWriter] | None = None
    ) -> None:
        self._machine, self._audit, self._clock = machine, audit, clock
        self._open = writer or self._kafka
        self.grace_s = machine.settings.dashboard_undo_seconds
        """How long labels wait before they are sent."""
        self._batches: dict[str, _Batch] = {}
        self._lock = threading.Lock()
        """Of what is kept: never held while Kafka is waited for."""
        self._sending = threading.Lock()
        """Labels get into the log in the order in which they were said."""
        self._writer: RecordWriter | None = None

    def ask(self, viewer: Viewer, resource: ContinualModel, kind: Asking, reason: str, **more: str | bool) -> Decision:
        """Ask control, and wait for its decision.

        Raises `Forbidden`, `InvalidInput` without a reason, `Conflict` where control refuses, `DeadlineExceeded`,
        `Unavailable`.
        """
        self._check(viewer, kind, resource)
        reason = reason.strip()
        if not reason:
            raise InvalidInput("say why: it stands in the decision")
        now = self._clock.now()
        request = Request(
            request_id=new_id(now),
            kind=kind,
            model=resource.id,
            time=to_ms(now),
            by=viewer.name,
            arguments={"reason": reason[:1000], **more},
        )
        self._audit.note(viewer, kind, resource.id, "asked", request=request.request_id, reason=reason)
        decision = self._machine.ask(resource, request, deadline_s=20.0)
        result = "refused" if decision.kind == "refuse" else "done"
        self._audit.note(viewer, kind, resource.id, result, request=request.request_id, decision=decision.decision_id)
        if decision.kind == "refuse":
            raise Conflict(f"control refused: {decision.reason}")
        return decision

    def say(self, viewer: Viewer, resource: ContinualModel, changes: Sequence[Change]) -> str:
        """Take labels in; they are sent after `grace_s`. Returns the batch, by which they can be taken back.

        All are checked first: one that is refused refuses them all. Raises `Forbidden`, `InvalidInput`.
        """
        self._check(viewer, "label", resource)
        if not 0 < len(changes) <= MOST_AT_ONCE:
            raise InvalidInput(f"{len(changes):,} labels at once; there may be 1 to {MOST_AT_ONCE}")
        batch = _Batch(
            viewer,
            resource,
            tuple(changes),
            self._records(viewer, resource, changes),
            self._clock.monotonic() + self.grace_s,
        )
        name = new_id(self._clock.now())
        while not self._keep(name, batch):
            self._send(next(iter(self._batches), ""))
        self._audit.note(viewer, "label", resource.id, "taken", batch=name, labels=len(changes))
        return name

    def undo(self, viewer: Viewer, name: str) -> Undone:
        """Take a batch of the same viewer back; whether Kafka answers or not, none of it is sent from now on.

        Where some of it may be in the log already, what was true before is said again as soon as Kafka takes it.
        Raises `Forbidden`, `NotFound`.
        """
        with self._lock:
            batch = self._batches.get(name)
            if batch is None:
                raise NotFound("these labels cannot be taken back any more", hint="say what is true instead")
            if batch.viewer.name != viewer.name:
                raise Forbidden(f"these are the labels of {batch.viewer.name}")
            self._check(viewer, "label", batch.resource)
            back = [
                Change(one.about, one.before, one.value, repair=True) for one in batch.changes if one.before is not None
            ]
            if batch.tried and back:
                records = self._records(viewer, batch.resource, back)
                again = _Batch(viewer, batch.resource, back, records, self._clock.monotonic())
                self._batches[_BACK + name] = again
            del self._batches[name]
        undone = Undone(len(back), len(batch.changes) - len(back)) if batch.tried else Undone(len(batch.changes), 0)
        self._audit.note(viewer, "label", batch.resource.id, "undone", batch=name, labels=undone.labels)
        return undone

    def send_due(self, *, all_of_them: bool = False) -> None:
        """Send what has waited long enough; at the end, all of it. Raises `Unavailable`; what is not sent waits on."""
        now = self._clock.monotonic()
        with self._lock:
            due = [name for name, one in self._batches.items() if not one.sent and (all_of_them or one.due <= now)]
        for name in due:
            self._send(name)

    def note_picks(self, viewer: Viewer, resource: ContinualModel, records: Sequence[Record]) -> None:
        """Record a round of the queue, before it is shown. Raises `Forbidden`, `Unavailable`."""
        self._check(viewer, "label", resource)
        if records:
            writer = self._writing()
            for record in records:
                writer.send(resource.labels_topic, record, key=getattr(record, "entity", None) or "")
            writer.flush()

    def close(self) -> None:
        """Send what waits, and end."""
        try:
            self.send_due(all_of_them=True)
        finally:
            if self._writer is not None:
                self._writer.close()

    def _check(self, viewer: Viewer, action: Any, resource: ContinualModel) -> None:
        try:
            viewer.check(action)
        except Forbidden as error:
            self._audit.note(viewer, action, resource.id, f"refused: {error.message}")
            raise

    def _records(self, viewer: Viewer, resource: ContinualModel, changes: Sequence[Change]) -> list[tuple[bytes, str]]:
        check, now = LabelCheck(resource, clock=self._clock), to_ms(self._clock.now())
        records = []
        for one in changes:
            found = check({**one.about, "labeller": viewer.name, "time": now, "value": dict(one.value)})
            records.append((encode(msgspec.structs.replace(found.label, repair=one.repair)), found.key))
        return records

    def _keep(self, name: str, batch: _Batch) -> bool:
        """Keep a batch where there is room, which the oldest makes if it is sent."""
        with self._lock:
            if len(self._batches) >= _KEPT:
                oldest = next(iter(self._batches))
                if not self._batches[oldest].sent:
                    return False
                del self._batches[oldest]
            self._batches[name] = batch
            return True

    def _send(self, name: str) -> None:
        with self._sending:
            with self._lock:
                batch = self._batches.get(name)
                if batch is None or batch.sent:  # it was taken back, or somebody else was faster
                    return
                batch.tried = True
            self._write(batch.resource, batch.records)
            with self._lock:
                batch.sent = True
                if name.startswith(_BACK):
                    del self._batches[name]
            self._audit.note(batch.viewer, "label", batch.resource.id, "done", labels=len(batch.changes))

    def _write(self, resource: ContinualModel, records: Sequence[tuple[bytes, str]]) -> None:
        writer = self._writing()
        for data, key in records:
            writer.send(resource.labels_topic, data, key=key)
        writer.flush()

    def _writing(self) -> RecordWriter:
        if self._writer is None:
            self._writer = self._open()
        return self._writer

    def _kafka(self) -> RecordWriter:
        return RecordWriter(self._machine.settings.require_kafka(), client_id="tidemill-dashboard")
