"""What each route has to be told. Pure, and of the state alone: what no route has taken stays due until one has.

    new     an open alert that the route does not know: `groupFor` after it opened
    again   one that stays open: `repeatAfter` after the last word
    over    one that ended: `groupFor` after it did, so that what ends together is told together

What ended before the route took the first word is told as over, once, unless it was muted when it ended. What is told
once (`state.ONCE`) is neither told again nor, to a route that knows it, as over.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from tidemill.alerts.muting import Muted, muted
from tidemill.alerts.plan import AlertPlan, goes_to, rank
from tidemill.alerts.state import EVENTS, GOOD_NEWS, ONCE
from tidemill.events.records import Alert
from tidemill.spec.alerts import AlertRoute

__all__ = ["Word", "due", "is_settled", "waiting_since"]

_OLD_NEWS_MS = 86_400_000
"""What happened longer ago than this when it was noticed is not told: alerts were switched on later, or did not run."""


class Word(NamedTuple):
    """One thing to say of one alert."""

    alert: Alert
    how: Literal["new", "again", "over"]
    at: int
    """From when on."""
    was_muted: Muted | None = None
    """The window in which it opened."""


def due(alerts: Iterable[Alert], route: AlertRoute, plan: AlertPlan, now: int) -> tuple[Word, ...]:
    """What to tell a route now, in one message; empty where nothing is due yet.

    Once anything is due, all that is new or over goes with it; repetitions keep their time.
    """
    words = [word for alert in alerts if (word := _word(alert, route, plan)) and not muted(alert, plan, now)]
    if not any(word.at <= now for word in words):
        return ()
    order = {"new": 0, "again": 1, "over": 2}
    told = [word for word in words if word.how != "again" or word.at <= now]
    return tuple(sorted(told, key=lambda word: (order[word.how], *_worst_first(word.alert))))


def waiting_since(alerts: Iterable[Alert], route: AlertRoute, plan: AlertPlan, now: int) -> int | None:
    """Since when the route's oldest word has been due; None where none is."""
    return min((word.at for word in due(alerts, route, plan, now)), default=None)


def is_settled(alert: Alert, plan: AlertPlan) -> bool:
    """Whether nothing will ever be said of this alert again, unless it opens once more."""
    if alert.opened is not None and alert.resolved is None:
        return False
    return all(_word(alert, route, plan) is None for route in plan.routes)


def _word(alert: Alert, route: AlertRoute, plan: AlertPlan) -> Word | None:
    if alert.opened is None or not goes_to(alert, route) or _is_old_news(alert):
        return None
    told = alert.told.get(route.name)
    if alert.resolved is None:
        if told is None:
            return Word(alert, "new", alert.opened + plan.group_ms, muted(alert, plan, alert.opened))
        return None if alert.kind in ONCE else Word(alert, "again", told.at + plan.repeat_ms)
    if told is None:
        untold = alert.kind == GOOD_NEWS or muted(alert, plan, alert.resolved)
        return None if untold else Word(alert, "over", alert.resolved + plan.group_ms)
    return None if told.over or alert.kind in ONCE else Word(alert, "over", alert.resolved + plan.group_ms)


def _worst_first(alert: Alert) -> tuple[int, int, str]:
    return -rank(alert.severity), alert.since, alert.alert_id


def _is_old_news(alert: Alert) -> bool:
    return alert.kind in EVENTS and alert.opened is not None and alert.opened - alert.since > _OLD_NEWS_MS
