"""How a model's events flow, as its ingest worker tells: taken in, quarantined, behind, and how fresh the rows are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from tidemill.core.errors import Unavailable
from tidemill.core.exposition import Metrics, metrics_addresses, read_metrics

__all__ = ["Flow", "flow_of", "flow_story", "seen_flow"]

Flow = dict[str, Any]
"""`events`, `quarantined`, `lag` (records); and `views`: by name, `age_s` of the newest value, `slo_ok` or None."""


def seen_flow(state: Path, model: str) -> Flow | None:
    """What the model's worker on this machine tells; None where none does."""
    for (process, _), address in metrics_addresses(state).items():
        if process == f"{model}-ingest":
            try:
                return flow_of(read_metrics(address), model)
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
