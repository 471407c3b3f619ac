"""What the watch tells of itself: evidence, how far its ticks are, and what it does not watch."""

from collections.abc import Iterable, Mapping

from prometheus_client import Counter, Gauge

from tidemill.core.telemetry import MOST, REGISTRY, REST
from tidemill.events.records import Signal
from tidemill.watch.plan import WatchPlan
from tidemill.watch.state import WatchState

__all__ = ["begin", "tell", "tell_signals"]

STATES = ("ok", "reference-too-small", "cannot-promise")
KINDS = ("drift", "concept", "state")

_EVIDENCE = Gauge(
    "tidemill_watch_evidence_ratio",
    f"Evidence for drift of what is watched, as a share of what an alarm needs: 1 is an alarm. The first {MOST} by "
    "name; all others together.",
    ["model", "feature"],
    registry=REGISTRY,
)
_CLOSED = Gauge(
    "tidemill_watch_closed_timestamp_seconds",
    "End of the last window tick that is over, in seconds since 1970 (event time).",
    ["model"],
    registry=REGISTRY,
)
_LATE = Gauge(
    "tidemill_watch_late_rows",
    "Rows that came after their window tick was over, one for each of their features.",
    ["model"],
    registry=REGISTRY,
)
_WATCHED = Gauge(
    "tidemill_watch_features",
    "What the reference holds, by whether a false-alarm rate can be promised for it; only `ok` is watched.",
    ["model", "state"],
    registry=REGISTRY,
)
_REFERENCE = Gauge(
    "tidemill_watch_reference",
    "1 while the version that serves has a reference; without one nothing is watched.",
    ["model"],
    registry=REGISTRY,
)
_SIGNALS = Counter(
    "tidemill_watch_signals_total", "Signals that were produced, by kind.", ["model", "kind"], registry=REGISTRY
)


_LATENESS = Gauge(
    "tidemill_watch_lateness_seconds",
    "How far ticks are behind events when all is well: events.allowedLateness, and the length of a tick.",
    ["model"],
    registry=REGISTRY,
)


def begin(plan: WatchPlan) -> None:
    """Tell zeros from the start, and how far behind ticks may be."""
    for kind in KINDS:
        _SIGNALS.labels(plan.model, kind)
    _LATENESS.labels(plan.model).set((plan.lateness_ms + plan.tick_ms) / 1000)


def tell(model: str, state: WatchState, evidence: Mapping[str, float]) -> None:
    """How the watch stands after a commit."""
    _CLOSED.labels(model).set(state.ticks.closed / 1000)
    _LATE.labels(model).set(state.ticks.late)
    _REFERENCE.labels(model).set(state.reference is not None)
    features = state.reference.features if state.reference is not None else ()
    for name in STATES:
        _WATCHED.labels(model, name).set(sum(feature.state == name for feature in features))
    names = list(evidence)
    shown = {name: evidence[name] for name in names[:MOST]}
    if names[MOST:]:
        shown[REST] = sum(evidence[name] for name in names[MOST:])
    for sample in next(iter(_EVIDENCE.collect())).samples:  # what another version's reference had
        if sample.labels["model"] == model and sample.labels["feature"] not in shown:
            _EVIDENCE.remove(model, sample.labels["feature"])
    for name, part in shown.items():
        _EVIDENCE.labels(model, name).set(part)


def tell_signals(model: str, signals: Iterable[Signal]) -> None:
    """Signals were produced."""
    for signal in signals:
        _SIGNALS.labels(model, signal.kind).inc()
