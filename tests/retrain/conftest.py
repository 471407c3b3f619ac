"""A model with events and labels in a lake."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemill.testing.retrain import Site
from tidemill.testing.training import events_frame, tiny_resource

# Read when torch is first imported: spinning threads starve each other where cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

CODE = Path(__file__).parents[1] / "training" / "code"


@pytest.fixture
def site(tmp_path: Path, topic_prefix: str) -> Iterator[Site]:
    """Without events."""
    made = Site(tmp_path / ".tidemill", tiny_resource(topic_prefix), CODE)
    yield made
    made.close()


@pytest.fixture
def filled(site: Site) -> Site:
    """With 400 labelled events."""
    site.fill(events_frame(400))
    return site
