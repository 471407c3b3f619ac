"""A resource store in memory."""

from collections.abc import Collection, Sequence

from tidemill.control.protocols import StoredModel
from tidemill.core.errors import Conflict, NotFound
from tidemill.spec.model import ContinualModel

__all__ = ["MemoryResourceStore"]


class MemoryResourceStore:
    """Models in a dict; implements `ResourceStore` with its compare-and-swap.

    `writes` counts what was written, so that a test can tell that nothing was.
    """

    def __init__(self) -> None:
        self._models: dict[str, StoredModel] = {}
        self.writes = 0

    def ids(self) -> Collection[str]:
        """The ids of all models."""
        return set(self._models)

    def list(self) -> Sequence[StoredModel]:
        """All models, ordered by id."""
        return [self._models[model] for model in sorted(self._models)]

    def get(self, model: str) -> StoredModel:
        """One model by id; raises `NotFound`."""
        try:
            return self._models[model]
        except KeyError:
            raise NotFound(f"there is no model {model}") from None

    def put(self, resource: ContinualModel, *, code: str | None = None) -> StoredModel:
        """Create or replace the resource; its status stays."""
        known = self._models.get(resource.id)
        return self._write(resource, known.status if known else None, code)

    def put_status(self, model: str, status: bytes, *, version: str) -> StoredModel:
        """Replace the status if `version` is still the stored one; raises `Conflict`, `NotFound`."""
        known = self.get(model)
        if known.version != version:
            raise Conflict(f"the status of {model} has changed: it is {known.version}, not {version}")
        return self._write(known.resource, status, known.code)

    def delete(self, model: str) -> None:
        """Remove resource and status; removing what is not there is no error."""
        self._models.pop(model, None)

    def lose_status(self, model: str) -> None:
        """Drop the status alone, as a backup tool does that restores a resource without it."""
        known = self.get(model)
        self._write(known.resource, None, known.code)

    def _write(self, resource: ContinualModel, status: bytes | None, code: str | None) -> StoredModel:
        self.writes += 1
        stored = StoredModel(resource=resource, status=status, version=str(self.writes), code=code)
        self._models[resource.id] = stored
        return stored
