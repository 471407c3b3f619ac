"""`Cluster` whose reads of watched kinds cost nothing: they are answered from what the watches have shown.

Whoever watches (the operator) calls `seen` and `gone` for each event. What this process writes is remembered at once,
so that it never reads its own write late; an event that is older than what is known changes nothing.
"""

import copy
import threading
from collections.abc import Collection, Mapping, Sequence

from tidemill.cluster.api import Cluster, Kind, Manifest

__all__ = ["WatchedCluster"]

_Place = tuple[str, str]
"""Namespace (empty: none) and name."""


class WatchedCluster:
    """Implements `Cluster` over another one. Safe for several threads.

    Args:
        cluster: does what cannot be answered from memory.
        kinds: that are watched, each from before its first `ready`. Others are always read from the server.
    """

    def __init__(self, cluster: Cluster, kinds: Collection[Kind]) -> None:
        self._cluster = cluster
        self._known: dict[Kind, dict[_Place, Manifest]] = {kind: {} for kind in kinds}
        self._lock = threading.Lock()
        self._served: dict[Kind, bool] = {}

    def fill(self, namespace: str | None = None) -> None:
        """Read all watched kinds once, before their watches begin. Raises as `Cluster.list`."""
        for kind in self._known:
            for manifest in self._cluster.list(kind, namespace):
                self.seen(kind, manifest)

    def seen(self, kind: Kind, manifest: Manifest) -> bool:
        """An object as a watch shows it; returns whether that is news."""
        place = _place(manifest)
        with self._lock:
            before = self._known[kind].get(place)
            if before is not None and _version(before) >= _version(manifest) and _uid(before) == _uid(manifest):
                return False
            self._known[kind][place] = copy.deepcopy(manifest)
            return True

    def gone(self, kind: Kind, manifest: Manifest) -> None:
        """An object was deleted, as a watch shows it; one made anew under its name stays known."""
        place = _place(manifest)
        with self._lock:
            before = self._known[kind].get(place)
            if before is not None and _uid(before) == _uid(manifest):
                del self._known[kind][place]

    def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """The object, or None where there is none."""
        if kind not in self._known:
            return self._cluster.get(kind, namespace, name)
        with self._lock:
            return copy.deepcopy(self._known[kind].get((namespace or "", name)))

    def list(
        self, kind: Kind, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        """The objects of a namespace (None: of all) that carry these labels, in the order of their names."""
        if kind not in self._known:
            return self._cluster.list(kind, namespace, labels=labels)
        wanted = (labels or {}).items()
        with self._lock:
            found = [
                manifest
                for (where, _), manifest in sorted(self._known[kind].items())
                if namespace in {None, where} and wanted <= manifest["metadata"].get("labels", {}).items()
            ]
            return copy.deepcopy(found)

    def apply(self, manifest: Manifest, kind: Kind, *, part: str | None = None, force: bool = False) -> Manifest:
        """State an object (or its subresource `part`) by server-side apply; returns it as it then is."""
        made = self._cluster.apply(manifest, kind, part=part, force=force)
        if kind in self._known:
            self.seen(kind, made)
        return made

    def delete(self, kind: Kind, namespace: str | None, name: str) -> None:
        """Delete the object; it is known until a watch shows that it is gone, since it may have finalizers."""
        self._cluster.delete(kind, namespace, name)

    def serves(self, kind: Kind) -> bool:
        """Whether the API server knows the kind; asked again only while it does not."""
        if not self._served.get(kind):
            self._served[kind] = self._cluster.serves(kind)
        return self._served[kind]


def _place(manifest: Manifest) -> _Place:
    meta = manifest["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _version(manifest: Manifest) -> int:
    """Resource versions of one kind are comparable numbers (KEP-5504)."""
    return int(manifest["metadata"].get("resourceVersion", 0))


def _uid(manifest: Manifest) -> str:
    return str(manifest["metadata"].get("uid", ""))
