"""A small resource, its user code, and frames as the lake holds them."""

import os
from pathlib import Path

import pytest

from tidemill.spec.model import ContinualModel
from tidemill.testing.training import tiny_resource

# Read when torch is first imported: spinning threads starve each other where cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

CODE = Path(__file__).parent / "code"


@pytest.fixture(autouse=True)
def _code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(CODE)


@pytest.fixture
def resource() -> ContinualModel:
    return tiny_resource()
