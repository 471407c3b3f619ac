"""The traffic driver of KServe's Knative mode: one InferenceService per model, and its `canaryTrafficPercent`.

Two revisions at most. Which version a revision serves is told by its label, which comes with the spec that made it;
whether one is ready and what it gets, by the status: a weight that was sent is none yet, and neither is `Ready`.
The decision that was carried out last stands in a ConfigMap: a metadata edit of the InferenceService would make a
revision. Until the next decision, somebody else's edit is reported and left as it is.
"""

from collections.abc import Mapping
from typing import Any

from tidemill.cluster import Cluster, Foreign, Manifest
from tidemill.rollout.auto import Asked
from tidemill.rollout.driver import RevisionSeen, RevisionWanted, TrafficSeen, TrafficWanted, in_one_line
from tidemill.rollout.knative_plan import UNKNOWN, Standing, Statement, checked, next_statement
from tidemill.rollout.kserve import (
    CONFIG_MAP,
    INFERENCE_SERVICE,
    MODEL,
    REVISION,
    failure,
    find_mine,
    inference_service,
    labels_of,
    mode_of,
    name_of,
    says,
    stated,
    version_of,
)
from tidemill.rollout.prometheus import Counted, RevisionMetrics, counts_of
from tidemill.spec.model import ContinualModel

__all__ = ["KnativeTrafficDriver", "driver_of"]

_MODE = "Serverless"
"""KServe's Knative mode, by the name that 0.15 knows, too; later versions store it as `Knative`."""
_MODES = frozenset({_MODE, "Knative"})


def driver_of(resource: ContinualModel, cluster: Cluster) -> Asked:
    """What `serving.driver` asks for; a model that Knative serves already stays there with `auto`.

    KServe takes no other mode for an InferenceService that is there: one that is installed later is for new models.
    """
    asked = resource.spec.serving.driver
    found = cluster.get(INFERENCE_SERVICE, resource.metadata.namespace, name_of(resource.metadata.name))
    return "knative" if asked == "auto" and mode_of(found) in _MODES else asked


class KnativeTrafficDriver:
    """Implements `TrafficDriver` for one model. More than two versions are refused as `Unsupported`.

    Args:
        cluster: the API server.
        resource: the model.
        endpoint: base URL of predict requests, for people; None: the one that KServe tells.
        metrics: who counts requests, errors and latency; None: nobody does.
        owner: `ownerReferences` entry of the ContinualModel, with which everything goes.
    """

    sticky = False
    mirrors = False

    def __init__(
        self,
        cluster: Cluster,
        *,
        resource: ContinualModel,
        endpoint: str | None = None,
        metrics: RevisionMetrics | None = None,
        owner: Mapping[str, Any] | None = None,
    ) -> None:
        self._cluster, self._resource = cluster, resource
        self._endpoint, self._metrics, self._owner = endpoint, metrics, owner
        self._namespace, self._name = resource.metadata.namespace, name_of(resource.metadata.name)
        self._record = f"{resource.metadata.name}-traffic"
        self._foreign: str | None = None

    def observe(self) -> TrafficSeen:
        """Shares and revisions from the InferenceService's status, readiness from the revisions."""
        found = self._service()
        if found is None:
            return TrafficSeen((), self._endpoint)
        revisions = self._revisions()
        counted, unguarded = counts_of(self._metrics, self._namespace, _pods(revisions))
        versions = sorted({version_of(found), *map(version_of, revisions.values())})
        seen = tuple(_seen(version, found, revisions, counted.get(version, Counted())) for version in versions)
        endpoint = self._endpoint or found.get("status", {}).get("url")
        return TrafficSeen(seen, endpoint, foreign=self._foreign, unguarded=unguarded)

    def apply(self, wanted: TrafficWanted) -> None:
        """State what is wanted; returns at once."""
        shares = checked({one.version: one.share for one in wanted.revisions})
        found = self._service()
        if not shares:
            self._withdraw(found)
            return
        revisions = self._revisions() if found is not None else {}
        statement = next_statement(shares, _standing(found, revisions) if found is not None else None)
        one = next(one for one in wanted.revisions if one.version == statement.version)
        self._state(found, one, statement, in_one_line(wanted))
        if found is not None:
            self._forget(found, revisions, shares.keys() | {statement.version})

    def close(self) -> None:
        """Nothing is held but what other models share; objects stay as they are."""

    def _state(self, found: Manifest | None, one: RevisionWanted, statement: Statement, decision: str) -> None:
        manifest = self._manifest(found, one, statement)
        is_so = found is not None and stated(found, manifest) and _percent(found) == statement.percent
        is_new = self._recorded() != decision
        self._foreign = None
        if not is_so:
            try:
                # A new decision is made with an edit known; an old one is not made again over it.
                made = self._cluster.apply(manifest, INFERENCE_SERVICE, force=is_new)
                if _percent(made) != statement.percent:  # a field that is not stated, and not ours, stays
                    self._foreign = f"InferenceService {self._name}: its canaryTrafficPercent is somebody else's"
            except Foreign as error:
                by = ", ".join(error.managers)
                self._foreign = f"InferenceService {self._name} was edited by {by} ({', '.join(error.fields)})"
        elif is_new:
            self._cluster.apply(self._record_of(decision), CONFIG_MAP, force=True)

    def _manifest(self, found: Manifest | None, one: RevisionWanted, statement: Statement) -> Manifest:
        mode = mode_of(found)
        return inference_service(
            self._resource,
            one,
            name=self._name,
            mode=mode if mode in _MODES else _MODE,
            owner=self._owner,
            predictor={} if statement.percent is None else {"canaryTrafficPercent": statement.percent},
        )

    def _withdraw(self, found: Manifest | None) -> None:
        if found is not None:
            self._cluster.delete(INFERENCE_SERVICE, self._namespace, self._name)
        if find_mine(self._cluster, CONFIG_MAP, self._resource, self._record) is not None:
            self._cluster.delete(CONFIG_MAP, self._namespace, self._record)

    def _forget(self, found: Manifest, revisions: Mapping[str, Manifest], kept: set[str]) -> None:
        """Delete the revisions of versions that nobody wants, once KServe has no use for them."""
        status = _predictor(found)
        used = {status.get(f"latest{which}Revision") for which in ("Created", "Ready", "Rolledout")}
        used |= {one.get("revisionName") for one in status.get("traffic") or []}
        for name, revision in revisions.items():
            if name not in used and version_of(revision) not in kept:
                self._cluster.delete(REVISION, self._namespace, name)

    def _service(self) -> Manifest | None:
        return find_mine(self._cluster, INFERENCE_SERVICE, self._resource, self._name)

    def _revisions(self) -> dict[str, Manifest]:
        """The model's revisions, by name."""
        found = self._cluster.list(REVISION, self._namespace, labels={MODEL: self._resource.metadata.name})
        return {one["metadata"]["name"]: one for one in found}

    def _recorded(self) -> str | None:
        found = find_mine(self._cluster, CONFIG_MAP, self._resource, self._record)
        return None if found is None else found.get("data", {}).get("wanted")

    def _record_of(self, decision: str) -> Manifest:
        meta: dict[str, Any] = {
            "name": self._record,
            "namespace": self._namespace,
            "labels": labels_of(self._resource),
        }
        if self._owner is not None:
            meta["ownerReferences"] = [dict(self._owner)]
        kind, version = CONFIG_MAP.kind, CONFIG_MAP.api_version
        return {"apiVersion": version, "kind": kind, "metadata": meta, "data": {"wanted": decision}}


