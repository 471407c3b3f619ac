"""The chart, rendered by Helm."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm.generate.__main__ import CHART, ROOT

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


@pytest.fixture(scope="session")
def helm() -> Path:
    """The command: that of the control plane's programs, or any other."""
    programs = Path(os.environ.get("CLUSTER_PROGRAMS", ROOT / ".bootstrap" / "cluster"))
    found = programs / "bin" / "helm"
    other = shutil.which("helm")
    if not found.exists() and other is None:
        pytest.skip("no helm: `make cluster` builds one (Go 1.26 and some minutes)")
    return found if found.exists() else Path(str(other))


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    """Renders the chart with values, as a list of objects. Raises `AssertionError` with Helm's complaint."""

    def rendered(values: Manifest | None = None) -> list[Manifest]:
        command = [str(helm), "template", "tidemill", str(CHART), "--namespace", "tidemill-system", "--values", "-"]
        run = subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, run.stderr
        return [one for one in yaml.safe_load_all(run.stdout) if one]

    return rendered
