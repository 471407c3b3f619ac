"""What the chart and the manifests are made from, and what is made from it, agree."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm.generate import dashboards, values
from helm.generate.__main__ import CHART, ROOT, generated
from tests.watch.test_health_alerts import LABELS, told

from tidemill.core.settings import Settings
from tidemill.spec.load import load

SOURCE = (CHART / "values.yaml").read_text()
SCHEMA = values.schema(SOURCE)
DEFAULTS: dict[str, Any] = yaml.safe_load(SOURCE)


@pytest.mark.parametrize("path", generated(), ids=lambda path: path.name)
def test_what_is_generated_is_as_it_would_be_made_now(path: Path) -> None:
    assert path.read_text() == generated()[path], "make manifests"


def test_every_value_is_described_and_no_other_is_taken() -> None:
    def check(path: str, schema: dict[str, Any]) -> None:
        if "properties" in schema:
            assert schema["additionalProperties"] is False, path
            for name, inner in schema["properties"].items():
                check(f"{path}.{name}", inner)
        else:
            assert len(schema["description"]) > 3, path

    check("", {**SCHEMA, "properties": {k: v for k, v in SCHEMA["properties"].items() if k != "global"}})


def test_settings_are_named_as_in_tidemill_config() -> None:
    known = SCHEMA["properties"]["settings"]["properties"].keys()
    assert DEFAULTS["settings"].keys() <= known
    assert known == Settings.model_fields.keys() - values.OWN_SETTINGS


def test_defaults_of_settings_are_those_of_the_code() -> None:
    settings = Settings()
    assert {name: getattr(settings, name) for name in DEFAULTS["settings"]} == DEFAULTS["settings"]


def test_a_value_without_a_comment_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.c has no comment"):
        values.described("a:\n  # Said.\n  b: 1\n  c: 2\n")


@pytest.mark.parametrize("name", dashboards.DASHBOARDS)
def test_a_dashboard_asks_for_metrics_that_are_told(name: str) -> None:
    board = json.loads(dashboards.texts()[name])
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [one["query"] for one in board["templating"]["list"] if one["type"] == "query"]
    known = told().keys()
    for query in queries:
        named = set(re.findall(r"\btidemill_[a-z_]+", query))
        assert named or "up{" in query
        assert named <= known, named - known
    legends = [target["legendFormat"] for panel in board["panels"] for target in panel["targets"]]
    assert set(re.findall(r"{{(\w+)}}", " ".join(legends))) <= LABELS | {"role"}


def test_each_alert_leads_to_its_entry_in_the_runbook() -> None:
    page = (ROOT / "docs/kubernetes/runbook.md").read_text()
    entries = re.findall(r"^## (\w+)\n\n(.+)$", page, re.MULTILINE)
    groups = yaml.safe_load((CHART / "files/rules.yaml").read_text())["groups"]
    found = {rule["alert"]: rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]}
    assert [name for name, _ in entries] == list(found), "in the order of the rules"
    assert found == {name: f"docs/kubernetes/runbook.md#{name.lower()}" for name, _ in entries}


@pytest.mark.parametrize("path", sorted((ROOT / "manifests/samples").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_sample_is_valid(path: Path) -> None:
    assert load(path).spec.model.image is not None, "a cluster needs it"


def objects(text: str) -> dict[tuple[str, str], Any]:
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text) if one}


def kustomized(folder: str) -> dict[tuple[str, str], Any]:
    command = ["kubectl", "kustomize", str(ROOT / "manifests" / folder)]
    return objects(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.slow
def test_what_kustomize_builds_from_the_base_is_what_one_file_installs() -> None:
    assert kustomized("base") == objects((ROOT / "manifests/install.yaml").read_text())


@pytest.mark.slow
def test_overlays_add_what_they_are_named_for() -> None:
    base = kustomized("base").keys()
    watched = kustomized("overlays/monitoring").keys()
    assert base <= watched
    assert {kind for kind, _ in watched - base} == {"PodMonitor", "PrometheusRule", "ConfigMap"}
    narrow = kustomized("overlays/namespaced")
    bound = {one["kind"] for key, one in narrow.items() if "operator" in key[1] and "Role" in key[0]}
    assert bound == {"Role", "RoleBinding"}
