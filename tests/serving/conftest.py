"""The resource that is served."""

from pathlib import Path

import pytest

from tidemill.spec.model import ContinualModel
from tidemill.testing.serving import served_resource

CODE = Path(__file__).parent / "code"


@pytest.fixture
def code() -> Path:
    """The folder of the user's code."""
    return CODE


@pytest.fixture
def resource() -> ContinualModel:
    return served_resource()
