"""`Cluster` over the official Kubernetes client: its credentials and transport, and plain JSON in both directions."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import urllib3
from kubernetes import client, config

from tidemill.cluster.api import MANAGER, Access, Foreign, Kind, Manifest
from tidemill.core.errors import Conflict, InvalidInput, TidemillError, Unavailable, Unsupported

__all__ = ["KubernetesCluster", "connect"]

_TIMEOUT_S = (5, 30)
"""To connect, and to wait for an answer."""
_PAGE = 500
_NONE = (404,)
_LATER = {0, 429, 500, 502, 503, 504}
"""Answers after which the same call may succeed; 0 is none at all."""


def connect(*, kubeconfig: str | None = None, context: str | None = None) -> "KubernetesCluster":
    """The cluster that this process runs in, or else the one a kubeconfig names.

    Args:
        kubeconfig: the file; None: that of `KUBECONFIG` or the home folder, unless this process runs in a pod.
        context: of the kubeconfig; None: its current one.

    Raises:
        Unavailable: there is neither a service account nor a kubeconfig, or it cannot be read.
    """
    try:
        if kubeconfig is None and context is None:
            try:
                found = client.Configuration()
                config.load_incluster_config(client_configuration=found)
                return KubernetesCluster(client.ApiClient(found))
            except config.ConfigException:
                pass  # not in a pod
        return KubernetesCluster(config.new_client_from_config(kubeconfig, context))
    except (config.ConfigException, OSError) as error:
        raise Unavailable(
            f"no cluster is known: {error}", hint="set KUBECONFIG, or `kubectl config use-context NAME`"
        ) from error


class KubernetesCluster:
    """Implements `Cluster`. Safe for several threads."""

    def __init__(self, api: client.ApiClient, *, manager: str = MANAGER) -> None:
        """Speak through `api`; `manager` owns what is applied."""
        self._api = api
        self._manager = manager

    def access(self) -> Access:
        """Where the API server is, and who asks by now: the token of a pod is another one every hour."""
        found = self._api.configuration
        return Access(
            server=found.host,
            ca=found.ssl_ca_cert,
            verified=found.verify_ssl,
            token=(found.get_api_key_with_prefix("authorization") or "").removeprefix("Bearer ") or None,
            certificate=found.cert_file,
            key=found.key_file,
        )

    def as_manager(self, manager: str) -> "KubernetesCluster":
        """The same server, spoken to by another field manager."""
        return KubernetesCluster(self._api, manager=manager)

    def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """The object, or None where there is none."""
        return self._call("GET", kind.path(namespace, name), absent=_NONE)

    def list(
        self, kind: Kind, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        """The objects of a namespace (None: of all) that carry these labels, in the order of their names."""
        query = {"limit": str(_PAGE)}
        if labels:
            query["labelSelector"] = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        found: list[Manifest] = []
        while True:
            page = self._call("GET", kind.path(namespace), query=query) or {}
            # Items of a list come without their kind.
            found += [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in page["items"]]
            more = page["metadata"].get("continue")
            if not more:
                return sorted(found, key=_place)
            query = query | {"continue": more}

    def apply(self, manifest: Manifest, kind: Kind, *, part: str | None = None, force: bool = False) -> Manifest:
        """State an object (or its subresource `part`) by server-side apply; returns it as it then is."""
        meta = manifest["metadata"]
        query = {"fieldManager": self._manager, "force": str(force).lower(), "fieldValidation": "Strict"}
        path = kind.path(meta.get("namespace"), meta["name"], part)
        return self._call("PATCH", path, query=query, body=manifest, content="application/apply-patch+yaml") or {}

    def delete(self, kind: Kind, namespace: str | None, name: str) -> None:
        """Delete the object, and in the background what it owns; one that is not there is no error."""
        self._call("DELETE", kind.path(namespace, name), query={"propagationPolicy": "Background"}, absent=_NONE)

    def serves(self, kind: Kind) -> bool:
        """Whether the API server knows the kind."""
        root = kind.path().rsplit("/", 1)[0]
        found = self._call("GET", root, absent=_NONE)
        return found is not None and any(one["name"] == kind.plural for one in found["resources"])

    def version(self) -> str:
        """Of the API server, e.g. `v1.36.1`."""
        return str((self._call("GET", "/version") or {})["gitVersion"])

    def allows(self, verb: str, kind: Kind, namespace: str | None = None, *, part: str | None = None) -> bool:
        """Whether who asks may do this in the namespace (None: in all), by a SelfSubjectAccessReview."""
        group = kind.api_version.rpartition("/")[0]
        wanted = {"verb": verb, "group": group, "resource": kind.plural, "namespace": namespace or ""}
        if part is not None:
            wanted["subresource"] = part
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": wanted},
        }
        answer = self._call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review) or {}
        return bool(answer["status"]["allowed"])

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content: str = "application/json",
        absent: tuple[int, ...] = (),
    ) -> Manifest | None:
        try:
            answer = self._api.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content},
                body=body,  # the client makes JSON of it, for every type of content that is sent here
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _preload_content=False,
                _request_timeout=_TIMEOUT_S,
            )
            found: Manifest = json.loads(answer.data)
        except client.ApiException as error:
            if error.status in absent:
                return None
            raise _named(error, f"{method} {path}") from error
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Unavailable(f"the API server does not answer {method} {path}: {error}") from error
        return found


def _place(manifest: Manifest) -> tuple[str, str]:
    meta = manifest["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _named(error: client.ApiException, call: str) -> TidemillError:
    """The error of our tree for what the API server answered."""
    status = _status(error.body)
    said = status.get("message") or error.reason or f"status {error.status}"
    causes: list[dict[str, Any]] = (status.get("details") or {}).get("causes") or []
    if error.status == 409:
        taken = [cause for cause in causes if cause.get("reason") == "FieldManagerConflict"]
        if taken:
            managers = sorted({cause["message"].split('"')[1] for cause in taken if '"' in cause["message"]})
            fields = sorted({cause.get("field", "") for cause in taken})
            return Foreign(f"{call}: {said}", managers=managers, fields=fields)
        return Conflict(f"{call}: {said}")
    if error.status in _LATER:
        return Unavailable(f"the API server cannot answer {call} now: {said}")
    if error.status == 401:
        return Unavailable(f"the API server does not know who asks ({call}): {said}", hint="has the token expired?")
    if error.status in {403, 404, 405}:
        return Unsupported(f"the API server refuses {call}: {said}", hint="`tidemill doctor --cluster` says what lacks")
    return InvalidInput(f"the API server refuses {call}: {said}")


def _status(body: bytes | str | None) -> dict[str, Any]:
    try:
        found = json.loads(body or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
