"""The alerts: valid, about metrics that exist, with the numbers of `tidemill health`, each with its page."""

import importlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field
from tests.watch.healthy import HEALTHY, lines

from tidemill.core.telemetry import REGISTRY
from tidemill.watch.health.answers import LABELLED_OF_CONTROL
from tidemill.watch.health.lines import LIMITS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "manifests" / "prometheus"
PAGE = "docs/how-to/watch-the-system.md"
CHILD = {f"tidemill_child_{name}" for name in ("ready", "restarts", "cpu_seconds", "resident_memory_bytes")}
LABELS = {
    *("model", "version", "partition", "view", "field", "feature", "status", "result", "kind", "state", "phase"),
    *("severity", "route", "reason", "worker", "topic", "stream", "process", "le", "python"),
}
"""Labels that a metric of ours may have: each with values that are few and known beforehand."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Annotations(Strict):
    summary: Annotated[str, Field(min_length=20)]
    runbook_url: Annotated[str, Field(pattern=rf"^{PAGE}#[a-z-]+$")]


class Severity(Strict):
    severity: Literal["critical", "warning"]


class Alert(Strict):
    alert: Annotated[str, Field(pattern=r"^Tidemill[A-Za-z]+$")]
    expr: str
    for_: Annotated[str, Field(alias="for", pattern=r"^\d+[mh]$")] = "0m"
    labels: Severity
    annotations: Annotations


class Group(Strict):
    name: str
    rules: list[Alert]


class Rules(Strict):
    groups: list[Group]


RULES = Rules.model_validate(yaml.safe_load((FOLDER / "rules.yaml").read_text()))
ALERTS = {rule.alert: rule for group in RULES.groups for rule in group.rules}

# The numbers that an alert shares with a line.
SHARED: dict[str, tuple[float, ...]] = {
    "TidemillMemory": (LIMITS.memory_bad_bytes,),
    "TidemillProcessorFull": (LIMITS.cores_warn,),
    "TidemillFeaturesOld": (LIMITS.freshness_warn_s,),
    "TidemillIngestBehind": (LIMITS.catch_up_bad_s,),
    "TidemillLagUnknown": (LIMITS.measured_s,),
    "TidemillQuarantined": (LIMITS.quarantined_warn,),
    "TidemillReadsUnavailable": (LIMITS.unavailable_bad,),
    "TidemillReadsNotFound": (LIMITS.not_found_warn,),
    "TidemillFeatureNulls": (LIMITS.nulls_warn,),
    "TidemillSkewUnknown": (LIMITS.skew_age_s,),
    "TidemillRequestsFail": (LIMITS.failed_bad,),
    "TidemillProxyErrors": (LIMITS.failed_bad,),
    "TidemillRequestsRefused": (LIMITS.refused_warn,),
    "TidemillSlow": (LIMITS.latency_bad_s,),
    "TidemillLogLoss": (LIMITS.log_loss_bad,),
    "TidemillOutcomesBehind": (LIMITS.outcomes_lag_bad,),
    "TidemillLabelsMissing": (LABELLED_OF_CONTROL,),
    "TidemillLabelsRefused": (LIMITS.refused_labels_warn,),
    "TidemillWatchBehind": (LIMITS.watch_behind_bad_s,),
    "TidemillLoopStands": (LIMITS.turn_age_bad_s,),
    "TidemillTurnsFail": (LIMITS.failures_bad,),
}


def plain(expression: str) -> str:
    """Without strings, by which a name might be meant."""
    return re.sub(r'"[^"]*"', '""', expression)


def telling() -> set[str]:
    """The modules that define metrics, `outcomes.telemetry` for instance."""
    files = [file for root in ("streaming", "feature_store", "platform") for file in (ROOT / root).rglob("*.py")]
    return {
        ".".join(file.with_suffix("").parts[file.parts.index("tidemill", len(ROOT.parts)) + 1 :])
        for file in files
        if re.search(r"registry=REGISTRY|= Spread\(", file.read_text())
    }


def told() -> dict[str, set[str]]:
    """Names of the series that the roles' modules define, and their labels."""
    for module in telling():
        importlib.import_module(f"tidemill.{module}")
    names: dict[str, set[str]] = {name: {"process"} for one in CHILD for name in (one, f"{one}_total")}
    for family in REGISTRY.collect():
        ends = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "info": ["_info"]}
        labels = {label for sample in family.samples for label in sample.labels}
        names |= {family.name + end: labels for end in ends.get(family.type, [""])}
    return names


def headings() -> set[str]:
    found = re.findall(r"^## (.+)$", (ROOT / PAGE).read_text(), re.MULTILINE)
    return {heading.lower().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("alert", ALERTS.values(), ids=lambda alert: alert.alert)
def test_what_an_alert_names_exists(alert: Alert) -> None:
    named = set(re.findall(r"\btidemill_[a-z_]+", plain(alert.expr)))
    assert named or "up{" in alert.expr
    assert named <= told().keys(), named - told().keys()
    assert alert.annotations.runbook_url.partition("#")[2] in headings()


@pytest.mark.parametrize("alert", SHARED)
def test_an_alert_and_its_line_have_the_same_limit(alert: str) -> None:
    numbers = {float(one) for one in re.findall(r"(?<![\w.\[])\d+(?:\.\d+)?(?![\w.])", plain(ALERTS[alert].expr))}
    assert set(SHARED[alert]) <= numbers


def test_what_a_line_is_about_has_a_heading_and_an_alert_or_no_limit() -> None:
    about = {line.about for line in lines().values()}
    assert about <= headings()
    alerted = {alert.annotations.runbook_url.partition("#")[2] for alert in ALERTS.values()}
    assert about - alerted == {"throughput"}


def test_a_missing_metric_silences_no_alert() -> None:
    """Each role is asked for by `up` where it must be: whatever it no longer tells, its absence is told."""
    missing = ALERTS["TidemillWorkerMissing"].expr
    for role in HEALTHY:
        assert f'role="{role}"' in (missing if role != "control" else ALERTS["TidemillControlMissing"].expr)
    assert "absent(up" in ALERTS["TidemillNothingIsScraped"].expr
    assert ALERTS["TidemillProcessDown"].expr == 'up{job="tidemill"} == 0'


def test_names_say_their_unit_and_labels_are_few() -> None:
    ours = {name: labels for name, labels in told().items() if not name.startswith("tidemill_test_")}
    assert [name for name in ours if not name.startswith("tidemill_")] == []
    assert {label for labels in ours.values() for label in labels} <= LABELS
    for family in REGISTRY.collect():
        assert len(family.documentation) > 10, family.name
        assert family.documentation.endswith("."), family.name


def test_the_example_scrapes_what_up_writes() -> None:
    scrape: Any = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    (job,) = scrape["scrape_configs"]
    assert job["job_name"] == "tidemill"
    assert job["honor_labels"] is True
    (files,) = job["file_sd_configs"]
    assert (FOLDER / files["files"][0]).resolve() == ROOT / ".tidemill" / "prometheus" / "targets.json"
    assert [(FOLDER / name).is_file() for name in scrape["rule_files"]] == [True]


def test_the_page_names_each_metric_that_health_reads() -> None:
    text = (ROOT / PAGE).read_text()
    for name in set(re.findall(r"`(tidemill_[a-z_]+)`", text)):
        assert {name, f"{name}_bucket"} & told().keys(), f"the page names {name}"
