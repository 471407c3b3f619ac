"""How a model's events and predictions flow (`tidemill.watch.flow`), in words."""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from tidemill.watch.flow import Flow

__all__ = ["flow_story", "log_story"]


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


def log_story(log: Flow | None) -> Sequence[RenderableType]:
    """What is missing from the prediction log, in words."""
    if log is None:
        return []
    maybe = f", ≤ {log['maybe_lost']:,} more of servers that fell silent" if log["maybe_lost"] else ""
    return [
        Text("\nprediction log", style="bold"),
        Text(f"  {log['answered']:,} rows answered, {log['lost']:,} missing from the log{maybe}"),
    ]
