"""An API server in memory: server-side apply with owners of fields, for tests that need no real one."""

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidemill.cluster import Foreign, Kind, Manifest
from tidemill.cluster.api import MANAGER
from tidemill.core.errors import Conflict, TidemillError, Unsupported

__all__ = ["InMemoryCluster"]

Leaf = tuple[str, ...]
_ATOMIC = {("status", "loop"), ("status", "requests")}
"""Mappings that the CRD of ContinualModel takes as one value."""
_SERVER = {"resourceVersion", "uid", "generation", "creationTimestamp", "managedFields"}
"""Metadata that the server writes."""


@dataclass
class _Stored:
    manifest: Manifest
    owners: dict[Leaf, set[str]] = field(default_factory=dict)


class InMemoryCluster:
    """Implements `Cluster`. Lists are single fields here, where the real server merges some by key.

    `fail` is raised by the next calls, once each, as a server that is down or slow would; `calls` has the verb and
    kind of each call that was made; `denied` the verbs that are not allowed, each with its resource, as far as
    `allows` tells.
    """

    def __init__(self, *, unknown: Sequence[Kind] = (), manager: str = MANAGER) -> None:
        """A server that serves every kind but those `unknown` to it."""
        self.fail: list[TidemillError] = []
        self.calls: list[tuple[str, str]] = []
        self.denied: set[tuple[str, str]] = set()
        self._unknown = set(unknown)
        self._manager = manager
        self._objects: dict[tuple[Kind, str, str], _Stored] = {}
        self._versions = itertools.count(1)

    def as_manager(self, manager: str) -> "InMemoryCluster":
        """The same server, spoken to by another field manager."""
        other = copy.copy(self)
        other._manager = manager
        return other

    def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """The object, or None where there is none."""
        self._called("get", kind)
        found = self._objects.get((kind, namespace or "", name))
        return None if found is None else copy.deepcopy(found.manifest)

    def list(
        self, kind: Kind, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        """The objects of a namespace (None: of all) that carry these labels, in the order of their names."""
        self._called("list", kind)
        wanted = (labels or {}).items()
        return [
            copy.deepcopy(stored.manifest)
            for (known, where, _), stored in sorted(self._objects.items(), key=lambda item: item[0][1:])
            if known == kind
            and namespace in {None, where}
            and wanted <= stored.manifest["metadata"].get("labels", {}).items()
        ]

    def apply(self, manifest: Manifest, kind: Kind, *, part: str | None = None, force: bool = False) -> Manifest:
        """State an object (or its subresource `part`) by server-side apply; returns it as it then is."""
        self._called("apply", kind)
        meta = manifest["metadata"]
        key = (kind, meta.get("namespace", ""), meta["name"])
        stored = self._objects.get(key)
        expected = meta.get("resourceVersion")
        if expected is not None and (stored is None or stored.manifest["metadata"]["resourceVersion"] != expected):
            raise Conflict(f"{kind.kind} {meta['name']} has been changed meanwhile")
        if stored is None:
            if part is not None:
                raise Unsupported(f"there is no {kind.kind} {meta['name']}")
            stored = _Stored({"metadata": {"uid": f"uid-{next(self._versions)}", "generation": 0}})
        wanted = _leaves(manifest, part)
        self._refuse_foreign(stored, wanted, force, meta["name"])
        before = copy.deepcopy(stored.manifest)
        given_up = [one for one, owners in stored.owners.items() if self._manager in owners and one not in wanted]
        for leaf in given_up:
            if (leaf[0] == "status") == (part == "status"):
                stored.owners[leaf].discard(self._manager)
                if not stored.owners[leaf]:
                    _drop(stored.manifest, leaf)
                    del stored.owners[leaf]
        for leaf, value in wanted.items():
            shared = stored.owners.get(leaf, set()) if _at(stored.manifest, leaf) == value else set()
            _put(stored.manifest, leaf, copy.deepcopy(value))
            stored.owners[leaf] = shared | {self._manager}
        if stored.manifest != before or key not in self._objects:
            stored.manifest["metadata"]["resourceVersion"] = str(next(self._versions))
            if stored.manifest.get("spec") != before.get("spec") or key not in self._objects:
                stored.manifest["metadata"]["generation"] += 1
        self._objects[key] = stored
        return copy.deepcopy(stored.manifest)

    def delete(self, kind: Kind, namespace: str | None, name: str) -> None:
        """Delete the object, and what it owns; one that is not there is no error."""
        self._called("delete", kind)
        gone = self._objects.pop((kind, namespace or "", name), None)
        if gone is not None:
            self._collect(gone.manifest["metadata"]["uid"])

    def serves(self, kind: Kind) -> bool:
        """Whether the API server knows the kind."""
        return kind not in self._unknown

    def version(self) -> str:
        """Of the API server."""
        return "v1.36.1"

    def allows(self, verb: str, kind: Kind, namespace: str | None = None, *, part: str | None = None) -> bool:
        """Everything but what is in `denied`."""
        return (verb, kind.plural if part is None else f"{kind.plural}/{part}") not in self.denied

    def _collect(self, owner: str) -> None:
        for key, stored in list(self._objects.items()):
            owners = stored.manifest["metadata"].get("ownerReferences", [])
            if key in self._objects and any(one["uid"] == owner for one in owners):
                del self._objects[key]
                self._collect(stored.manifest["metadata"]["uid"])

    def _called(self, verb: str, kind: Kind) -> None:
        self.calls.append((verb, kind.kind))
        if self.fail:
            raise self.fail.pop(0)
        if kind in self._unknown:
            raise Unsupported(f"the API server serves no {kind.kind}")

    def _refuse_foreign(self, stored: _Stored, wanted: Mapping[Leaf, Any], force: bool, name: str) -> None:
        taken = {
            leaf: owners - {self._manager}
            for leaf, owners in stored.owners.items()
            if owners != {self._manager} and leaf in wanted and _at(stored.manifest, leaf) != wanted[leaf]
        }
        if taken and not force:
            fields = [f".{'.'.join(leaf)}" for leaf in sorted(taken)]
            managers = sorted(set().union(*taken.values()))
            raise Foreign(f"{name}: {', '.join(fields)} belong to {managers}", managers=managers, fields=fields)


def _leaves(manifest: Manifest, part: str | None) -> dict[Leaf, Any]:
    """What an apply states, by path: of the subresource alone, or of all but the status."""
    found: dict[Leaf, Any] = {}

    def walk(value: Any, path: Leaf) -> None:
        if isinstance(value, dict) and value and path not in _ATOMIC:
            for key, inner in value.items():
                walk(inner, (*path, key))
        else:
            found[path] = value

    for key, value in manifest.items():
        if key == "metadata":
            walk({name: inner for name, inner in value.items() if name not in _SERVER}, (key,))
        elif (part is None and key != "status") or key == part:
            walk(value, (key,))
    return found


def _at(manifest: Manifest, leaf: Leaf) -> Any:
    value: Any = manifest
    for key in leaf:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _put(manifest: Manifest, leaf: Leaf, value: Any) -> None:
    inner = manifest
    for key in leaf[:-1]:
        if not isinstance(inner.get(key), dict):
            inner[key] = {}
        inner = inner[key]
    inner[leaf[-1]] = value


def _drop(manifest: Manifest, leaf: Leaf) -> None:
    inner: Any = manifest
    for key in leaf[:-1]:
        inner = inner.get(key) if isinstance(inner, dict) else None
    if isinstance(inner, dict):
        inner.pop(leaf[-1], None)
