"""Records of a model's life, and a plan with one route that is told everything."""

from typing import Any

from tidemill.alerts.intake import Arrived
from tidemill.alerts.notify import Delivered, notify, open_alerts
from tidemill.alerts.plan import AlertPlan
from tidemill.alerts.state import AlertsState
from tidemill.alerts.words import Message
from tidemill.core.ids import deterministic_id
from tidemill.events.records import Decision, Signal
from tidemill.spec.alerts import AlertRoute, Mute

MINUTE = 60_000
HOUR = 60 * MINUTE
NOON = 1_767_355_200_000  # 2026-01-02 12:00 UTC


def signal(feature: str = "brightness", at: int = NOON, **given: Any) -> Arrived:
    """A signal that reached the log at `at`."""
    fields: dict[str, Any] = {
        "signal_id": deterministic_id("signal", feature, at),
        "kind": "drift",
        "feature": feature,
        "time": at,
        "since": at - MINUTE,
        "version": "r1",
        "evidence": 1.2,
        "message": f"{feature} fell from 0.62 to 0.41",
    }
    return Arrived(Signal(**(fields | given)), at)


def decision(kind: str, subject: str = "r1", at: int = NOON, reason: str = "for a reason", **given: Any) -> Arrived:
    """A decision that reached the log when it was decided."""
    fields: dict[str, Any] = {
        "decision_id": deterministic_id("decision", kind, subject, at),
        "kind": kind,
        "model": "default.phone",
        "time": at,
        "subject": subject,
        "reason": reason,
    }
    return Arrived(Decision(**(fields | given)), at)


def route(name: str = "oncall", **given: Any) -> AlertRoute:
    return AlertRoute.model_validate({"name": name, "urlEnv": f"{name.upper()}_URL", **given})


def mute(start: str, end: str, **given: Any) -> Mute:
    return Mute.model_validate({"start": start, "end": end, "reason": "the hall is being painted", **given})


def plan(*routes: AlertRoute, mutes: tuple[Mute, ...] = (), **given: Any) -> AlertPlan:
    return AlertPlan(model="default.phone", routes=routes or (route(),), mute=mutes, **given)


class World:
    """The core with its state, and routes that take what they are told unless they are down."""

    def __init__(self, plan: AlertPlan) -> None:
        self.plan, self.state, self.down = plan, AlertsState(), set[str]()
        self.told: list[tuple[int, Message]] = []

    def step(self, now: int, *records: Arrived) -> list[Message]:
        """What routes took at `now`."""
        self.state, messages = notify(self.state, records, self.plan, now)
        taken = [one for one in messages if one.route not in self.down]
        self.state, _ = notify(self.state, [Delivered(one, now) for one in taken], self.plan, now)
        self.told += [(now, one) for one in taken]
        return taken

    def open(self) -> set[tuple[str, str | None, str | None]]:
        return {(one.kind, one.feature, one.version) for one in open_alerts(self.state)}
