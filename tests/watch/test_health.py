"""What is well, what is not, and what is not known: the rules of `tidemill health`."""

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.watch.healthy import FEATURES, HEALTHY, NOW, RESOURCE, M, Told, changed, lines, look, metrics

from tidemill.core.telemetry import REST
from tidemill.testing.serving import served_resource
from tidemill.watch.health import EXPECTED, Look, Process, Scrape, health, worst
from tidemill.watch.health.lines import LIMITS, Grading

SERIES = [(role, name, labels) for role, told in HEALTHY.items() for name, labels in told]


def test_a_model_that_is_well_has_only_lines_that_are_ok() -> None:
    found = lines()
    assert {what: line.why for what, line in found.items() if line.state != "ok"} == {}
    assert all(line.do == "" for line in found.values())
    assert worst(found.values()) == "ok"


@pytest.mark.parametrize(
    ("role", "name", "labels", "values", "what", "state"),
    [
        ("ingest", "feature_freshness_seconds", f"model={M},view=events", (700.0,), "freshness of events", "warn"),
        ("ingest", "ingest_lag_records", f"model={M},partition=0", (1500.0,), "ingest behind", "warn"),
        ("ingest", "ingest_lag_records", f"model={M},partition=0", (9000.0,), "ingest behind", "bad"),
        ("ingest", "ingest_stopped", f"model={M},partition=0", (1.0,), "ingest stopped", "bad"),
        ("ingest", "ingest_quarantined_total", f"model={M},field=shift", (1.0, 11.0), "quarantined", "warn"),
        ("ingest", "ingest_quarantined_total", f"model={M},field=shift", (1.0, 901.0), "quarantined", "bad"),
        ("ingest", "ingest_lost_offsets_total", f"model={M}", (3.0,), "events lost", "bad"),
        ("ingest", "feature_skew_predictions", f"model={M},result=differing", (1.0,), "skew", "bad"),
        ("ingest", "waiting", f"worker={M}.ingest", (1.0,), "ingest: waits", "bad"),
        ("serve", "feature_reads_total", "status=NOT_FOUND", (0.0, 10.0), "online reads NOT_FOUND", "warn"),
        ("serve", "feature_reads_total", "status=UNAVAILABLE", (0.0, 10.0), "online reads UNAVAILABLE", "bad"),
        ("serve", "feature_null_values_total", "feature=n_1h", (0.0, 30.0), "null features", "warn"),
        ("serve", "predict_requests_total", "version=v1,result=failed", (0.0, 5.0), "requests failed", "bad"),
        ("serve", "predict_requests_total", "version=v1,result=refused", (0.0, 5.0), "requests refused", "warn"),
        ("control", "proxy_errors", f"model={M},version=v1", (0.0, 5.0), "requests failed at the proxy", "bad"),
        ("serve", "predict_seconds_bucket", "version=v1,le=0.01", (100.0, 130.0), "latency", "bad"),
        ("serve", "predictions_dropped_total", "", (1.0,), "predictions dropped", "bad"),
        ("outcomes", "predictions_lost", "", (1.0,), "loss of the log", "warn"),
        ("outcomes", "predictions_maybe_lost", "", (50.0,), "loss of the log", "bad"),
        ("outcomes", "labels_total", "result=refused", (0.0, 5.0), "labels refused", "warn"),
        ("outcomes", "outcomes_labelled_total", "kind=first", (50.0,), "labelled", "warn"),
        ("outcomes", "label_delay_seconds_bucket", "le=10.0", (100.0, 101.0), "label delay", "warn"),
        ("outcomes", "outcomes_lag_records", "topic=labels", (30_000.0,), "outcomes behind", "warn"),
        ("watch", "watch_reference", f"model={M}", (0.0,), "drift is watched", "bad"),
        ("watch", "watch_features", f"model={M},state=cannot-promise", (1.0,), "not promised", "warn"),
        ("watch", "watch_evidence_ratio", f"model={M},feature=brightness", (0.8,), "evidence of drift", "warn"),
        ("watch", "watch_closed_timestamp_seconds", f"model={M},stream=inputs", (NOW - 700.0,), "watch behind", "warn"),
        ("control", "control_failures", f"model={M}", (3.0,), "turns failed", "bad"),
        ("control", "control_turn_timestamp_seconds", f"model={M}", (NOW - 100.0,), "the loop's last turn", "bad"),
        ("control", "control_champion_share_ratio", f"model={M}", (0.4,), "champion's traffic", "bad"),
        ("control", "process_cpu_seconds_total", "", (1.0, 3.5), f"{M}-control: processor", "warn"),
        ("control", "process_resident_memory_bytes", "", (5e9,), f"{M}-control: memory", "bad"),
    ],
)
def test_what_is_not_well_is_said_with_what_helps(
    role: str, name: str, labels: str, values: tuple[float, ...], what: str, state: str
) -> None:
    found = lines(changed(role, f"tidemill_{name}", labels, *values))
    assert found[what].state == state, found[what]
    assert found[what].do
    assert {name for name, line in found.items() if line.state == "bad"} <= {what}


