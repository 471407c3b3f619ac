"""A message in words: what began, since when, what else changed then, what is still so, and what is over."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Literal

import msgspec

from tidemill.alerts.due import Word
from tidemill.alerts.state import AlertsState, Change
from tidemill.core.clock import from_ms
from tidemill.events.records import Alert
from tidemill.spec.alerts import SEVERITIES
from tidemill.spec.quantities import format_duration

__all__ = ["Level", "Message", "changed_before", "message", "plain"]

Level = Literal["info", "warning", "critical", "over"]

_LISTED = 15
"""Alerts of each part that are written out; the others are counted."""
_LONGEST = 300
"""Characters of one sentence: names in it come from whoever sends events."""
_CHANGES = 3
_BEFORE_MS = 3_600_000
_AFTER_MS = 60_000
"""`since` is when the evidence last stood at its floor, which is up to some ticks before what caused it."""

_TITLES: dict[str, tuple[str, str]] = {
    "drift": ("{feature} drifted", "{n} features drifted"),
    "concept": ("the loss rose{slice}", "the loss rose in {n} groups"),
    "performance": ("the loss rose further than it may{slice}", "the loss rose further than it may in {n} groups"),
    "state": ("{feature} is not watched as declared", "{n} features are not watched as declared"),
    "failed-run": ("run {version} failed", "{n} runs failed"),
    "refused-gate": ("{version} was refused", "{n} versions were refused"),
    "roll-back": ("{version} was rolled back", "{n} versions were rolled back"),
    "held": ("the rollout of {version} is held", "{n} rollouts are held"),
    "promotion": ("{version} serves", "{n} versions were promoted"),
}

_ABOUT = {
    "failed-run": "run",
    "refused-gate": "run",
    "roll-back": "version",
    "held": "version",
    "promotion": "version",
}


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What one route is told at a time."""

    route: str
    title: str
    body: str
    level: Level
    said: tuple[tuple[str, bool], ...] = ()
    """Of each alert in it, its id, and whether the message says that it is over."""


def message(route: str, words: Sequence[Word], state: AlertsState, model: str, now: int) -> Message:
    """The message that says these words (at least one)."""
    new, again, over = ([word for word in words if word.how == how] for how in ("new", "again", "over"))
    parts = [
        ("", new, [_entry(word, now) for word in new]),
        ("Changed then:", [], [f"- {_clock(change.at)} {plain(change.text)}" for change in _changes(new, state)]),
        ("Still so:", again, [_entry(word, now) for word in again]),
        ("Over:", over, [_ended(word.alert) for word in over]),
    ]
    body = "\n\n".join(_part(head, lines) for head, _, lines in parts if lines)
    return Message(
        route=route,
        title=f"{model}: {_title(new, again, over)}",
        body=body,
        level=_level([word.alert for word in (*new, *again)]),
        said=tuple((word.alert.alert_id, word.how == "over") for word in words),
    )


def changed_before(alert: Alert, changes: Iterable[Change]) -> list[Change]:
    """What changed within the hour before an alert began, the newest first."""
    found = {change for change in changes if -_BEFORE_MS <= change.at - alert.since <= _AFTER_MS}
    return sorted((change for change in found if change.about != alert.alert_id), reverse=True)


def plain(text: str) -> str:
    """Text that gives no orders to whoever shows it: on one line, without control characters, not too long."""
    flat = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    # "@all" in a station's name is to call nobody.
    flat = flat.replace("@", "@\u200b")
    return flat if len(flat) <= _LONGEST else f"{flat[: _LONGEST - 1]}…"


def _changes(new: Sequence[Word], state: AlertsState) -> list[Change]:
    told = {word.alert.alert_id for word in new}
    found = {change for word in new for change in changed_before(word.alert, state.changes)}
    return sorted((change for change in found if change.about not in told), reverse=True)[:_CHANGES]


def _title(new: Sequence[Word], again: Sequence[Word], over: Sequence[Word]) -> str:
    heads = [("", new), ("still so: ", again), ("over: ", over)]
    said = [f"{head}{_summary([word.alert for word in words])}" for head, words in heads if words]
    return "; ".join(said)


def _summary(alerts: Sequence[Alert]) -> str:
    by_kind: dict[str, list[Alert]] = {}
    for alert in alerts:
        by_kind.setdefault(alert.kind, []).append(alert)
    found = []
    for kind, (first, *others) in by_kind.items():
        one, many = _TITLES.get(kind, ("{feature} {kind}", "{n} of kind {kind}"))
        names = {name: plain(text or "") for name, text in (("feature", first.feature), ("version", first.version))}
        where = f" for {plain(first.slice)}" if first.slice else ""
        text = many if others else one
        found.append(text.format(**names, slice=where, kind=plain(kind), n=1 + len(others)))
    return ", ".join(found)


def _entry(word: Word, now: int) -> str:
    alert = word.alert
    known = _ABOUT.get(alert.kind, "measured against")
    about = f", {known} {plain(alert.version)}" if alert.version else ""
    where = f", for {plain(alert.slice)}" if alert.slice else ""
    text = f"- {plain(alert.message)}\n  since {_time(alert.since)} ({_length(now - alert.since)}){where}{about}"
    if word.was_muted is not None:
        text += f"\n  muted until {_time(word.was_muted.until)}: {plain(word.was_muted.reason)}"
    return text


def _ended(alert: Alert) -> str:
    ended = alert.resolved if alert.resolved is not None else alert.last
    length = _length(ended - alert.since)
    return f"- {plain(alert.message)}\n  over after {length}: {plain(alert.resolution)}"


def _part(head: str, lines: Sequence[str]) -> str:
    more = [f"- and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return "\n".join([*filter(None, [head]), *lines[:_LISTED], *more])


def _level(alerts: Sequence[Alert]) -> Level:
    for severity in reversed(SEVERITIES):
        if any(alert.severity == severity for alert in alerts):
            return severity
    return "over" if not alerts else "critical"


def _time(at: int) -> str:
    return f"{from_ms(at):%Y-%m-%d %H:%M} UTC"


def _clock(at: int) -> str:
    return f"{from_ms(at):%H:%M}"


def _length(milliseconds: int) -> str:
    """A length of time in its two largest units, at least a second."""
    seconds = max(1, milliseconds // 1000)
    for unit in (86_400, 3_600, 60):
        if seconds >= unit:
            step = {86_400: 3_600, 3_600: 60, 60: 1}[unit]
            return format_duration(timedelta(seconds=seconds // step * step))
    return format_duration(timedelta(seconds=seconds))
