"""The registry as the rest of Tidemill sees it; `tidemill.registry.mlflow` is the one that ships."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

import msgspec

__all__ = ["CLEARED_TAG", "Alias", "RegisteredVersion", "Registry"]

CLEARED_TAG = "tidemill.cleared"
"""Tag of a version whose files are gone: since when (ISO 8601)."""

Alias: TypeAlias = Literal["champion", "candidate", "previous"]


class RegisteredVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model. Without an alias it is inert."""

    version: str
    """Tidemill's id, which is its run's; never the registry's own number."""
    artifact: str
    created_at: int
    """Milliseconds since the epoch."""
    tags: dict[str, str] = {}
    """Lineage: run, snapshot, cause and what else its run told."""
    description: str = ""
    """The model card, in Markdown; cut where the registry keeps less."""


class Registry(Protocol):
    """Keeps versions. The register step writes versions, control writes aliases, everyone reads."""

    def register(
        self,
        model: str,
        version: str,
        artifact: str,
        *,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        parameters: Mapping[str, str] | None = None,
        description: str = "",
    ) -> None:
        """Add a version with its lineage, figures, parameters and model card. The same again changes nothing.

        A call that was cut off leaves no version, and the next one ends it.

        Raises `Conflict` where the version is there with another artifact, `Unavailable`.
        """
        ...

    def set_alias(self, model: str, alias: Alias, version: str | None) -> None:
        """Point an alias at a version, or at none; raises `NotFound` for an unknown version, `Unavailable`."""
        ...

    def aliases(self, model: str) -> dict[Alias, str]:
        """The version of each alias that is set; none for a model that is not known. Raises `Unavailable`."""
        ...

    def versions(self, model: str) -> Sequence[RegisteredVersion]:
        """All versions, oldest first; none for a model that is not known. Raises `Unavailable`."""
        ...

    def mark_cleared(self, model: str, version: str, at: datetime) -> None:
        """Say that the version's files go now; its lineage, figures and card stay.

        Raises `NotFound` for an unknown version, `Conflict` for one that has an alias, `Unavailable`.
        """
        ...
