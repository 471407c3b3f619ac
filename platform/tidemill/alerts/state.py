"""What is known of alerts: those that are held, and what ends them. Bounded, and the same in any order of records."""

import msgspec

from tidemill.events.records import Alert

__all__ = ["EVENTS", "GOOD_NEWS", "MOST_ALERTS", "ONCE", "AlertsState", "Champion", "Change", "Ending", "ending"]

MOST_ALERTS = 500
"""Alerts that are held at a time; beyond them `state` gives way, else new ones are counted alone."""

GOOD_NEWS = "promotion"
"""The kind that is nothing to be open."""

EVENTS = frozenset({GOOD_NEWS, "roll-back", "refused-gate"})
"""Kinds that happen rather than last: nobody need be reminded of a version that was taken back weeks ago."""

ONCE = EVENTS | {"state"}
"""Kinds that are told once, and of which the end is not told: each promotion says anew what is not watched."""

ENDS: dict[str, frozenset[str]] = {
    "failed-run": frozenset({"run-finished", "start-rollout"}),
    "refused-gate": frozenset({"start-rollout"}),
    "roll-back": frozenset({"promote"}),
    "held": frozenset({"go-on", "set-traffic", "promote", "roll-back", "rolled-back", "start-rollout"}),
}
"""Kinds of decisions that end an alert of a kind; all other kinds are ended by the next promotion."""


class Champion(msgspec.Struct, frozen=True):
    """The promotion that was decided last."""

    version: str
    time: int
    decision_id: str
    arrived: int
    """When it reached the log: signals that reached it before are of the time before."""


class Ending(msgspec.Struct, frozen=True):
    """That something is over: when, and why in words."""

    at: int
    text: str


class Change(msgspec.Struct, frozen=True, order=True):
    """Something that changed, which may be the reason for something else."""

    at: int
    text: str
    about: str = ""
    """The alert that it is told as, if any."""


class AlertsState(msgspec.Struct, frozen=True):
    """The state of the pure core."""

    alerts: dict[str, Alert] = {}
    champion: Champion | None = None
    ends: dict[str, Ending] = {}
    """By kind of decision, the newest."""
    changes: tuple[Change, ...] = ()
    """The newest, oldest first."""
    unheld: int = 0
    """Alerts that there was no room for."""


def ending(state: AlertsState, alert: Alert) -> Ending | None:
    """What ended this alert, or why it is not about the present; None while it is open.

    It depends on which records were taken in, and not on their order.
    """
    if alert.kind in ENDS:
        found = [end for kind in ENDS[alert.kind] if (end := state.ends.get(kind)) and end.at >= alert.last]
        return max(found, key=lambda end: end.at, default=None)
    champion = state.champion
    if champion is None:
        return None
    if alert.version == champion.version and (alert.kind == GOOD_NEWS or alert.last >= champion.arrived):
        return None
    return Ending(champion.time, f"{champion.version} was promoted")
