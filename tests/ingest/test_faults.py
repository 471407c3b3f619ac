"""Ingest under faults, as `make faults ONLY=ingest` runs it: servers, workers and load are the run's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow]


@pytest.mark.timeout(900)
def test_twenty_kills_and_ten_other_faults_lose_and_double_nothing_and_the_control_is_found_out(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "faults", "--only", "ingest", "--size", "small"],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TIDEMILL_STATE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = run.stdout[-12_000:] + run.stderr[-4_000:]
    assert run.returncode == 0, said
    report = json.loads((tmp_path / "faults" / "ingest.json").read_text())
    found = {figure["name"]: figure["value"] for figure in report["figures"]}
    assert found["workers killed"] >= 20
    assert found["events missing"] == found["events doubled"] == 0
    assert found["bites"] == "yes"
