"""What the processes of a model that is well tell, at two moments some seconds apart."""

from collections.abc import Mapping

from tidemill.core.exposition import Metrics
from tidemill.testing.serving import served_resource
from tidemill.watch.health import Line, Look, Process, Scrape, health

FEATURES = {"image": ["brightness"], "windows": [{"name": "n", "agg": "count", "over": ["1h"]}]}
RESOURCE = served_resource(features=FEATURES)
M = RESOURCE.id
BEGAN, NOW = 1_000_000.0, 1_000_002.0

Told = dict[tuple[str, str], tuple[float, float]]
"""By name and labels (`a=b,c=d`): the value at both moments."""

_ITSELF: Told = {
    ("tidemill_process_cpu_seconds_total", ""): (10, 10.5),
    ("tidemill_process_resident_memory_bytes", ""): (2e8, 2e8),
}
HEALTHY: dict[str, Told] = {
    "control": {
        ("tidemill_control_phase", f"model={M},phase=Serving"): (1, 1),
        ("tidemill_control_phase", f"model={M},phase=Canary"): (0, 0),
        ("tidemill_control_turn_timestamp_seconds", f"model={M}"): (BEGAN - 1, NOW - 1),
        ("tidemill_control_turn_seconds", f"model={M}"): (0.1, 0.1),
        ("tidemill_control_failures", f"model={M}"): (0, 0),
        ("tidemill_control_failures", "model=default.other"): (9, 9),
        ("tidemill_control_troubles", f"model={M}"): (0, 0),
        ("tidemill_control_champion_share_ratio", f"model={M}"): (1, 1),
        ("tidemill_proxy_requests", f"model={M},version=v1"): (100, 140),
        ("tidemill_proxy_errors", f"model={M},version=v1"): (0, 0),
    },
    "ingest": {
        ("tidemill_ingest_events_total", f"model={M}"): (1000, 1200),
        ("tidemill_ingest_quarantined_total", f"model={M},field=shift"): (1, 1),
        ("tidemill_ingest_lag_records", f"model={M},partition=0"): (10, 10),
        ("tidemill_ingest_lag_timestamp_seconds", f"model={M}"): (BEGAN, NOW - 3),
        ("tidemill_ingest_lost_offsets_total", f"model={M}"): (0, 0),
        ("tidemill_feature_freshness_seconds", f"model={M},view=events"): (2, 2),
        ("tidemill_feature_skew_timestamp_seconds", f"model={M}"): (BEGAN - 60, BEGAN - 60),
        ("tidemill_feature_skew_predictions", f"model={M},result=equal"): (50, 50),
        ("tidemill_feature_skew_predictions", f"model={M},result=differing"): (0, 0),
    },
    "outcomes": {
        ("tidemill_outcomes_total", "kind=first"): (100, 140),
        ("tidemill_outcomes_labelled_total", "kind=first"): (99, 138),
        ("tidemill_outcomes_lag_records", "topic=labels"): (0, 0),
        ("tidemill_outcomes_waiting_predictions", ""): (5, 5),
        ("tidemill_labels_searched", ""): (0, 0),
        ("tidemill_labels_total", "result=accepted"): (100, 140),
        ("tidemill_predictions_answered", ""): (100, 140),
        ("tidemill_predictions_lost", ""): (0, 0),
        ("tidemill_predictions_maybe_lost", ""): (0, 0),
        ("tidemill_label_delay_seconds_bucket", "le=10.0"): (100, 140),
        ("tidemill_label_delay_seconds_bucket", "le=60.0"): (100, 140),
        ("tidemill_label_delay_seconds_bucket", "le=+Inf"): (100, 140),
        ("tidemill_label_delay_seconds_count", ""): (100, 140),
    },
    "serve": {
        ("tidemill_predictions_total", "version=v1"): (100, 140),
        ("tidemill_predict_requests_total", "version=v1,result=answered"): (100, 140),
        ("tidemill_predict_requests_total", "version=v1,result=failed"): (0, 0),
        ("tidemill_predict_seconds_bucket", "version=v1,le=0.01"): (100, 140),
        ("tidemill_predict_seconds_bucket", "version=v1,le=5.0"): (100, 140),
        ("tidemill_predict_seconds_bucket", "version=v1,le=+Inf"): (100, 140),
        ("tidemill_predict_seconds_count", "version=v1"): (100, 140),
        ("tidemill_predictions_dropped_total", ""): (0, 0),
        ("tidemill_feature_reads_total", "status=PRESENT"): (100, 140),
        ("tidemill_feature_null_values_total", "feature=n_1h"): (0, 0),
    },
    "watch": {
        ("tidemill_watch_reference", f"model={M}"): (1, 1),
        ("tidemill_watch_features", f"model={M},state=ok"): (3, 3),
        ("tidemill_watch_features", f"model={M},state=cannot-promise"): (0, 0),
        ("tidemill_watch_evidence_ratio", f"model={M},feature=brightness"): (0.1, 0.1),
        ("tidemill_watch_closed_timestamp_seconds", f"model={M},stream=inputs"): (BEGAN - 600, NOW - 600),
        ("tidemill_watch_lateness_seconds", f"model={M},stream=inputs"): (601, 601),
    },
}


def metrics(told: Told, moment: int) -> Metrics:
    """As a scrape has them."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for (name, labels), values in (_ITSELF | told).items():
        parsed = dict(pair.split("=", 1) for pair in labels.split(",") if pair)
        found.setdefault(name, []).append((parsed, values[moment]))
    return found


def look(roles: Mapping[str, Told | None] = HEALTHY) -> Look:
    """Both moments; a role with None does not answer at the second."""

    def scrape(moment: int, at: float) -> Scrape:
        made = [
            Process(f"{M}-{role}", role, None if told is None else metrics(told, moment), "ready")
            for role, told in roles.items()
        ]
        return Scrape(at, made)

    return Look(scrape(1, NOW), scrape(0, BEGAN), M)


def changed(role: str, name: str, labels: str, *values: float) -> dict[str, Told | None]:
    """All is well, but for one series."""
    at = (values[0], values[-1])
    return {**HEALTHY, role: {**HEALTHY[role], (name, labels): at}}


def lines(roles: Mapping[str, Told | None] = HEALTHY) -> dict[str, Line]:
    """By what they are about."""
    found = health(RESOURCE, look(roles))
    made = {line.what: line for line in found}
    assert len(made) == len(found), "each line has a name of its own"
    return made
