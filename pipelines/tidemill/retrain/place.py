"""What a step works with: the resource, where things are kept, and whom to ask."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidemill.artifacts import artifact_root, artifact_uri, local_folder
from tidemill.core.clock import Clock
from tidemill.core.errors import InvalidInput
from tidemill.core.settings import environment
from tidemill.events.records import Decision, Request
from tidemill.registry import Registry
from tidemill.spec.model import ContinualModel

__all__ = ["GRANT_FILE", "RESOURCE", "RUN", "RUN_FOLDER", "Place", "here"]

RUN = "TIDEMILL_RUN"
"""Environment variable with the run's id, where `decide` gave one."""
RUN_FOLDER = "TIDEMILL_RUN_FOLDER"
"""Environment variable with the folder in which a run on one machine tells how far it is."""
RESOURCE = "TIDEMILL_RESOURCE"
"""Environment variable with the file of the resource; without it, the resource is the stored one."""

GRANT_FILE = "grant.json"
"""Kept in the run's folder on one machine, so that the grant of a run that is killed can be given back."""


@dataclass(frozen=True)
class Place:
    """The surroundings of a run's steps."""

    resource: ContinualModel
    lake: str
    """Folder or URI of the lake."""
    root: str
    """Folder or URI of versions."""
    clock: Clock
    ask: Callable[[Request, float], Decision]
    """Ask control; the seconds within which it must answer."""
    registry: Callable[[], Registry]
    """The registry, made when it is first asked for: its import takes seconds."""
    feast_repo: Path | None = None
    """Folder of the user's own Feast repository, where the resource names a service of it."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The settings as the environment of a server that is started to be timed."""

    def version_uri(self, version: str) -> str:
        """Where a version of the model has its place."""
        return artifact_uri(self.root, self.resource, version)

    def end_file(self, run: str) -> Path:
        """Where it is kept why a run is over, once a step has failed for good."""
        return self.version_folder(run).with_name(f".{run}.failed")

    def version_folder(self, version: str) -> Path:
        """The folder of a version; raises `Unsupported` for a store that is not on this machine."""
        return local_folder(self.version_uri(version))


def here(model: str, environ: Mapping[str, str] = os.environ) -> Place:
    """The surroundings that the environment names. Raises `InvalidInput`, or `NotFound` for an unknown model."""
    from tidemill.spec.load import load
    from tidemill.wiring import local

    wiring = local()
    if not model:
        raise InvalidInput("which model? The parameter `model` is empty", hint="give its id: namespace.name")
    file = environ.get(RESOURCE)
    resource = load(Path(file)) if file else wiring.store.get(model).resource
    if resource.id != model:
        raise InvalidInput(f"{file} holds {resource.id}, and the run is of {model}")
    return Place(
        resource=resource,
        lake=wiring.settings.lake_uri,
        root=artifact_root(resource, wiring.settings),
        clock=wiring.clock,
        ask=lambda request, deadline_s: wiring.ask(resource, request, deadline_s=deadline_s),
        registry=lambda: wiring.registry,
        feast_repo=wiring.settings.feast_repo,
        settings=environment(wiring.settings),
    )
