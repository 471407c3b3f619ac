"""`.alerts`: what people were told, and what is open, as a compacted topic; and all that follows from the log."""

from collections.abc import Callable, Iterable

from tidemill.alerts.intake import Arrived
from tidemill.alerts.notify import notify, restored
from tidemill.alerts.plan import AlertPlan
from tidemill.alerts.state import AlertsState
from tidemill.core.errors import NotFound
from tidemill.events.kafka import RecordReader, Stamped, ensure_topics
from tidemill.events.records import Alert, Decision, Signal, Topics

__all__ = ["arrived", "ensure_memory", "recall", "remembered"]

_KEPT_MS = 90 * 86_400_000
"""An open alert is written again whenever it is repeated, so that only what is over for long ages out."""


def ensure_memory(kafka: str, topics: Topics) -> None:
    """Make the topic of what was told, where there is none."""
    ensure_topics(kafka, {topics.alerts: 1}, retention_ms=_KEPT_MS, compacted=True)


def remembered(kafka: str, topics: Topics) -> tuple[Alert, ...]:
    """The newest record of each alert; none where there is no such topic."""
    found: dict[str, Alert] = {}
    try:
        with RecordReader(kafka, topics.alerts, Alert) as reader:
            for stamped in reader.rest():
                found[stamped.record.alert_id] = stamped.record
    except NotFound:
        return ()
    return tuple(found.values())


def recall(kafka: str, topics: Topics, plan: AlertPlan, now: int) -> AlertsState:
    """The state as the logs say it now, for a command that only looks. Topics that are not there say nothing."""
    records: list[Arrived] = []
    readers: tuple[Callable[[], RecordReader[Decision] | RecordReader[Signal]], ...] = (
        lambda: RecordReader(kafka, topics.decisions, Decision),
        lambda: RecordReader(kafka, topics.signals, Signal),
    )
    for make in readers:
        try:
            with make() as reader:
                records += arrived(reader.rest())
        except NotFound:
            continue
    state, _ = notify(restored(remembered(kafka, topics)), records, plan, now)
    return state


def arrived(stamped: Iterable[Stamped[Signal] | Stamped[Decision]]) -> list[Arrived]:
    """Records as the core takes them."""
    return [Arrived(one.record, one.timestamp_ms) for one in stamped]
