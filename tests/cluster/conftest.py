"""One real control plane for all tests of this folder, and KServe's controller where a test asks for it.

`.ci/cluster/build.py` makes the programs; where they are not, and Go is not either, the suite says so and is skipped.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemill.cluster.kubernetes_api import KubernetesCluster, connect
from tidemill.testing.control_plane import ControlPlane, control_plane
from tidemill.testing.kserve_controller import kserve_controller

_BUILT = Path(__file__).parents[2] / ".bootstrap" / "cluster"


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane that runs."""
    programs = Path(os.environ.get("CLUSTER_PROGRAMS", _BUILT))
    if not (programs / "built.json").exists():
        pytest.skip("no control plane: `make cluster` builds one (Go 1.26 and some minutes)")
    with control_plane(tmp_path_factory.mktemp("plane"), programs) as running:
        yield running


@pytest.fixture(scope="session")
def cluster(plane: ControlPlane) -> KubernetesCluster:
    """Its API server, as an administrator."""
    return connect(kubeconfig=str(plane.kubeconfig))


@pytest.fixture(scope="session")
def kserve(plane: ControlPlane) -> Iterator[ControlPlane]:
    """The control plane with KServe's controller at work."""
    with kserve_controller(plane):
        yield plane
