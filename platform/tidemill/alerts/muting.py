"""The times at which nobody is told."""

from typing import NamedTuple

from tidemill.alerts.plan import AlertPlan
from tidemill.core.clock import to_ms
from tidemill.events.records import Alert
from tidemill.spec.alerts import Mute

__all__ = ["Muted", "muted"]

_PERIODS = {"24h": 86_400_000, "7d": 7 * 86_400_000}


class Muted(NamedTuple):
    """Until when (milliseconds), and why."""

    until: int
    reason: str


def muted(alert: Alert, plan: AlertPlan, at: int) -> Muted | None:
    """The window that keeps this alert from being told at `at`, the one that ends last; None where none does."""
    found = [Muted(end, window.reason) for window in plan.mute if (end := _end(window, alert, at)) is not None]
    return max(found, default=None)


def _end(window: Mute, alert: Alert, at: int) -> int | None:
    """When the window ends, if `at` is in it and it is about this alert; else None."""
    if window.kinds is not None and alert.kind not in window.kinds:
        return None
    if window.features is not None and alert.feature not in window.features:
        return None
    start, end = to_ms(window.start), to_ms(window.end)
    if window.every is not None and at > start:
        period = _PERIODS[window.every]
        shift = (at - start) // period * period
        start, end = start + shift, end + shift
    return end if start <= at < end else None
