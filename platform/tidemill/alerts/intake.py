"""What a record means for alerts: which one it opens, which it ends, and what changed by it. Pure.

    record                                  alert           ended by
    signal drift, concept, state            of that kind    the next promotion: detectors start anew with it
    decision run-failed                     failed-run      the next run that ends well, with a version or without
    decision run-finished (by its gates)    refused-gate    the next rollout that starts
    decision roll-back                      roll-back       the next promotion
    decision hold                           held            the rollout going on, or its end
    decision promote                        promotion       is told once

Signals are compared by when they reached the log, decisions by when they were decided: a repeat of either changes
nothing. A signal about another version than the one that serves opens nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from tidemill.alerts.state import MOST_ALERTS, AlertsState, Champion, Change, Ending, ending
from tidemill.core.ids import deterministic_id
from tidemill.events.records import Alert, Decision, Signal
from tidemill.spec.alerts import KINDS, AlertKind

__all__ = ["Arrived", "alert_id", "fold"]

_OPENS: dict[str, AlertKind] = {
    "run-failed": "failed-run",
    "run-finished": "refused-gate",
    "roll-back": "roll-back",
    "revert": "roll-back",
    "hold": "held",
    "promote": "promotion",
}
_CHANGES = {
    "start-run": "run {subject} started: {reason}",
    "start-rollout": "the rollout of {subject} started",
    "go-on": "the rollout of {subject} went {reason}",
    "promote": "{subject} was promoted",
    "roll-back": "{subject} was taken back {reason}",
    "revert": "{subject} was replaced: {reason}",
}
_MOST_CHANGES = 200
"""A rollout is a handful of them; an hour's are told."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A record, and when it reached the log (milliseconds)."""

    record: Signal | Decision
    at: int


@dataclass
class _Fold:
    """The state while records are taken in; plain dicts, since a replay takes in many thousands."""

    alerts: dict[str, Alert]
    champion: Champion | None
    ends: dict[str, Ending]
    changes: set[Change]
    unheld: int = 0

    def state(self) -> AlertsState:
        changes = tuple(sorted(self.changes)[-_MOST_CHANGES:])
        return AlertsState(self.alerts, self.champion, self.ends, changes, self.unheld)


def fold(state: AlertsState, records: Iterable[Arrived]) -> AlertsState:
    """The state after these records."""
    work = _Fold(dict(state.alerts), state.champion, dict(state.ends), set(state.changes), state.unheld)
    for arrived in records:
        if isinstance(arrived.record, Signal):
            _take_signal(work, arrived.record, arrived.at)
        else:
            _take_decision(work, arrived.record, arrived.at)
        if len(work.changes) > 2 * _MOST_CHANGES:
            work.changes = set(sorted(work.changes)[-_MOST_CHANGES:])
    return work.state()


def alert_id(kind: str, *parts: str | None) -> str:
    """The key of an alert: the same for the same kind, subject, feature, slice and version."""
    return deterministic_id("alert", kind, *(part or "" for part in parts))


def _take_signal(work: _Fold, signal: Signal, at: int) -> None:
    key = alert_id(signal.kind, signal.subject, signal.feature, signal.slice, signal.version)
    since = signal.since if signal.since is not None else signal.time
    alert = Alert(
        alert_id=key,
        kind=signal.kind,
        severity=KINDS[signal.kind],
        subject=signal.subject,
        feature=signal.feature,
        slice=signal.slice,
        version=signal.version,
        since=since,
        last=at,
        message=signal.message,
    )
    _hold(work, alert)
    if signal.kind == "state":
        work.changes.add(Change(signal.time, signal.message, key))


def _take_decision(work: _Fold, decision: Decision, at: int) -> None:
    if decision.kind == "promote":
        _promote(work, decision, at)
    known = work.ends.get(decision.kind)
    if known is None or decision.time > known.at:
        work.ends[decision.kind] = Ending(decision.time, _in_words(decision))
    kind = _OPENS.get(decision.kind)
    # Runs fail for one reason again and again: that is one alert. Of versions, each has its own.
    key = alert_id(kind, None if kind == "failed-run" else decision.subject) if kind else ""
    if text := _CHANGES.get(decision.kind):
        told = text.format(subject=decision.subject, reason=decision.reason)
        work.changes.add(Change(decision.time, told, key))
    if kind:
        alert = Alert(
            alert_id=key,
            kind=kind,
            severity=KINDS[kind],
            version=decision.subject,
            since=decision.time,
            last=decision.time,
            message=decision.reason,
        )
        _hold(work, alert)


def _promote(work: _Fold, decision: Decision, at: int) -> None:
    new = Champion(decision.subject, decision.time, decision.decision_id, at)
    known = work.champion
    # Of two that are equal, the one that arrived first: a repeat does not put off when the version began to serve.
    if known is None or (new.time, new.decision_id, -at) > (known.time, known.decision_id, -known.arrived):
        work.champion = new


def _hold(work: _Fold, alert: Alert) -> None:
    """Keep the alert; of one that is known, what the newer record says."""
    known = work.alerts.get(alert.alert_id)
    if known is None:
        if len(work.alerts) >= MOST_ALERTS and not _make_room(work, alert):
            work.unheld += 1
            return
        work.alerts[alert.alert_id] = alert
    elif alert.last > known.last:
        over = ending(AlertsState(champion=work.champion, ends=work.ends), known) is not None
        newer: dict[str, Any] = {name: getattr(alert, name) for name in ("last", "message", "version", "severity")}
        if over or known.opened is None:
            newer["since"] = alert.since
        work.alerts[alert.alert_id] = msgspec.structs.replace(known, **newer)


def _make_room(work: _Fold, new: Alert) -> bool:
    """Drop the alert that has been over for longest, or is of a time that is over; False where all are open.

    What is not watched may be hundreds of columns: of open alerts these give way to any other kind.
    """
    state = AlertsState(champion=work.champion, ends=work.ends)
    found = [alert for alert in work.alerts.values() if ending(state, alert) is not None]
    if not found and new.kind != "state":
        found = [alert for alert in work.alerts.values() if alert.kind == "state"]
        work.unheld += bool(found)
    if not found:
        return False
    first = min(found, key=lambda alert: (alert.opened is not None, alert.last))
    del work.alerts[first.alert_id]
    return True


def _in_words(decision: Decision) -> str:
    words = {
        "run-finished": "run {subject} ended well",
        "start-rollout": "the rollout of {subject} started",
        "promote": "{subject} was promoted",
        "go-on": "the rollout of {subject} goes on",
        "set-traffic": "{subject} is being promoted",
        "roll-back": "{subject} is taken back",
        "rolled-back": "{subject} was taken back",
    }
    return words.get(decision.kind, "{subject}: " + decision.kind).format(subject=decision.subject)