@pytest.mark.parametrize("role", [*EXPECTED, "serve"])
def test_a_process_that_does_not_answer_is_bad_and_what_it_would_tell_is_unknown(role: str) -> None:
    well, found = lines(), lines({**HEALTHY, role: None})
    assert found[f"{M}-{role}"].state == "bad"
    lost = {what for what, line in found.items() if line.state != "ok"} - {f"{M}-{role}"}
    assert len(lost) >= 4
    assert {found[what].state for what in lost} == {"unknown"}
    assert {what.partition(":")[0] for what in well.keys() - found.keys()} == {f"{M}-{role}"}, "its costs alone"


@pytest.mark.parametrize("role", [*EXPECTED, "serve"])
def test_a_role_that_is_not_there_at_all_is_bad(role: str) -> None:
    gone = {name: told for name, told in HEALTHY.items() if name != role}
    assert lines(gone)[role].state == "bad"


def test_a_server_is_not_missed_before_a_version_serves() -> None:
    control = {name: told for name, told in HEALTHY["control"].items() if "champion" not in name[0]}
    watch = {**HEALTHY["watch"], ("tidemill_watch_reference", f"model={M}"): (0.0, 0.0)}
    roles: dict[str, Told | None] = {**HEALTHY, "control": control, "watch": watch}
    del roles["serve"]
    found = lines(roles)
    assert "serve" not in found
    assert found["champion's traffic"].state == found["drift is watched"].state == "unknown"
    assert worst(found.values()) == "unknown"


@given(series=st.sampled_from(SERIES))
def test_without_a_series_nothing_that_rests_on_it_is_ok(series: tuple[str, str, str]) -> None:
    role, name, _ = series
    told = {key: value for key, value in HEALTHY[role].items() if key[0] != name}
    well, found = lines(), lines({**HEALTHY, role: told})
    for what, line in found.items():
        assert line.state != "ok" or line.value == well[what].value, line


@given(series=st.sampled_from(SERIES))
def test_what_is_not_a_number_is_never_ok(series: tuple[str, str, str]) -> None:
    well, found = lines(), lines(changed(series[0], *series[1:], math.nan))
    for what, line in found.items():
        assert line.value is None or not math.isnan(line.value)
        assert line.state != "ok" or line.value == well[what].value, line


VALUES = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(st.dictionaries(st.sampled_from(SERIES), st.tuples(VALUES, VALUES), max_size=12), st.booleans())
def test_whatever_is_told_there_are_lines_and_no_unknown_is_ok(
    told: dict[tuple[str, str, str], tuple[float, float]], has_slo: bool
) -> None:
    roles: dict[str, dict[tuple[str, str], tuple[float, float]]] = {}
    for (role, name, labels), values in told.items():
        roles.setdefault(role, {})[name, labels] = values
    resource = served_resource(features=FEATURES | {"freshness": "5s"}) if has_slo else RESOURCE
    for line in health(resource, look(roles)):
        assert (line.state == "unknown") == (line.value is None), line
        assert line.why
        assert line.about
        assert bool(line.do) == (line.state in {"warn", "bad"}), line


