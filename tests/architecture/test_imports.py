"""Who may import whom: the layers, the vendors' adapters, and what a role loads."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports
from tests.architecture.test_layout import MODULES, ROOT

# Each vendor's client and the modules that may import it: adapters, named after it or after what it is there for.
VENDORS = {
    "kafka": {
        "events.kafka",
        "events.cluster",
        "events.pack",
        "events.unpack",
        "stack.kafka",
        "ingest.consumer",
        "events.replay",
        "events.shared",
        "ingest.worker",
        "outcomes.brokers",
        "outcomes.kafka",
    },
    "redis": {"features.connection", "stack.redis", "outcomes.state"},
    "deltalake": {"events.lake", "events.upkeep", "watch.store"},
    "feast": {
        "features.apply",
        "features.definitions",
        "features.feast_job",
        "features.feast_offline",
        "features.feast_online",
        "features.feast_sources",
        "features.service",
        "features.service_views",
        "features.spark",
    },
    "psutil": {"stack.children"},
    "pyspark": {"features.spark"},
    "mlflow": {"registry.mlflow", "registry.mlflow_client"},
    "kfp": {"control.kfp_runner", "retrain.pipeline", "retrain.local", "retrain.components"},
    "kserve": {"serving.kserve_import"},
    "uvicorn": {"serving.patience", "serving.server", "labels.feedback", "dashboard.server"},
    "fastapi": {"serving.application", "labels.api", "labels.feedback", "dashboard.server"},
    "cronsim": {"control.schedule", "spec.triggers"},
    "cleanlab": {"labels.likely_errors"},
    "apprise": {"alerts.apprise_child"},
    "onnxruntime": {"training.session"},
    "onnx": {"training.export"},
    "torch": {
        "training.checkpoint",
        "training.device",
        "training.export",
        "training.fit",
        "training.optimizer",
        "training.protocols",
        "training.weights",
    },
    "kubernetes": {"cluster.kubernetes_api"},
    "kopf": {"control.watching"},
    "nicegui": {
        "dashboard.server",
        "dashboard.pages.asking",
        "dashboard.pages.browse",
        "dashboard.pages.charts",
        "dashboard.pages.editor",
        "dashboard.pages.frame",
        "dashboard.pages.labels",
        "dashboard.pages.model",
        "dashboard.pages.models",
        "dashboard.pages.parts",
        "dashboard.pages.rollout",
        "dashboard.pages.sockets",
        "dashboard.pages.tiles",
        "dashboard.pages.undoing",
        "dashboard.pages.versions",
    },
}

# What the process of a role must not load. A role's image carries its own vendors alone (the extras of pyproject).
HEAVY = {"feast", "kfp", "kserve", "mlflow", "onnx", "onnxruntime", "torch", "kubernetes"}
ROLES = {
    "tidemill.cli": HEAVY | {"kafka", "redis", "deltalake", "polars", "pandas", "numpy"},
    "tidemill.wiring": HEAVY,
    "tidemill.ingest.worker": HEAVY,
    "tidemill.outcomes.worker": HEAVY | {"cleanlab", "sklearn"},
    "tidemill.labels.feedback": HEAVY,
    "tidemill.watch.worker": HEAVY,
    "tidemill.alerts.worker": HEAVY | {"apprise", "requests"},
    "tidemill.dashboard.server": HEAVY,
    "tidemill.serving.server": HEAVY - {"kserve", "onnxruntime", "kubernetes"},
    "tidemill.control.service": HEAVY - {"mlflow"},
}


def module(file: Path) -> str:
    """`events.kafka` of `streaming/tidemill/events/kafka.py`."""
    parts = file.relative_to(ROOT).with_suffix("").parts[2:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imported(file: Path) -> set[str]:
    """The top-level packages that a module imports anywhere in it, besides those for type checkers only."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(file.read_text())]
    for node in nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
        nodes.extend(ast.iter_child_nodes(node))
    return found


def test_imports_follow_the_data(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))  # import-linter adds the working folder to it
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None)
    assert status == 0, capsys.readouterr().out


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendor_is_met_in_its_adapters_alone(vendor: str) -> None:
    users = {module(file) for file in MODULES if vendor in imported(file)}
    assert {name for name in users if not name.startswith("testing.")} <= VENDORS[vendor]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_loads_its_own_vendors_alone(role: str) -> None:
    program = f"import sys, {role}; print(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert set(run.stdout.split()) & ROLES[role] == set()