def _predictor(found: Manifest) -> Mapping[str, Any]:
    status: Mapping[str, Any] = found.get("status", {}).get("components", {}).get("predictor", {})
    return status


def _percent(found: Manifest) -> int | None:
    percent: int | None = found["spec"]["predictor"].get("canaryTrafficPercent")
    return percent


def _standing(found: Manifest, revisions: Mapping[str, Manifest]) -> Standing:
    status = _predictor(found)
    rolled_out = status.get("latestRolledoutRevision") or ""
    named = {name: version_of(one) for name, one in revisions.items()}
    return Standing(
        stated=Statement(version_of(found), _percent(found)),
        rolled_out=named.get(rolled_out, UNKNOWN) if rolled_out else "",
        ready=_newest_is_ready(found, revisions),
        known=frozenset(named.values()),
    )


def _newest_is_ready(found: Manifest, revisions: Mapping[str, Manifest]) -> bool:
    """Whether the revision of the spec as it stands now is there and ready: by its name and label, not by `Ready`."""
    status = _predictor(found)
    name = status.get("latestCreatedRevision") or ""
    newest = revisions.get(name)
    if newest is None or version_of(newest) != version_of(found):
        return False
    return bool(status.get("latestReadyRevision") == name) and says(newest, "Ready")


def _seen(version: str, found: Manifest, revisions: Mapping[str, Manifest], counted: Counted) -> RevisionSeen:
    status = _predictor(found)
    names = {name for name, one in revisions.items() if version_of(one) == version}
    share = sum(one.get("percent") or 0 for one in status.get("traffic") or [] if one.get("revisionName") in names)
    serving = {status.get("latestRolledoutRevision")} if version == version_of(found) else names
    ready = any(says(revisions[name], "Ready") for name in names & serving)
    failed = None
    if version == version_of(found):
        newest_is_ready = _newest_is_ready(found, revisions)
        ready = ready or newest_is_ready
        failed = None if newest_is_ready else failure(found)
    return RevisionSeen(
        version=version,
        share=share,
        ready=ready,
        failed=failed,
        requests=counted.requests,
        errors=counted.errors,
        latency_p99_ms=counted.p99_ms,
    )


def _pods(revisions: Mapping[str, Manifest]) -> dict[str, str]:
    """A pattern of the pods of each version: those of a revision are called after its deployment."""
    names: dict[str, list[str]] = {}
    for name, one in sorted(revisions.items()):
        names.setdefault(version_of(one), []).append(name)
    return {version: f"({'|'.join(found)})-deployment-.+" for version, found in names.items()}
