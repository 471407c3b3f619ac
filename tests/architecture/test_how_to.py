"""What the how-tos show is true: YAML loads, names exist, settings are settings, figures are the code's."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidemill.cli import COMMANDS
from tidemill.core.settings import Settings
from tidemill.spec.load import loads

FOLDER = Path(__file__).parents[2] / "docs" / "how-to"
PAGES = sorted(FOLDER.glob("*.md"))
OTHER_VARIABLES = {"RESOURCE", "FEAST_PROJECT"}
"""Variables that only feature_store.yaml and the roles read."""

GROUPS = {"alerts", "dataset", "labels", "quarantine", "rebuild"}
"""Commands that have commands of their own."""

BASE: dict[str, Any] = {
    "apiVersion": "tidemill.dev/v1alpha1",
    "kind": "ContinualModel",
    "metadata": {"name": "phone-inspection"},
    "spec": {
        "events": {
            "entity": {"name": "station"},
            "timestamp": "captured_at",
            "fields": [
                {"name": "image", "type": "image"},
                {"name": "exposure_ms", "type": "float"},
                {"name": "operator", "type": "string"},
            ],
        },
        "prediction": {"type": "classification", "classes": ["ok", "scratch"]},
        "labels": {"fields": [{"name": "defect", "type": "class"}]},
        "model": {"codec": "inspection.model:Codec", "trainer": "inspection.model:Trainer"},
    },
}


def blocks(language: str) -> list[Any]:
    return [
        pytest.param(text, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, text in enumerate(
            re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        )
    ]


def merged(base: Any, part: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(part, dict)):
        return part
    return base | {name: merged(base.get(name), value) for name, value in part.items()}


def test_there_is_a_page_for_each_thing_to_do() -> None:
    assert {page.stem for page in PAGES} >= {
        "be-alerted",
        "declare-features",
        "judge-your-labels",
        "use-your-own-feast-repo",
        "bring-labels",
        "replay-quarantine",
        "move-to-spark",
    }


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_is_part_of_a_valid_resource(text: str) -> None:
    shown = yaml.safe_load(text)
    if "spec" in shown:  # else it is of another tool's file
        loads(yaml.safe_dump(merged(BASE, shown)), "the how-to")


@pytest.mark.parametrize("text", blocks("python"))
def test_names_that_are_imported_exist(text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tidemill."):
            module = importlib.import_module(node.module)
            assert [one.name for one in node.names if not hasattr(module, one.name)] == []


@pytest.mark.parametrize("text", blocks("console"))
def test_options_that_are_shown_exist(text: str) -> None:
    for line in re.findall(r"^\$ tidemill (.*)$", text, re.MULTILINE):
        words = line.split()
        command = [word for word in words if re.fullmatch("[a-z]+", word)]
        if command[0] not in COMMANDS:
            continue  # test_readme says so
        names = command[: 2 if command[0] in GROUPS else 1]
        run = subprocess.run(
            [sys.executable, "-m", "tidemill.cli", *names, "--help"],
            env={**os.environ, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode == 0, f"tidemill {line}: {run.stderr}"
        for option in re.findall(r"(?<= )--?[a-z-]+", line):
            assert option in run.stdout, f"tidemill {line}: there is no {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_variables_are_settings(page: Path) -> None:
    named = set(re.findall(r"TIDEMILL_([A-Z_]+)", page.read_text()))
    assert named <= {name.upper() for name in Settings.model_fields} | OTHER_VARIABLES


def test_the_bytes_that_windows_cost_are_those_of_the_layout() -> None:
    layout = pytest.importorskip("tidemill.features.layout")

    def row(*windows: dict[str, Any]) -> int:
        spec = {"events": {"allowedLateness": "10m"}, "features": {"image": ["brightness"], "windows": list(windows)}}
        return int(layout.row_bytes(layout.layout_of(loads(yaml.safe_dump(merged(BASE, {"spec": spec})), "a test"))))

    text = (FOLDER / "declare-features.md").read_text()
    lines = re.search(r"<!-- bytes -->\n(.*?)\n\n", text, re.DOTALL)
    assert lines is not None
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1].splitlines()]
    alone = row()
    for names, *shown in rows:
        for agg in re.sub(r"\(.*?\)", "", names).split(","):
            for length, cell in zip(head[1:], shown, strict=True):
                window: dict[str, Any] = {"name": "w", "agg": agg.strip(), "over": [length]}
                window |= {} if window["agg"] == "count" else {"of": "exposure_ms"}
                window |= {"q": 0.95} if window["agg"] == "quantile" else {}
                assert row(window) - alone == int(cell), f"{agg} over {length}"
    assert f"about {round(alone, -1)} bytes" in text
