"""How events flow, as `describe` tells it."""

from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge

from tidemill.cli.flow import flow_story, log_story
from tidemill.core.exposition import Metrics, serve_metrics
from tidemill.core.settings import Settings
from tidemill.core.telemetry import REGISTRY
from tidemill.ingest.telemetry import EVENTS, LAG, QUARANTINED
from tidemill.watch.flow import flow_of, log_of, seen_flow, seen_log

M = "default.flows"


def said(*metrics: tuple[str, dict[str, str], float]) -> str:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for name, labels, value in metrics:
        found.setdefault(f"tidemill_{name}", []).append(({"model": M} | labels, value))
    return "\n".join(str(line) for line in flow_story(flow_of(found, M)))


def test_figures_are_summed_over_partitions_and_fields_of_the_model_alone() -> None:
    text = said(
        ("ingest_events_total", {}, 1200.0),
        ("ingest_events_total", {"model": "default.other"}, 7.0),
        ("ingest_quarantined_total", {"field": "x"}, 2.0),
        ("ingest_quarantined_total", {"field": "y"}, 1.0),
        ("ingest_lag_records", {"partition": "0"}, 4.0),
        ("ingest_lag_records", {"partition": "1"}, 5.0),
    )
    assert "1,200 taken in, 3 quarantined (0.2%), 9 not read yet" in text


@pytest.mark.parametrize(
    ("ok", "words"), [(1.0, "2.5 s old: as fresh as"), (0.0, "2.5 s old: older than"), (None, "2.5 s old")]
)
def test_freshness_is_told_with_its_slo(ok: float | None, words: str) -> None:
    slo = [] if ok is None else [("feature_freshness_slo_ok", {"view": "events"}, ok)]
    assert words in said(("feature_freshness_seconds", {"view": "events"}, 2.5), *slo)


def test_what_a_worker_on_this_machine_tells_is_found(tmp_path: Path) -> None:
    assert seen_flow(tmp_path, M) is None
    for metric, labels in ((EVENTS, [M]), (QUARANTINED, [M, "x"])):
        assert isinstance(metric, Counter)
        metric.labels(*labels).inc(3)
    assert isinstance(LAG, Gauge)
    LAG.labels(M, "0").set(2)
    serve_metrics(Settings(state=tmp_path), f"{M}-ingest", REGISTRY)
    found = seen_flow(tmp_path, M)
    assert found == {"events": 3, "quarantined": 3, "lag": 2, "views": {}}


def test_a_worker_that_has_ended_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / f"{M}-ingest").write_text("1 127.0.0.1:9")
    assert seen_flow(tmp_path, M) is None
    assert flow_story(None) == []
    assert seen_log(tmp_path, M) is None
    assert log_story(None) == []


def test_what_is_missing_from_the_prediction_log_is_told() -> None:
    names = ("answered", "lost", "maybe_lost")
    for values, words in (
        ((1200, 0, 0), "0 missing from the log"),
        ((1200, 3, 50), "3 missing from the log, ≤ 50 more"),
    ):
        metrics: Metrics = {
            f"tidemill_predictions_{name}": [({}, float(of))] for name, of in zip(names, values, strict=True)
        }
        assert f"1,200 rows answered, {words}" in "\n".join(map(str, log_story(log_of(metrics))))
