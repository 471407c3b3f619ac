"""What the watch tells of itself: evidence, how far its ticks are, and what it does not watch."""

from collections.abc import Iterable, Mapping

from prometheus_client import Counter, Gauge

from tidemill.core.telemetry import MOST, REGISTRY, REST, set_all
from tidemill.events.records import Signal
from tidemill.watch.plan import WatchPlan
from tidemill.watch.state import WatchState

__all__ = ["tell"]

STATES = ("ok", "reference-too-small", "cannot-promise")
KINDS = ("drift", "concept", "performance", "state")

_EVIDENCE = Gauge(
    "tidemill_watch_evidence_ratio",
    f"Evidence for drift of what is watched, as a share of what an alarm needs: 1 is an alarm. The first {MOST}, "
    "of slices the most; all others together.",
    ["model", "feature"],
    registry=REGISTRY,
)
_CLOSED = Gauge(
    "tidemill_watch_closed_timestamp_seconds",
    "End of the last window tick of a stream that is over, in seconds since 1970 (event time).",
    ["model", "stream"],
    registry=REGISTRY,
)
_LATE = Gauge(
    "tidemill_watch_late_rows",
    "Rows that came after their window tick was over, one for each of their features.",
    ["model", "stream"],
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
    "How far ticks are behind when all is well: events.allowedLateness, and the length of a tick.",
    ["model", "stream"],
    registry=REGISTRY,
)


def tell(plan: WatchPlan, state: WatchState, evidence: Mapping[str, float], signals: Iterable[Signal]) -> None:
    """How the watch stands after a commit, or at its start, and what was said with it.

    Args:
        plan: what the resource says.
        state: the reducer's.
        evidence: by quantity; one of a slice has the slice behind a comma, which never becomes a label.
        signals: those produced now.
    """
    model = plan.model
    for kind in KINDS:
        _SIGNALS.labels(model, kind)
    for signal in signals:
        _SIGNALS.labels(model, signal.kind).inc()
    for stream, ticks in state.streams.items():
        _CLOSED.labels(model, stream).set(ticks.closed / 1000)
        _LATE.labels(model, stream).set(ticks.late)
        _LATENESS.labels(model, stream).set((plan.lateness_of(stream) + plan.tick_ms) / 1000)
    # A promotion takes effect with the next record, which may be long in coming.
    reference = state.pending[-1].reference if state.pending else state.reference
    _REFERENCE.labels(model).set(reference is not None)
    features = reference.features if reference is not None else ()
    for name in STATES:
        _WATCHED.labels(model, name).set(sum(feature.state == name for feature in features))
    _tell_evidence(model, evidence)


def _tell_evidence(model: str, evidence: Mapping[str, float]) -> None:
    most: dict[str, float] = {}
    for quantity, part in evidence.items():
        name = quantity.partition(", ")[0]
        most[name] = max(part, most.get(name, 0.0))
    names = list(most)
    shown = {name: most[name] for name in names[:MOST]}
    if names[MOST:]:
        shown[REST] = sum(most[name] for name in names[MOST:])
    set_all(_EVIDENCE, model, "feature", shown)
