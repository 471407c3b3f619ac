"""The resource that is served."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serving.served import Server, started

from tidemill.spec.model import ContinualModel
from tidemill.testing import eventually
from tidemill.testing.serving import make_version, served_resource

CODE = Path(__file__).parent / "code"


@pytest.fixture
def code() -> Path:
    """The folder of the user's code."""
    return CODE


@pytest.fixture
def resource() -> ContinualModel:
    return served_resource()


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without broker and store: it answers all the same. Tests share it, whatever they send to it."""
    folder, resource = tmp_path_factory.mktemp("alone"), served_resource()
    make_version(folder, resource, "v1")
    server = started(folder, CODE, resource)
    try:
        eventually(server.is_ready, 60)
        yield server
    finally:
        server.close()
