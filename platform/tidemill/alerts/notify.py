"""The core: records, and what routes took, to the next state and what each route has to be told. Pure.

It is level-triggered: a message is given again and again, and grows with what is new, until a `Delivered` says that its
route took it. So there is no queue to lose, and a route that was down for a day is told what is so now, in one message.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from tidemill.alerts.due import due, is_settled
from tidemill.alerts.intake import Arrived, fold
from tidemill.alerts.plan import AlertPlan
from tidemill.alerts.state import GOOD_NEWS, AlertsState, ending
from tidemill.alerts.words import Message, message
from tidemill.events.records import Alert, Told

__all__ = ["Delivered", "notify", "open_alerts", "restored"]


@dataclass(frozen=True, slots=True)
class Delivered:
    """That a route took a message at a time (milliseconds)."""

    message: Message
    at: int


def notify(
    state: AlertsState, inputs: Iterable[Arrived | Delivered], plan: AlertPlan, now: int
) -> tuple[AlertsState, tuple[Message, ...]]:
    """The state after `inputs`, and what each route has to be told at `now`, at most one message each.

    Which alerts are open follows from the records alone, in whatever order and batches they come. What opens and ends
    within one call is not told: that is how a whole log is taken in on start without telling its history.
    """
    taken = list(inputs)
    alerts = {key: alert for key, alert in state.alerts.items() if not _is_past(state, alert, plan)}
    state = msgspec.structs.replace(state, alerts=alerts)
    state = fold(state, (one for one in taken if isinstance(one, Arrived)))
    told = dict(state.alerts)
    for one in taken:
        if isinstance(one, Delivered):
            _note(told, one)
    state = msgspec.structs.replace(state, alerts=told)
    state = msgspec.structs.replace(state, alerts={key: _moved(state, one, now) for key, one in told.items()})
    found = ((route, due(state.alerts.values(), route, plan, now)) for route in plan.routes)
    return state, tuple(message(route.name, words, state, plan.model, now) for route, words in found if words)


def restored(remembered: Iterable[Alert]) -> AlertsState:
    """The first state of a process: what `.alerts` remembers. The logs of signals and decisions follow, whole."""
    return AlertsState({alert.alert_id: alert for alert in remembered})


def open_alerts(state: AlertsState) -> tuple[Alert, ...]:
    """What is open, the oldest first; good news is none of it."""
    found = [one for one in state.alerts.values() if one.kind != GOOD_NEWS and ending(state, one) is None]
    return tuple(sorted(found, key=lambda alert: (alert.since, alert.alert_id)))


def _note(alerts: dict[str, Alert], delivered: Delivered) -> None:
    """Remember what a route was told; where an alert opened again while it was told as over, it counts as new."""
    for key, over in delivered.message.said:
        alert = alerts.get(key)
        if alert is None:
            continue
        told = {route: word for route, word in alert.told.items() if route != delivered.message.route}
        if not over or alert.resolved is not None:
            told[delivered.message.route] = Told(at=delivered.at, over=over)
        alerts[key] = msgspec.structs.replace(alert, told=told)


def _moved(state: AlertsState, alert: Alert, now: int) -> Alert:
    """The alert, opened or resolved where that is so now.

    What opens again before a route was told of its end goes on for that route: it is repeated, not told anew.
    """
    end = ending(state, alert)
    if end is None and (alert.opened is None or alert.resolved is not None):
        told = {route: word for route, word in alert.told.items() if not word.over}
        return msgspec.structs.replace(alert, opened=now, resolved=None, resolution="", told=told)
    if end is not None and alert.opened is not None and alert.resolved is None:
        return msgspec.structs.replace(alert, resolved=now, resolution=end.text)
    return alert


def _is_past(state: AlertsState, alert: Alert, plan: AlertPlan) -> bool:
    """Whether it is over, and nothing is left to say of it.

    A signal about another version is kept while it may be the next one's: records may come out of order.
    """
    if ending(state, alert) is None:
        return False
    if alert.opened is None and alert.kind in {"drift", "concept", "performance", "state"}:
        return state.champion is not None and alert.last < state.champion.arrived
    return is_settled(alert, plan)
