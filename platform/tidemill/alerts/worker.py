"""The alerts' process: `.signals` and `.decisions` to people, one per model.

On start it takes in both logs whole, and `.alerts`: which alerts are open follows from the first two, what was told
from the third. A step takes in what is new, remembers alerts that opened, offers each route what is due, and, once a
route took it, remembers that. A crash after a route took a message and before that is remembered repeats the message.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from tidemill.alerts.delivery import RouteDelivery
from tidemill.alerts.due import waiting_since
from tidemill.alerts.intake import Arrived
from tidemill.alerts.memory import arrived, ensure_memory, remembered
from tidemill.alerts.muting import muted
from tidemill.alerts.notifier import Notifier
from tidemill.alerts.notify import Delivered, notify, open_alerts, restored
from tidemill.alerts.plan import AlertPlan, alert_plan
from tidemill.alerts.telemetry import MUTED, OPEN, UNHELD, WAITING
from tidemill.alerts.words import Message
from tidemill.core.clock import Clock, to_ms
from tidemill.core.telemetry import get_logger
from tidemill.events.kafka import RecordReader, RecordWriter, ensure_topics
from tidemill.events.records import Alert, Decision, Signal, Topics
from tidemill.spec.alerts import KINDS
from tidemill.spec.model import ContinualModel

__all__ = ["Alerting", "run"]

_log = get_logger(__name__)

POLL_S = 0.2
"""How long a step waits for signals; with it a decision, and what a route took, is seen late by as much."""
FINISH_S = 5.0
"""How long it is waited at the end for what is under way; the supervisor gives a process ten seconds."""
_FINISH_LOOK_S = 0.05
_LOOK_MS = 1000
"""How often it is asked what is due while nothing comes in."""


def run(
    resource: ContinualModel,
    *,
    kafka: str,
    notifier: Notifier,
    clock: Clock,
    stop: threading.Event,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Tell people of one model until `stop` is set.

    Raises:
        Unavailable: Kafka does not answer; starting again goes on from what `.alerts` remembers.
        Conflict: a topic was made anew meanwhile; starting again reads it whole.
    """
    plan = alert_plan(resource)
    if not plan.routes:
        _log.info("no route: nobody to tell", model=resource.id)
        stop.wait()
        return
    topics = Topics(resource.id, resource.events_topic, resource.labels_topic)
    with Alerting(plan, topics, kafka=kafka, notifier=notifier, clock=clock, environ=environ) as alerting:
        while not stop.is_set():
            alerting.step()
        alerting.finish()


class Alerting:
    """One model's alerts at work. A context; one thread."""

    def __init__(
        self,
        plan: AlertPlan,
        topics: Topics,
        *,
        kafka: str,
        notifier: Notifier,
        clock: Clock,
        environ: Mapping[str, str],
    ) -> None:
        self._plan, self._topics, self._clock = plan, topics, clock
        self._routes = [RouteDelivery(plan.model, route, environ, notifier, clock) for route in plan.routes]
        ensure_topics(kafka, {topics.signals: 1, topics.decisions: 1})
        ensure_memory(kafka, topics)
        self.state, self._looked = restored(remembered(kafka, topics)), 0
        with ExitStack() as stack:
            for route in self._routes:
                stack.callback(route.close)
            self._writer = stack.enter_context(RecordWriter(kafka, client_id=f"{plan.model}-alerts"))
            self._decisions = stack.enter_context(RecordReader(kafka, topics.decisions, Decision))
            self._signals = stack.enter_context(RecordReader(kafka, topics.signals, Signal))
            history = [*arrived(self._decisions.rest()), *arrived(self._signals.rest())]
            self._take(history)  # at once: what opened and ended in it is no news
            self._stack = stack.pop_all()

    def __enter__(self) -> "Alerting":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def step(self) -> None:
        """Take in what is new, or wait a little for it; tell what is due."""
        new = [*arrived(self._decisions.poll(timeout_s=0)), *arrived(self._signals.poll(timeout_s=POLL_S))]
        taken = [message for route in self._routes if (message := route.taken()) is not None]
        now = self._now()
        if not new and not taken and abs(now - self._looked) < _LOOK_MS:
            return
        self._looked = now
        messages = {one.route: one for one in self._take([*new, *(Delivered(message, now) for message in taken)])}
        for route in self._routes:
            if route.route.name in messages:
                route.offer(messages[route.route.name])

    def finish(self) -> None:
        """Wait a little for attempts that are under way: one that is cut off is made again by the next process."""
        end = self._clock.monotonic() + FINISH_S
        while any(route.is_busy for route in self._routes) and self._clock.monotonic() < end:
            taken = [message for route in self._routes if (message := route.taken()) is not None]
            if taken:
                now = self._now()
                self._take([Delivered(message, now) for message in taken])
            self._clock.sleep(_FINISH_LOOK_S)

    def _take(self, inputs: Sequence[Arrived | Delivered]) -> tuple[Message, ...]:
        """The messages that are due after these inputs; what changed by them is remembered before any is sent."""
        before, now = self.state.alerts, self._now()
        self.state, messages = notify(self.state, inputs, self._plan, now)
        changed = [one for key, one in self.state.alerts.items() if one != before.get(key)]
        self._remember([alert for alert in changed if alert.opened is not None])
        self._measure(now)
        return messages

    def _remember(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            self._writer.send(self._topics.alerts, alert, key=alert.alert_id)
        if alerts:
            self._writer.flush()

    def _measure(self, now: int) -> None:
        plan, found = self._plan, open_alerts(self.state)
        for kind, severity in KINDS.items():
            OPEN.labels(plan.model, kind, severity).set(sum(alert.kind == kind for alert in found))
        MUTED.labels(plan.model).set(sum(muted(alert, plan, now) is not None for alert in found))
        UNHELD.labels(plan.model).set(self.state.unheld)
        for route in plan.routes:
            since = waiting_since(self.state.alerts.values(), route, plan, now)
            WAITING.labels(plan.model, route.name).set(0 if since is None else max(0, now - since) / 1000)

    def _now(self) -> int:
        return to_ms(self._clock.now())
