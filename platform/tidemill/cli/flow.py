"""How a model's events and predictions flow, as its workers tell.

Of events: taken in, quarantined, behind, and how fresh the rows are. Of predictions: answered, and not in the log.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from tidemill.core.errors import Unavailable
from tidemill.core.exposition import Metrics, metrics_addresses, read_metrics

__all__ = ["Flow", "flow_of", "flow_story", "log_of", "log_story", "seen_flow", "seen_log"]

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


def flow_story(flow: Flow | None) -> Sequence[RenderableType]:
    """The figures in words, since the worker's start."""
    if flow is None:
        return []
    taken = flow["events"] + flow["quarantined"]
    share = f" ({flow['quarantined'] / taken:.1%})" if taken else ""
    lines = [f"{flow['events']:,} taken in, {flow['quarantined']:,} quarantined{share}, {flow['lag']:,} not read yet"]
    words = {True: ": as fresh as features.freshness says", False: ": older than features.freshness", None: ""}
    for view, one in flow["views"].items():
        lines.append(f"newest value of view {view}: {one['age_s']:.1f} s old{words[one['slo_ok']]}")
    return [Text("\nevents since ingest began", style="bold"), *(Text(f"  {line}") for line in lines)]


def log_of(metrics: Metrics) -> Flow:
    """Of the prediction log: rows `answered`, `lost` of them, and `maybe_lost`, how many more at most."""
    return {
        name: round(sum(value for _, value in metrics.get(f"tidemill_predictions_{name}", [])))
        for name in ("answered", "lost", "maybe_lost")
    }


def log_story(log: Flow | None) -> Sequence[RenderableType]:
    """What is missing from the prediction log, in words."""
    if log is None:
        return []
    maybe = f", ≤ {log['maybe_lost']:,} more of servers that fell silent" if log["maybe_lost"] else ""
    return [
        Text("\nprediction log", style="bold"),
        Text(f"  {log['answered']:,} rows answered, {log['lost']:,} missing from the log{maybe}"),
    ]