@given(VALUES, VALUES, st.tuples(VALUES, VALUES).filter(lambda both: both[0] <= both[1]))
def test_more_is_never_better(one: float, other: float, limits: tuple[float, float]) -> None:
    grading = Grading(warn=limits[0], bad=limits[1])
    order = ["ok", "warn", "bad"]
    if one <= other:
        assert order.index(grading.of(one)) <= order.index(grading.of(other))
    assert grading.of(math.nan) == grading.of(None) == "unknown"


def test_thresholds_are_the_resources_where_it_has_them() -> None:
    slo = served_resource(features=FEATURES | {"freshness": "1s"})
    found = {line.what: line for line in health(slo, look())}
    assert found["freshness of events"].state == "bad"
    assert "features.freshness is 1 s" in found["freshness of events"].why
    calm = replace(LIMITS, failed_warn=0.0, latency_warn_s=0.001)
    assert {line.what: line.state for line in health(RESOURCE, look(), calm)}["latency"] == "warn"


def test_the_rest_of_many_features_is_no_evidence() -> None:
    found = lines(changed("watch", "tidemill_watch_evidence_ratio", f"model={M},feature={REST}", 7.0))
    assert found["evidence of drift"].value == 0.1


def test_without_a_count_of_bad_records_their_share_is_not_known() -> None:
    told = {key: value for key, value in HEALTHY["ingest"].items() if "quarantined" not in key[0]}
    assert lines({**HEALTHY, "ingest": told})["quarantined"].state == "unknown"


def test_a_lag_that_was_measured_long_ago_is_not_known() -> None:
    found = lines(changed("ingest", "tidemill_ingest_lag_timestamp_seconds", f"model={M}", NOW - 90))
    assert found["ingest behind"].state == "unknown"
    assert "90 s ago" in found["ingest behind"].why


def test_a_counter_that_began_anew_has_grown_by_what_it_holds() -> None:
    told = changed("ingest", "tidemill_ingest_events_total", f"model={M}", 1000.0, 40.0)
    assert look(told).rate("ingest", "tidemill_ingest_events_total") == 20


def test_a_share_of_few_new_cases_is_of_all_so_far() -> None:
    told = changed("serve", "tidemill_predict_requests_total", "version=v1,result=answered", 139.0, 140.0)
    line = lines(told)["requests failed"]
    assert (line.value, line.why) == (0, "of 140 requests since it began")


def test_one_look_alone_knows_no_rates() -> None:
    alone = Look(Scrape(NOW, look().now.processes), None, M)
    found = {line.what: line for line in health(RESOURCE, alone)}
    assert {found[what].state for what in ("events", "predictions", "outcomes written")} == {"unknown"}
    assert found["latency"].state == "ok"
    assert found["ingest behind"].state == "ok"


@pytest.mark.parametrize(("state", "grade"), [("failing", "bad"), ("starting", "warn"), ("ending", "warn")])
def test_a_process_is_as_its_supervisor_sees_it(state: str, grade: str) -> None:
    process = Process(f"{M}-ingest", "ingest", None, state, restarts=4)
    found = {line.what: line for line in health(RESOURCE, Look(Scrape(NOW, [process]), None, M))}
    assert found[f"{M}-ingest"].state == grade


def test_parts_that_tell_nothing_of_themselves_are_told_of() -> None:
    up: Told = {
        ("tidemill_child_ready", "process=kafka"): (1, 1),
        ("tidemill_child_ready", "process=redis"): (1, 0),
        ("tidemill_child_ready", "process=default.other-ingest"): (0, 0),
        ("tidemill_child_cpu_seconds_total", "process=kafka"): (5, 6),
        ("tidemill_child_resident_memory_bytes", "process=kafka"): (4e8, 4e8),
    }
    made = [Process("up", "up", metrics(up, moment)) for moment in (0, 1)]
    found = {line.what: line for line in health(RESOURCE, Look(Scrape(2, made[1:]), Scrape(0, made[:1]), M))}
    assert (found["kafka"].state, found["redis"].state) == ("ok", "bad")
    assert (found["kafka: processor"].value, found["kafka: memory"].value) == (0.5, 4e8)
    assert "default.other-ingest" not in found


def test_each_limit_is_used() -> None:
    folder = Path(health.__code__.co_filename).parent
    text = "".join(file.read_text() for file in folder.glob("*.py"))
    assert [one.name for one in fields(LIMITS) if f"limits.{one.name}" not in text] == []
