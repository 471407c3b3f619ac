"""What a resource declares of alerts, as the pure core needs it. Times are milliseconds."""

from dataclasses import dataclass

from tidemill.core.clock import to_ms
from tidemill.events.records import Alert
from tidemill.spec.alerts import SEVERITIES, AlertRoute, Mute
from tidemill.spec.model import ContinualModel

__all__ = ["AlertPlan", "alert_plan", "goes_to", "rank"]


@dataclass(frozen=True, kw_only=True)
class AlertPlan:
    """Who is told what, and how often."""

    model: str
    routes: tuple[AlertRoute, ...]
    mute: tuple[Mute, ...] = ()
    group_ms: int = 30_000
    repeat_ms: int = 4 * 3_600_000


def alert_plan(resource: ContinualModel) -> AlertPlan:
    """The plan of a resource."""
    alerts = resource.spec.alerts
    return AlertPlan(
        model=resource.id,
        routes=alerts.routes,
        mute=alerts.mute,
        group_ms=to_ms(alerts.group_for),
        repeat_ms=to_ms(alerts.repeat_after),
    )


def goes_to(alert: Alert, route: AlertRoute) -> bool:
    """Whether a route is told this alert."""
    if route.kinds is not None and alert.kind not in route.kinds:
        return False
    if route.subjects is not None and alert.subject is not None and alert.subject not in route.subjects:
        return False
    return rank(alert.severity) >= rank(route.severity)


def rank(severity: str) -> int:
    """How severe it is, from 0. One that a newer version wrote counts as the most severe: told rather than lost."""
    return next((rank for rank, known in enumerate(SEVERITIES) if known == severity), len(SEVERITIES))
