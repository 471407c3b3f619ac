"""The seams of the loop: where resources live, and who runs a pipeline."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from tidemill.spec.model import ContinualModel

__all__ = ["PipelineRunner", "Provisions", "ResourceStore", "RunSeen", "StoredModel"]


class StoredModel(msgspec.Struct, frozen=True, kw_only=True):
    """A resource as stored. `version` changes with each write of resource or status; it guards both."""

    resource: ContinualModel
    status: bytes | None
    """The loop's own JSON; None when there has been none, or when it was lost."""
    version: str
    code: str | None = None
    """Folder from which the user's classes are imported (one machine only)."""


class ResourceStore(Protocol):
    """Holds ContinualModels and their status. Compare-and-swap: a stale writer gets `Conflict`."""

    def ids(self) -> Collection[str]:
        """The ids of all models, those included whose resource cannot be read."""
        ...

    def list(self) -> Sequence[StoredModel]:
        """All models, ordered by id."""
        ...

    def get(self, model: str) -> StoredModel:
        """One model by id; raises `NotFound`."""
        ...

    def put(self, resource: ContinualModel, *, code: str | None = None) -> StoredModel:
        """Create or replace the resource; its status stays."""
        ...

    def put_status(self, model: str, status: bytes, *, version: str) -> StoredModel:
        """Replace the status if `version` is still the stored one; raises `Conflict`, `NotFound`."""
        ...

    def delete(self, model: str) -> None:
        """Remove resource and status; removing what is not there is no error."""
        ...


class Provisions(Protocol):
    """Makes what models need besides decisions: topics, workers, Feast entries. Level-triggered."""

    def provide(self, stored: StoredModel) -> None:
        """State what the model needs. Raises `Unavailable` where it cannot be made yet."""
        ...

    def withdraw(self, models: Collection[str]) -> None:
        """Take back what belongs to a model that is not among `models`; topics, tables and versions stay."""
        ...


class RunSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline run as its runner shows it."""

    run: str
    state: Literal["pending", "running", "succeeded", "failed"]
    step: str | None = None
    """The step at work, or the one that failed."""
    error: str | None = None
    progress: str | None = None
    """How far that step is, in words, where it takes long."""


class PipelineRunner(Protocol):
    """Starts the compiled pipeline. A run's name is its request's id: starting it twice is one run."""

    def start(self, run: str, parameters: Mapping[str, str | bool]) -> None:
        """Start the run unless it exists; returns at once. Raises `Unavailable`."""
        ...

    def observe(self) -> Sequence[RunSeen]:
        """The runs that are not forgotten yet, those started by others too."""
        ...

    def stop(self, run: str) -> None:
        """End a run and forget it; ending one that is over or unknown is no error."""
        ...
