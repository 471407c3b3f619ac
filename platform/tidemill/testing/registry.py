"""A registry in memory."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import Conflict, NotFound
from tidemill.registry import CLEARED_TAG, Alias, RegisteredVersion

__all__ = ["MemoryRegistry"]


class MemoryRegistry:
    """Versions and aliases in dicts; implements `Registry`.

    `metrics` and `parameters` hold what was logged, by (model, version).
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._versions: dict[str, dict[str, RegisteredVersion]] = {}
        self._aliases: dict[str, dict[Alias, str]] = {}
        self.metrics: dict[tuple[str, str], dict[str, float]] = {}
        self.parameters: dict[tuple[str, str], dict[str, str]] = {}

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
        """Add a version; the same again changes nothing, another artifact raises `Conflict`."""
        known = self._versions.setdefault(model, {}).get(version)
        if known is not None:
            if known.artifact != artifact:
                raise Conflict(f"version {version} of {model} is registered with {known.artifact}, not {artifact}")
            return
        self._versions[model][version] = RegisteredVersion(
            version=version,
            artifact=artifact,
            created_at=to_ms(self._clock.now()),
            tags=dict(tags or {}),
            description=description,
        )
        self.metrics[model, version] = dict(metrics or {})
        self.parameters[model, version] = dict(parameters or {})

    def set_alias(self, model: str, alias: Alias, version: str | None) -> None:
        """Point an alias at a version, or at none; raises `NotFound` for an unknown version."""
        aliases = self._aliases.setdefault(model, {})
        if version is None:
            aliases.pop(alias, None)
            return
        if version not in self._versions.get(model, {}):
            raise NotFound(f"{model} has no version {version}")
        aliases[alias] = version

    def aliases(self, model: str) -> dict[Alias, str]:
        """The version of each alias that is set."""
        return dict(self._aliases.get(model, {}))

    def versions(self, model: str) -> Sequence[RegisteredVersion]:
        """All versions, oldest first."""
        return list(self._versions.get(model, {}).values())

    def mark_cleared(self, model: str, version: str, at: datetime) -> None:
        """Tag a version; raises `NotFound` for an unknown one, `Conflict` for one that has an alias."""
        known = self._versions.get(model, {}).get(version)
        if known is None:
            raise NotFound(f"{model} has no version {version}")
        if version in self.aliases(model).values():
            raise Conflict(f"version {version} of {model} has an alias: its files stay")
        tags = {**known.tags, CLEARED_TAG: at.isoformat(timespec="seconds")}
        self._versions[model][version] = msgspec.structs.replace(known, tags=tags)
