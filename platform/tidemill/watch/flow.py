"""How a model's events and predictions flow, as its workers tell.

Of events: taken in, quarantined, behind, and how fresh the rows are. Of predictions: answered, and not in the log.
"""

from pathlib import Path
from typing import Any

from tidemill.core.errors import Unavailable
from tidemill.core.exposition import Metrics, metrics_addresses, read_metrics

__all__ = ["Flow", "flow_of", "log_of", "seen_flow", "seen_log"]

Flow = dict[str, Any]
"""`events`, `quarantined`, `lag` (records); and `views`: by name, `age_s` of the newest value, `slo_ok` or None."""


def seen_flow(state: Path, model: str) -> Flow | None:
    """What the model's ingest worker on this machine tells; None where none does."""
    metrics = _metrics_of(state, f"{model}-ingest")
    return None if metrics is None else flow_of(metrics, model)


def seen_log(state: Path, model: str) -> Flow | None:
    """What the model's outcomes worker on this machine tells of the prediction log; None where none does."""
    metrics = _metrics_of(state, f"{model}-outcomes")
    return None if metrics is None else log_of(metrics)


def _metrics_of(state: Path, wanted: str) -> Metrics | None:
    for (process, _), address in metrics_addresses(state).items():
        if process == wanted:
            try:
                return read_metrics(address)
            except Unavailable:  # it has ended since
                return None
    return None


def flow_of(metrics: Metrics, model: str) -> Flow:
    """The model's figures among a worker's metrics."""

    def values(name: str) -> list[tuple[str, float]]:
        """Of each series of the model: its view, if it has one, and its value."""
        found = metrics.get(name, [])
        return [(labels.get("view", ""), value) for labels, value in found if labels.get("model") == model]

    def total(name: str) -> int:
        return round(sum(value for _, value in values(name)))

    kept = dict(values("tidemill_feature_freshness_slo_ok"))
    ages = values("tidemill_feature_freshness_seconds")
    return {
        "events": total("tidemill_ingest_events_total"),
        "quarantined": total("tidemill_ingest_quarantined_total"),
        "lag": total("tidemill_ingest_lag_records"),
        "views": {view: {"age_s": age, "slo_ok": bool(kept[view]) if view in kept else None} for view, age in ages},
    }


def log_of(metrics: Metrics) -> Flow:
    """Of the prediction log: rows `answered`, `lost` of them, and `maybe_lost`, how many more at most."""
    return {
        name: round(sum(value for _, value in metrics.get(f"tidemill_predictions_{name}", [])))
        for name in ("answered", "lost", "maybe_lost")
    }
