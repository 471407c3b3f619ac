"""The resource store of a cluster: ContinualModel objects, their status beside what people declared.

The version of a model is its object's resourceVersion: the API server does the compare-and-swap. Reads are as dear as
those of the `Cluster` it is given; the operator's are answered from its watches.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from tidemill.cluster import Cluster, Manifest
from tidemill.control.cluster_kinds import MODEL
from tidemill.control.cluster_status import Condition, condition_list, invalid_status, status_of
from tidemill.control.protocols import StoredModel
from tidemill.control.state import decode_status
from tidemill.core.clock import Clock
from tidemill.core.errors import InvalidInput, NotFound, SpecError, TidemillError
from tidemill.core.ids import model_id
from tidemill.core.telemetry import get_logger
from tidemill.spec.load import loads
from tidemill.spec.model import ContinualModel

__all__ = ["ClusterResourceStore", "resource_of"]

_log = get_logger(__name__)

_WRITTEN_BY_SERVER = {"annotations", "labels", "name", "namespace"}
"""Of the metadata, what a person writes; the rest is the server's."""


def resource_of(manifest: Manifest) -> ContinualModel:
    """The resource that an object declares; raises `SpecError` with every problem."""
    meta = {name: value for name, value in manifest["metadata"].items() if name in _WRITTEN_BY_SERVER}
    declared = {"apiVersion": MODEL.api_version, "kind": MODEL.kind, "metadata": meta, "spec": manifest.get("spec")}
    return loads(json.dumps(declared), f"ContinualModel {meta.get('namespace', 'default')}/{meta['name']}")


