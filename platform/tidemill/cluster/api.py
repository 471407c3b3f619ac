"""The seam to Kubernetes: read, state what is wanted, take back. Objects are plain JSON, as kubectl shows them.

What Tidemill wants of an object it states by server-side apply as the field manager `tidemill`: only the fields it
names are its own. A field that someone else has taken since is reported as `Foreign`, not overwritten, until the
caller says `force`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tidemill.core.errors import Conflict

__all__ = ["MANAGED_BY", "MANAGER", "Access", "Cluster", "Foreign", "Kind", "Manifest"]

Manifest = dict[str, Any]
"""A Kubernetes object as JSON."""

MANAGER = "tidemill"
"""The field manager of everything that Tidemill applies."""
MANAGED_BY = "app.kubernetes.io/managed-by"
"""The label that says so; its value is `MANAGER`."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object: `Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices")`."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None, part: str | None = None) -> str:
        """The path of a collection or an object under the API server; `part` is a subresource, e.g. `status`."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        where = f"/namespaces/{namespace}" if self.namespaced and namespace is not None else ""
        return root + where + f"/{self.plural}" + (f"/{name}" if name else "") + (f"/{part}" if part else "")


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API server is and who asks, for another client of the same process."""

    server: str
    ca: str | None
    """File of the certificates that its own is signed by; None: those of the system."""
    verified: bool
    """Whether its certificate is looked at."""
    token: str | None
    certificate: str | None
    """File of the client's certificate, where it has no token."""
    key: str | None


class Foreign(Conflict):
    """Fields that were ours are now another manager's: somebody edited the object."""

    def __init__(self, message: str, *, managers: Sequence[str], fields: Sequence[str]) -> None:
        """Managers that own the fields now, and the fields as the API server names them."""
        super().__init__(message, hint="take the edit back, or make it in the ContinualModel")
        self.managers = tuple(managers)
        self.fields = tuple(fields)


class Cluster(Protocol):
    """One API server.

    Every method raises `Unavailable` where it does not answer or asks for fewer calls, `Unsupported` where it forbids
    the call or does not serve the kind, and `InvalidInput` where it refuses the object.
    """

    def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """The object, or None where there is none."""
        ...

    def list(
        self, kind: Kind, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        """The objects of a namespace (None: of all) that carry these labels, in the order of their names."""
        ...

    def apply(self, manifest: Manifest, kind: Kind, *, part: str | None = None, force: bool = False) -> Manifest:
        """State an object (or its subresource `part`) by server-side apply; returns it as it then is.

        With `metadata.resourceVersion`, only if that is still the stored one. Raises `Conflict` where it is not, and
        `Foreign` where another manager has taken fields of it, unless `force`.
        """
        ...

    def delete(self, kind: Kind, namespace: str | None, name: str) -> None:
        """Delete the object, and in the background what it owns; one that is not there is no error."""
        ...

    def serves(self, kind: Kind) -> bool:
        """Whether the API server knows the kind."""
        ...
