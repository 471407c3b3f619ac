"""Grafana's dashboards: the loop of a model, and the system under it. Each panel is a title, a unit and its queries.

A test holds every metric that a query names to those that the code tells.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["DASHBOARDS", "Panel", "texts"]

Json = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        title: what it shows.
        queries: legend and PromQL; `$model` is the model that was chosen.
        unit: as Grafana calls it.
        text: what to make of it.
    """

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    text: str = ""


_OF = '{model="$model"}'

_LOOP = (
    Panel(
        "Champion's share of requests",
        [("champion", f"tidemill_control_champion_share_ratio{_OF}")],
        "percentunit",
        "Below 100 % while a candidate is tried.",
    ),
    Panel("Phase", [("{{phase}}", f"tidemill_control_phase{_OF}")], text="1 for the phase that the loop is in."),
    Panel(
        "Decisions",
        [("{{kind}}", f"sum by (kind) (increase(tidemill_control_decisions_total{_OF}[$__rate_interval]))")],
    ),
    Panel(
        "Requests by version",
        [("{{version}}", f"sum by (version) (rate(tidemill_predict_requests_total{_OF}[$__rate_interval]))")],
        "reqps",
    ),
    Panel(
        "99th percentile of answers by version",
        [
            (
                "{{version}}",
                "histogram_quantile(0.99, sum by (version, le) "
                f"(rate(tidemill_predict_seconds_bucket{_OF}[$__rate_interval])))",
            )
        ],
        "s",
    ),
    Panel(
        "Evidence of drift",
        [("{{feature}}", f"tidemill_watch_evidence_ratio{_OF}")],
        "percentunit",
        "Of what an alarm needs: at 100 % there is one.",
    ),
    Panel(
        "Outcomes, and those with a label",
        [
            ("outcomes", f"sum(rate(tidemill_outcomes_total{_OF}[$__rate_interval]))"),
            ("labelled", f"sum(rate(tidemill_outcomes_labelled_total{_OF}[$__rate_interval]))"),
        ],
        "cps",
    ),
    Panel("Signals", [("{{kind}}", f"sum by (kind) (increase(tidemill_watch_signals_total{_OF}[$__rate_interval]))")]),
)

_SYSTEM = (
    Panel("Processes that answer", [("{{role}}", 'sum by (role) (up{job="tidemill"})')]),
    Panel(
        "Events taken in",
        [("{{model}}", "sum by (model) (rate(tidemill_ingest_events_total[$__rate_interval]))")],
        "cps",
    ),
    Panel("Records that wait", [("{{model}}", "sum by (model) (tidemill_ingest_lag_records)")]),
    Panel(
        "Quarantined",
        [("{{model}}", "sum by (model) (rate(tidemill_ingest_quarantined_total[$__rate_interval]))")],
        "cps",
    ),
    Panel("Age of the newest features", [("{{model}} {{view}}", "tidemill_feature_freshness_seconds")], "s"),
    Panel(
        "Predictions lost",
        [
            ("{{model}} lost", "sum by (model) (tidemill_predictions_lost)"),
            ("{{model}} maybe lost", "sum by (model) (tidemill_predictions_maybe_lost)"),
        ],
    ),
    Panel(
        "Processor",
        [("{{role}} {{process}}", "rate(tidemill_process_cpu_seconds_total[$__rate_interval])")],
        "short",
        "Cores. A role is one process: near 1 is as fast as it gets.",
    ),
    Panel("Memory", [("{{role}} {{process}}", "tidemill_process_resident_memory_bytes")], "bytes"),
    Panel("Turns that failed in a row", [("{{model}}", "tidemill_control_failures")]),
)

DASHBOARDS = {
    "loop": ("Tidemill: a model's loop", _LOOP, True),
    "system": ("Tidemill: the system", _SYSTEM, False),
}
"""By name: title, panels, and whether a model is chosen."""


def texts() -> dict[str, str]:
    """Each dashboard as the JSON that Grafana imports."""
    return {
        name: json.dumps(_dashboard(name, *content), indent=1, ensure_ascii=False) + "\n"
        for name, content in DASHBOARDS.items()
    }


def _dashboard(name: str, title: str, panels: Sequence[Panel], of_model: bool) -> Json:
    variables: list[Json] = [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
    if of_model:
        query = "label_values(tidemill_control_failures, model)"
        variables.append(
            {
                "name": "model",
                "label": "Model",
                "type": "query",
                "datasource": _SOURCE,
                "query": query,
                "definition": query,
                "refresh": 2,
            }
        )
    return {
        "uid": f"tidemill-{name}",
        "title": title,
        "tags": ["tidemill"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables},
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


_SOURCE = {"type": "prometheus", "uid": "${source}"}


def _panel(number: int, panel: Panel) -> Json:
    """Two beside each other."""
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + position), "expr": query, "legendFormat": legend, "datasource": _SOURCE}
            for position, (legend, query) in enumerate(panel.queries)
        ],
    }