class ClusterResourceStore:
    """Models as objects of the API server. Implements `ResourceStore`.

    Args:
        cluster: the API server.
        clock: for the times of conditions.
        namespace: whose models are meant; None: of all.
        conditions: what others know of a model, by its id, e.g. whether it is provided for.
        refuses: whether a resource that is not valid is told so in its status; the operator's part alone.
    """

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        *,
        namespace: str | None = None,
        conditions: Callable[[str], Sequence[Condition]] = lambda model: (),
        refuses: bool = False,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._namespace = namespace
        self._conditions = conditions
        self._refuses = refuses
        self._parsed: dict[str, tuple[tuple[str, int], ContinualModel | SpecError]] = {}

    def ids(self) -> set[str]:
        """The ids of all models that are to live on; one that is being deleted is not among them."""
        return {_id(one) for one in self._objects() if "deletionTimestamp" not in one["metadata"]}

    def leaving(self) -> Sequence[Manifest]:
        """The objects of models that are being deleted."""
        return [one for one in self._objects() if "deletionTimestamp" in one["metadata"]]

    def list(self) -> Sequence[StoredModel]:
        """All models that can be acted on, ordered by id."""
        found = []
        for manifest in self._objects():
            if "deletionTimestamp" in manifest["metadata"]:
                continue
            with suppress(SpecError):
                found.append(self._stored(manifest))
        return sorted(found, key=lambda one: one.resource.id)

    def get(self, model: str) -> StoredModel:
        """One model by id; raises `NotFound`, or `SpecError` where it is not valid."""
        manifest = self._object(model)
        try:
            return self._stored(manifest)
        except SpecError as error:
            if self._refuses:
                self._refuse(manifest, error)
            raise

    def put(self, resource: ContinualModel, *, code: str | None = None) -> StoredModel:
        """Create or replace the resource; its status stays. On a cluster its code is in `model.image`."""
        said = resource.model_dump(mode="json", by_alias=True, exclude_unset=True)
        said["metadata"]["namespace"] = resource.metadata.namespace
        return self._stored(self._cluster.apply(said, MODEL))

    def put_status(self, model: str, status: bytes, *, version: str) -> StoredModel:
        """Replace the status if `version` is still the stored one; raises `Conflict`, `NotFound`."""
        manifest = self._object(model)
        valid = Condition(type="Valid", status=True, reason="Accepted")
        shown = status_of(
            decode_status(status),
            generation=manifest["metadata"].get("generation", 0),
            conditions=[valid, *self._conditions(model)],
            before=manifest.get("status", {}),
            now=self._clock.now(),
        )
        if "requests" in manifest.get("status", {}):
            shown["requests"] = manifest["status"]["requests"]
        return self._stored(self._write(manifest, shown, version=version))

    def retell(self, model: str) -> None:
        """Write the conditions that others know of anew where one has changed, though the loop stands where it was."""
        manifest, now = self._object(model), self._conditions(model)
        before = manifest.get("status", {})
        told = {one["type"]: (one["reason"], one["message"]) for one in before.get("conditions", [])}
        if all(told.get(one.type) == (one.reason, one.message) for one in now):
            return
        generation = manifest["metadata"].get("generation", 0)
        found = condition_list(now, generation, before, self._clock.now())
        kept = [one for one in before.get("conditions", []) if one["type"] not in {new["type"] for new in found}]
        self._write(manifest, {**before, "conditions": [*found, *kept]})

    def answer(self, model: str, requests: Mapping[str, Any]) -> None:
        """Note in the status what was made of the requests by annotation; raises `Conflict`, `NotFound`."""
        manifest = self._object(model)
        self._write(manifest, manifest.get("status", {}) | {"requests": dict(requests)})

    def delete(self, model: str) -> None:
        """Remove the object, once what was made for it is gone; removing what is not there is no error."""
        namespace, name = _split(model)
        self._cluster.delete(MODEL, namespace, name)

    def _objects(self) -> Sequence[Manifest]:
        return self._cluster.list(MODEL, self._namespace)

    def _object(self, model: str) -> Manifest:
        namespace, name = _split(model)
        found = self._cluster.get(MODEL, namespace, name)
        if found is None:
            raise NotFound(f"there is no ContinualModel {name} in namespace {namespace}", hint="`kubectl get ctm -A`")
        return found

    def _stored(self, manifest: Manifest) -> StoredModel:
        loop = manifest.get("status", {}).get("loop")
        return StoredModel(
            resource=self._resource(manifest),
            status=None if loop is None else json.dumps(loop).encode(),
            version=manifest["metadata"]["resourceVersion"],
        )

    def _resource(self, manifest: Manifest) -> ContinualModel:
        """The resource, parsed once per generation, since every turn reads it."""
        meta = manifest["metadata"]
        key = (meta.get("uid", ""), meta.get("generation", 0))
        known = self._parsed.get(_id(manifest))
        if known is None or known[0] != key:
            try:
                known = (key, resource_of(manifest))
            except SpecError as error:
                known = (key, error)
            self._parsed[_id(manifest)] = known
        if isinstance(known[1], SpecError):
            raise known[1]
        return known[1]

    def _refuse(self, manifest: Manifest, error: SpecError) -> None:
        """Say in the status what is wrong, once per generation."""
        before, generation = manifest.get("status", {}), manifest["metadata"].get("generation", 0)
        told = next((one for one in before.get("conditions", []) if one["type"] == "Valid"), None)
        problems = [f"{one.path}: {one.message}" if one.path else one.message for one in error.problems]
        if told is not None and told["status"] == "False" and told.get("observedGeneration") == generation:
            return
        _log.warning("a resource is not valid", model=_id(manifest), problems=problems)
        shown = invalid_status(problems, generation=generation, before=before, now=self._clock.now())
        try:
            self._write(manifest, shown)
        except TidemillError as trouble:  # it is told at the next look; the other models are not to wait for it
            _log.info("a refusal could not be told yet", model=_id(manifest), error=trouble.message)

    def _write(self, manifest: Manifest, status: Mapping[str, Any], *, version: str | None = None) -> Manifest:
        meta = manifest["metadata"]
        changed = {
            "apiVersion": MODEL.api_version,
            "kind": MODEL.kind,
            "metadata": {
                "name": meta["name"],
                "namespace": meta["namespace"],
                "resourceVersion": version or meta["resourceVersion"],
            },
            "status": dict(status),
        }
        # Nobody else may write the status, so there is nobody's word to spare.
        return self._cluster.apply(changed, MODEL, part="status", force=True)


def _id(manifest: Manifest) -> str:
    return model_id(manifest["metadata"]["namespace"], manifest["metadata"]["name"])


def _split(model: str) -> tuple[str, str]:
    namespace, dot, name = model.partition(".")
    if not dot or not name:
        raise InvalidInput(f"{model!r} is no model id", hint="an id is <namespace>.<name>, e.g. default.inspection")
    return namespace, name
