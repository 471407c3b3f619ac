"""Makes what a model needs exist on a cluster, repairs what diverged, and takes it back in order.

Level-triggered: it compares what is wanted with what the watches show, and calls the API server only where they differ.
An object that somebody else has edited is reported and left as it is; one that was deleted is made again.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from tidemill.cluster import Cluster, Foreign, Kind, Manifest
from tidemill.cluster.api import MANAGED_BY, MANAGER
from tidemill.control.cluster_kinds import CONFIG_MAP, DEPLOYMENT, JOB, KAFKA_TOPIC, MODEL, SCALED_OBJECT
from tidemill.control.cluster_objects import OPTIONAL, ROLE, objects_of, settings_of
from tidemill.control.cluster_status import Condition
from tidemill.control.protocols import StoredModel
from tidemill.control.provision import retention
from tidemill.core.clock import Clock
from tidemill.core.errors import TidemillError, Transient
from tidemill.core.ids import model_id
from tidemill.core.settings import Settings
from tidemill.core.telemetry import get_logger
from tidemill.rollout.http_route import HTTP_ROUTE
from tidemill.rollout.kserve import INFERENCE_SERVICE, SETTINGS, stated
from tidemill.rollout.kserve import MODEL as MODEL_LABEL
from tidemill.spec.model import ContinualModel

__all__ = ["FINALIZER", "ORPHAN", "ClusterProvisioner", "bare", "owner_of", "owner_reference"]

_log = get_logger(__name__)

FINALIZER = "tidemill.dev/loop"
"""Keeps the ContinualModel until its traffic and runs have been taken back."""
ORPHAN = "tidemill.dev/orphan"
"""Annotation: with `true`, a deleted ContinualModel leaves behind what was made for it, traffic included."""

_PRUNED = (DEPLOYMENT, JOB, SCALED_OBJECT)
"""Kinds of which a changed resource may need fewer."""
_PAUSE_S = 10.0
_LOOK_S = 300.0
"""So long a topic that was there is believed to be there."""
"""Between two tries to let a deleted model go."""
_TRAFFIC = (INFERENCE_SERVICE, HTTP_ROUTE)
"""Kinds of the traffic drivers."""


def owner_reference(manifest: Manifest) -> dict[str, Any]:
    """The `ownerReferences` entry of what is made for a ContinualModel."""
    meta = manifest["metadata"]
    return {
        "apiVersion": MODEL.api_version,
        "kind": MODEL.kind,
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owner_of(resource: ContinualModel, cluster: Cluster) -> dict[str, Any] | None:
    """The `ownerReferences` entry of what is made for a model; None where it is gone."""
    found = cluster.get(MODEL, resource.metadata.namespace, resource.metadata.name)
    return None if found is None else owner_reference(found)


class ClusterProvisioner:
    """Provides for models on a cluster. Implements `Provisions`.

    Args:
        cluster: the API server, with watches of what is made here.
        settings: the operator's.
        ensure_topics: makes topics through the brokers, by name with their number of partitions, that keep records
            for so many milliseconds; used where Strimzi is not.
        leaving: the objects of models that are being deleted.
        end: takes back the traffic and the runs of a model that is being deleted, given its object.
        clock: for the pauses after failures.
        tell: writes the conditions of a model into its status.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        *,
        ensure_topics: Callable[[dict[str, int], int | None], None],
        leaving: Callable[[], Sequence[Manifest]],
        end: Callable[[Manifest], None],
        clock: Clock,
        tell: Callable[[str], None] = lambda model: None,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._ensure_topics = ensure_topics
        self._leaving, self._end = leaving, end
        self._clock = clock
        self._again: dict[str, float] = {}
        self._made: dict[str, float] = {}
        """Topics, and when they were last seen to be there."""
        self._told: dict[str, Condition] = {}
        self._tell = tell
        self._held_up: dict[str, Condition] = {}
        """Of models that are being deleted and cannot be let go yet."""

    def conditions(self, model: str) -> Sequence[Condition]:
        """What is known of a model's provision, for its status."""
        return [known[model] for known in (self._told, self._held_up) if model in known]

    def provide(self, stored: StoredModel) -> None:
        """State what the model needs; raises the first failure after everything else has been tried."""
        resource = stored.resource
        meta = resource.metadata
        manifest = self._cluster.get(MODEL, meta.namespace, meta.name)
        if manifest is None:
            return  # deleted meanwhile
        self._hold(manifest)
        served = {kind for kind in OPTIONAL if self._cluster.serves(kind)}
        wanted = objects_of(resource, self._settings, owner=owner_reference(manifest), served=served)
        problems: list[TidemillError] = []
        for kind, one in ((CONFIG_MAP, settings_of(self._settings, meta.namespace)), *wanted):
            self._attempt(partial(self._state, kind, one), problems)
        self._attempt(lambda: self._prune(resource, wanted, served), problems)
        if KAFKA_TOPIC not in served or self._settings.strimzi_cluster is None:
            self._attempt(lambda: self._topics(resource), problems)
        self._told[resource.id] = _condition(problems)
        failures = [one for one in problems if not isinstance(one, Foreign)]
        if failures:
            raise failures[0]

    def withdraw(self, models: Collection[str]) -> None:
        """Let go of models that are being deleted: what they own goes with them, unless they are to leave it."""
        for model in self._told.keys() - set(models):
            del self._told[model]
        for manifest in self._leaving():
            meta = manifest["metadata"]
            uid, model = meta["uid"], model_id(meta["namespace"], meta["name"])
            if FINALIZER not in meta.get("finalizers", []):
                continue
            if self._clock.monotonic() < self._again.get(uid, 0.0):
                continue
            try:
                self._let_go(manifest)
                self._again.pop(uid, None)
                self._held_up.pop(model, None)
            except Exception as error:  # of one model: the others are not to end with it
                self._again[uid] = self._clock.monotonic() + _PAUSE_S
                words = error.message if isinstance(error, TidemillError) else repr(error)
                _log.warning("a deleted model cannot be let go yet", model=model, error=words)
                self._held_up[model] = _held_up(words)
                with suppress(TidemillError):  # people are told where they can be
                    self._tell(model)

    def _let_go(self, manifest: Manifest) -> None:
        """In this order: traffic and runs, what is to stay, then the object, and with it all that it owns."""
        if manifest["metadata"].get("annotations", {}).get(ORPHAN) == "true":
            self._orphan(manifest)
        else:
            self._end(manifest)
        # Stating the object without the finalizer gives it up.
        self._cluster.apply(bare(manifest), MODEL)

    def _attempt(self, step: Callable[[], None], problems: list[TidemillError]) -> None:
        try:
            step()
        except TidemillError as error:
            problems.append(error)

    def _state(self, kind: Kind, wanted: Manifest) -> None:
        meta = wanted["metadata"]
        found = self._cluster.get(kind, meta["namespace"], meta["name"])
        if found is not None and found["metadata"].get("labels", {}).get(MANAGED_BY) != MANAGER:
            text = f"{kind.kind} {meta['name']} is there already, and is someone else's"
            raise Foreign(text, managers=(), fields=())
        # All of a ConfigMap is ours: what is wanted no more must go, too.
        if found is None or not stated(found, wanted) or found.get("data") != wanted.get("data"):
            self._cluster.apply(wanted, kind)

    def _prune(
        self, resource: ContinualModel, wanted: Sequence[tuple[Kind, Manifest]], served: Collection[Kind]
    ) -> None:
        """Delete what an earlier form of the resource needed."""
        names = {(kind, one["metadata"]["name"]) for kind, one in wanted}
        meta = resource.metadata
        for kind in _PRUNED:
            if kind in OPTIONAL and kind not in served:
                continue
            for one in self._cluster.list(kind, meta.namespace, labels={MODEL_LABEL: meta.name}):
                name = one["metadata"]["name"]
                if ROLE in one["metadata"].get("labels", {}) and (kind, name) not in names:
                    self._cluster.delete(kind, meta.namespace, name)

    def _topics(self, resource: ContinualModel) -> None:
        for keep_ms, names in retention(resource).items():
            now = self._clock.monotonic()
            if doubtful := {name for name in names if now - self._made.get(name, float("-inf")) > _LOOK_S}:
                events, many = resource.events_topic, self._settings.events_partitions
                self._ensure_topics({name: many if name == events else 1 for name in sorted(doubtful)}, keep_ms)
                self._made |= dict.fromkeys(doubtful, now)

    def _hold(self, manifest: Manifest) -> None:
        if FINALIZER not in manifest["metadata"].get("finalizers", []):
            self._cluster.apply(bare(manifest, finalizers=[FINALIZER]), MODEL)

    def _orphan(self, manifest: Manifest) -> None:
        """Cut what was made loose from its owner; the settings of the namespace never had one."""
        meta = manifest["metadata"]
        for kind in (CONFIG_MAP, DEPLOYMENT, JOB, *(one for one in OPTIONAL if self._cluster.serves(one)), *_TRAFFIC):
            if not self._cluster.serves(kind):
                continue
            for one in self._cluster.list(kind, meta["namespace"], labels={MODEL_LABEL: meta["name"]}):
                if one["metadata"]["name"] != SETTINGS and one["metadata"].get("ownerReferences"):
                    kept = {key: value for key, value in one.items() if key in {"spec", "data"}}
                    said = {name: one["metadata"].get(name, {}) for name in ("labels", "annotations")}
                    self._cluster.apply(bare(one, **said) | kept, kind, force=True)


def bare(manifest: Manifest, **metadata: Any) -> Manifest:
    """An object with nothing but its name, and these fields of its metadata."""
    meta = manifest["metadata"]
    named: Mapping[str, Any] = {"name": meta["name"], "namespace": meta["namespace"], **metadata}
    return {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": dict(named)}


def _condition(problems: Sequence[TidemillError]) -> Condition:
    if not problems:
        return Condition(type="Provisioned", status=True, reason="AsWanted")
    foreign = [one for one in problems if isinstance(one, Foreign)]
    later = [one for one in problems if isinstance(one, Transient)]
    reason = "ForeignEdit" if foreign else "NotYet" if later else "Refused"
    return Condition(
        type="Provisioned", status=False, reason=reason, message="; ".join(one.message for one in problems)[:2000]
    )


def _held_up(why: str) -> Condition:
    return Condition(type="Withdrawn", status=False, reason="TriedAgain", message=why[:1000])
