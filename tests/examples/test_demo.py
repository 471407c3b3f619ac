"""The whole story, told small with three seeds, and a stationary run: what `result.json` must say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(900)]


def told(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the command in a folder of its own, and read what it wrote."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
    command = [sys.executable, "-m", "tidemill.cli", "demo", "--size", "small", "--output", "json", *arguments]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-6000:]
    written: dict[str, Any] = json.loads((folder / ".tidemill" / "demo" / "result.json").read_text())
    assert json.loads(done.stdout) == written
    return written


def left_behind(folder: Path) -> list[str]:
    """Processes that still work in the folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if str(folder) in " ".join(process.info["cmdline"] or []):
            found.append(" ".join(process.info["cmdline"]))
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_loop_closes(tmp_path: Path, seed: int) -> None:
    result = told(tmp_path, "--seed", str(seed))
    accuracy, weights = result["accuracy"], result["rollout"]["weights"]
    assert accuracy["after"] >= accuracy["before"] - 0.03
    assert accuracy["drifted"] <= accuracy["before"] - 0.10
    assert result["drift"]["detected_after_s"] > 0
    # The new light is darker and warmer; which of the two alarms first, before the candidate ends the old light's
    # watch, is a matter of a few pictures.
    assert {"brightness", "saturation"} & set(result["drift"]["features"])
    assert weights[0] == 5
    assert weights[-1] == 100
    assert weights == sorted(set(weights))
    assert result["promoted_after_s"] > result["drift"]["detected_after_s"]
    assert result["bad_candidate"]["verdict"] == "roll back"
    assert result["bad_candidate"]["max_share"] <= 50
    for what, kept in (("events", "ingested"), ("predictions", "logged"), ("labels", "joined")):
        assert result[what]["sent"] == result[what][kept] > 0
    assert result["lost"] == 0
    assert [run["cause"] for run in result["runs"]] == ["initial", "drift", "manual"]
    assert result["memory"]["peak_gib"] < 6
    assert result["passed"]
    assert (tmp_path / ".tidemill" / "demo" / "report.html").stat().st_size > 50_000
    assert left_behind(tmp_path) == []


def test_a_stationary_run_starts_no_retrain(tmp_path: Path) -> None:
    result = told(tmp_path, "--no-drift")
    assert [run["cause"] for run in result["runs"]] == ["initial"]
    assert result["drift"]["messages"] == []
    assert result["accuracy"]["before"] > 0.9
    assert result["lost"] == 0
    assert left_behind(tmp_path) == []
