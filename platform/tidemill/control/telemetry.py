"""What control tells of each model: its phase and traffic, how its turns go, what was decided."""

from typing import get_args

from prometheus_client import Counter, Gauge

from tidemill.control.state import LoopStatus, Phase
from tidemill.core.telemetry import REGISTRY, set_all

__all__ = ["DECISIONS", "forget", "tell", "tell_failures", "tell_turn"]

_PHASE = Gauge(
    "tidemill_control_phase", "1 for the phase that a model's loop is in.", ["model", "phase"], registry=REGISTRY
)
_CHAMPION = Gauge(
    "tidemill_control_champion_share_ratio",
    "The champion's share of the requests, as the proxy shows it; nothing while there is no champion.",
    ["model"],
    registry=REGISTRY,
)
_REQUESTS = Gauge(
    "tidemill_proxy_requests",
    "Requests that the proxy sent to a version since its server began; those without an answer among them.",
    ["model", "version"],
    registry=REGISTRY,
)
_ERRORS = Gauge(
    "tidemill_proxy_errors", "Of them, those that failed, as the proxy saw it.", ["model", "version"], registry=REGISTRY
)
_TURN = Gauge("tidemill_control_turn_seconds", "How long the last turn took.", ["model"], registry=REGISTRY)
_TURNED = Gauge(
    "tidemill_control_turn_timestamp_seconds",
    "When the last turn that did not fail was over, in seconds since 1970.",
    ["model"],
    registry=REGISTRY,
)
_FAILURES = Gauge("tidemill_control_failures", "Turns in a row that failed.", ["model"], registry=REGISTRY)
_TROUBLES = Gauge(
    "tidemill_control_troubles", "What could not be seen or done at the last turn.", ["model"], registry=REGISTRY
)
DECISIONS = Counter("tidemill_control_decisions_total", "Decisions, by kind.", ["model", "kind"], registry=REGISTRY)
_BY_MODEL = (_REQUESTS, _ERRORS, _CHAMPION, _TURN, _TURNED, _FAILURES, _TROUBLES)


def tell(model: str, status: LoopStatus) -> None:
    """Where the loop stands after a turn."""
    for phase in get_args(Phase):
        _PHASE.labels(model, phase).set(phase == status.phase)
    _TROUBLES.labels(model).set(len(status.seen.troubles))
    revisions = status.seen.traffic.revisions
    set_all(_REQUESTS, model, "version", {one.version: one.requests for one in revisions})
    set_all(_ERRORS, model, "version", {one.version: one.errors for one in revisions})
    if status.champion is None:
        _CHAMPION.remove_by_labels({"model": model})
        return
    seen = status.seen.traffic.revision(status.champion.version)
    _CHAMPION.labels(model).set(0.0 if seen is None else seen.share / 100)


def tell_turn(model: str, seconds: float) -> None:
    """A turn went well."""
    _TURN.labels(model).set(seconds)
    _TURNED.labels(model).set_to_current_time()
    _FAILURES.labels(model).set(0)


def tell_failures(model: str, failures: int) -> None:
    """A turn failed, and so many in a row now."""
    _FAILURES.labels(model).set(failures)


def forget(model: str) -> None:
    """The model is gone, and its series with it."""
    for metric in (*_BY_MODEL, _PHASE, DECISIONS):
        metric.remove_by_labels({"model": model})
