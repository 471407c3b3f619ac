"""`Cluster` whose reads of watched kinds cost nothing: they are answered from what the watches have shown.

Whoever watches (the operator) calls `seen` and `gone` for each event. What this process writes is remembered at once,
so that it never reads its own write late; an event that is older than what is known changes nothing.
"""

import threading
from collections.abc import Collection, Mapping, Sequence

from tidemill.cluster.api import MANAGED_BY, MANAGER, Cluster, Foreign, Kind, Manifest
from tidemill.core.errors import Conflict

__all__ = ["WatchedCluster"]

_Place = tuple[str, str]
"""Namespace (empty: none) and name."""


class WatchedCluster:
    """Implements `Cluster` over another one. Safe for several threads.

    Args:
        cluster: does what cannot be answered from memory.
        kinds: that are watched. Others are always read from the server.
        index: a label by which objects are looked for often.

    What is read is what is remembered, not a copy: nobody is to change it.
    """

    def __init__(
        self,
        cluster: Cluster,
        kinds: Collection[Kind],
        *,
        index: str = "tidemill.dev/model",
        whole: Collection[Kind] | None = None,
    ) -> None:
        self._cluster = cluster
        self._whole = frozenset(kinds if whole is None else whole)
        self._known: dict[Kind, dict[_Place, Manifest]] = {kind: {} for kind in kinds}
        self._index = index
        self._places: dict[Kind, dict[str, set[_Place]]] = {kind: {} for kind in kinds}
        """Where objects are by their value of the label `index`."""
        self._lock = threading.Lock()
        self._served: dict[Kind, bool] = {}

    def fill(self, namespace: str | None = None) -> None:
        """Read all watched kinds: before their watches begin, and now and then, as a watch that broke misses deletions.

        Raises as `Cluster.list`.
        """
        for kind, known in self._known.items():
            with self._lock:
                before = {place: _version(manifest) for place, manifest in known.items()}
            found = {_place(manifest): manifest for manifest in self._cluster.list(kind, namespace)}
            for manifest in found.values():
                self.seen(kind, manifest)
            with self._lock:
                for place in before.keys() - found.keys():
                    if place in known and _version(known[place]) == before[place]:
                        self._forget(kind, place)
        self._served = {kind: True for kind, served in list(self._served.items()) if served}

    def seen(self, kind: Kind, manifest: Manifest) -> bool:
        """An object as a watch shows it; returns whether that is news."""
        place = _place(manifest)
        manifest = _lean(manifest) if kind in self._whole or self._is_ours(manifest) else _named(manifest)
        with self._lock:
            before = self._known[kind].get(place)
            if before is not None and _version(before) >= _version(manifest) and _uid(before) == _uid(manifest):
                return False
            if before is not None:
                self._forget(kind, place)
            self._known[kind][place] = manifest
            self._places[kind].setdefault(self._label(manifest), set()).add(place)
            return True

    def gone(self, kind: Kind, manifest: Manifest) -> None:
        """An object was deleted, as a watch shows it; one made anew under its name stays known."""
        place = _place(manifest)
        with self._lock:
            before = self._known[kind].get(place)
            if before is not None and _uid(before) == _uid(manifest):
                self._forget(kind, place)

    def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """The object, or None where there is none."""
        if kind not in self._known:
            return self._cluster.get(kind, namespace, name)
        with self._lock:
            return self._known[kind].get((namespace or "", name))

    def list(
        self, kind: Kind, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        """The objects of a namespace (None: of all) that carry these labels, in the order of their names."""
        if kind not in self._known:
            return self._cluster.list(kind, namespace, labels=labels)
        wanted = (labels or {}).items()
        with self._lock:
            known = self._known[kind]
            label = (labels or {}).get(self._index)
            places = sorted(known if label is None else self._places[kind].get(label, ()))
            return [
                known[place]
                for place in places
                if namespace in {None, place[0]} and wanted <= known[place]["metadata"].get("labels", {}).items()
            ]

    def apply(self, manifest: Manifest, kind: Kind, *, part: str | None = None, force: bool = False) -> Manifest:
        """State an object (or its subresource `part`) by server-side apply; returns it as it then is."""
        try:
            made = self._cluster.apply(manifest, kind, part=part, force=force)
        except Foreign:
            raise
        except Conflict:
            self._look(kind, manifest)  # what is remembered is old: the next try is to see what is there now
            raise
        if kind in self._known:
            self.seen(kind, made)
        return made

    def delete(self, kind: Kind, namespace: str | None, name: str) -> None:
        """Delete the object; it is known until a watch shows that it is gone, since it may have finalizers."""
        self._cluster.delete(kind, namespace, name)

    def serves(self, kind: Kind) -> bool:
        """Whether the API server knows the kind; a no is asked again after each `fill`."""
        served = self._served.get(kind)  # `fill` replaces them in another thread
        if served is None:
            served = self._served[kind] = self._cluster.serves(kind)
        return served

    def _is_ours(self, manifest: Manifest) -> bool:
        labels = manifest["metadata"].get("labels", {})
        return self._index in labels or labels.get(MANAGED_BY) == MANAGER

    def _forget(self, kind: Kind, place: _Place) -> None:
        manifest = self._known[kind].pop(place)
        self._places[kind][self._label(manifest)].discard(place)

    def _label(self, manifest: Manifest) -> str:
        return str(manifest["metadata"].get("labels", {}).get(self._index, ""))

    def _look(self, kind: Kind, manifest: Manifest) -> None:
        if kind not in self._known:
            return
        place = _place(manifest)
        # Whoever watches may list; to get a single one would be a right of its own.
        for found in self._cluster.list(kind, manifest["metadata"].get("namespace")):
            if _place(found) == place:
                self.seen(kind, found)
                return
        with self._lock:
            if place in self._known[kind]:
                self._forget(kind, place)


def _place(manifest: Manifest) -> _Place:
    meta = manifest["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _version(manifest: Manifest) -> int:
    """Resource versions of one kind are comparable numbers (KEP-5504)."""
    return int(manifest["metadata"].get("resourceVersion", 0))


def _uid(manifest: Manifest) -> str:
    return str(manifest["metadata"].get("uid", ""))


def _lean(manifest: Manifest) -> Manifest:
    """An object without the fields of each manager below the first level: they are half of it, and nobody asks."""
    meta = manifest["metadata"]
    managers = [one | {"fieldsV1": dict.fromkeys(one.get("fieldsV1", ()))} for one in meta.get("managedFields") or ()]
    return manifest | {"metadata": meta | {"managedFields": managers}} if managers else manifest


def _named(manifest: Manifest) -> Manifest:
    """Of a stranger's object, that it is there and whose it is: a cluster has more of them than memory."""
    kept = ("name", "namespace", "uid", "resourceVersion", "labels")
    meta = {name: manifest["metadata"][name] for name in kept if name in manifest["metadata"]}
    return {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": meta}
