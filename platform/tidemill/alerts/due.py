"""What each route has to be told. Pure, and of the state alone: what no route has taken stays due until one has.

    new     an open alert that the route does not know: `groupFor` after it opened
    again   one that stays open: `repeatAfter` after the last word
    over    one that ended: `groupFor` after it did, so that what ends together is told together

What ended before the route took the first word is told as over, once, unless it was muted when it ended.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from tidemill.alerts.muting import Muted, muted
from tidemill.alerts.plan import AlertPlan, goes_to
from tidemill.alerts.state import NOTICES
from tidemill.events.records import Alert
from tidemill.spec.alerts import AlertRoute

__all__ = ["Word", "due", "is_settled", "waiting_since"]

_OLD_NEWS_MS = 86_400_000
"""A notice older than this is not told any more: alerts were switched on later, or nobody ran for long."""


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
    words = [word for alert in alerts if (word := _word(alert, route, plan, now)) and not muted(alert, plan, now)]
    if not any(word.at <= now for word in words):
        return ()
    order = {"new": 0, "again": 1, "over": 2}
    told = [word for word in words if word.how != "again" or word.at <= now]
    return tuple(sorted(told, key=lambda word: (order[word.how], word.alert.since, word.alert.alert_id)))


def waiting_since(alerts: Iterable[Alert], route: AlertRoute, plan: AlertPlan, now: int) -> int | None:
    """Since when the route's oldest word has been due; None where none is."""
    return min((word.at for word in due(alerts, route, plan, now)), default=None)


def is_settled(alert: Alert, plan: AlertPlan, now: int) -> bool:
    """Whether nothing will ever be said of this alert again, unless it opens once more."""
    if alert.opened is not None and alert.resolved is None:
        return False
    return all(_word(alert, route, plan, now) is None for route in plan.routes)


def _word(alert: Alert, route: AlertRoute, plan: AlertPlan, now: int) -> Word | None:
    if alert.opened is None or not goes_to(alert, route):
        return None
    told, notice = alert.told.get(route.name), alert.kind in NOTICES
    if alert.resolved is None:
        if told is None:
            old = notice and now - alert.since > _OLD_NEWS_MS
            return None if old else Word(alert, "new", alert.opened + plan.group_ms, muted(alert, plan, alert.opened))
        return None if notice else Word(alert, "again", told.at + plan.repeat_ms)
    if notice or (told is not None and told.over):
        return None
    if told is None and muted(alert, plan, alert.resolved):
        return None
    return Word(alert, "over", alert.resolved + plan.group_ms)
