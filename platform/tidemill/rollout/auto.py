"""Which driver moves a model's traffic: facts in, a choice with its reason out.

KServe's own `spec.canary[]` is none of them: as seen on 0.20.0 it changes replicas and moves no request.
"""

from typing import Literal, NamedTuple

from tidemill.cluster import Cluster, Kind
from tidemill.core.errors import Unsupported
from tidemill.rollout.http_route import HTTP_ROUTE
from tidemill.rollout.kserve import INFERENCE_SERVICE

__all__ = ["KNATIVE_SERVICE", "Asked", "Choice", "Driver", "Installed", "choose", "installed"]

Driver = Literal["gateway", "knative", "local"]
Asked = Literal["auto", "gateway", "knative", "local"]
"""What `spec.serving.driver` may say."""

KNATIVE_SERVICE = Kind("serving.knative.dev/v1", "Service", "services")


class Installed(NamedTuple):
    """What of a cluster the choice depends on."""

    kserve: bool
    routes: bool
    """Gateway API's HTTPRoute is known."""
    gateway: str | None
    """The setting of this name."""
    knative: bool


class Choice(NamedTuple):
    """A driver, and why it is this one."""

    driver: Driver
    reason: str


def installed(cluster: Cluster, gateway: str | None) -> Installed:
    """What is there, by what the API server serves."""
    return Installed(
        kserve=cluster.serves(INFERENCE_SERVICE),
        routes=cluster.serves(HTTP_ROUTE),
        gateway=gateway,
        knative=cluster.serves(KNATIVE_SERVICE),
    )


def choose(asked: Asked, found: Installed | None) -> Choice:
    """The driver for `spec.serving.driver`; `found` is None on one machine, where there is only one.

    Raises `Unsupported` where the driver that is asked for, or any, cannot work here, saying what it lacks.
    """
    if found is None:
        if asked in {"auto", "local"}:
            return Choice("local", "one machine: Envoy shares out the requests")
        return Choice("local", f"serving.driver: {asked} is for a cluster; on one machine it is local")
    if asked == "local":
        raise Unsupported("serving.driver: local is for one machine", hint="leave it out, and auto chooses")
    lacks = {"gateway": _lacks_for_gateway(found), "knative": _lacks_for_knative(found)}
    if asked != "auto":
        if lacks[asked]:
            raise Unsupported(f"serving.driver: {asked} needs {' and '.join(lacks[asked])}", hint=_HINT)
        return Choice(asked, "serving.driver names it")
    if not lacks["gateway"]:
        return Choice("gateway", f"KServe and Gateway API are here, and {found.gateway} takes the requests")
    if not lacks["knative"]:
        return Choice("knative", f"KServe and Knative are here; gateway would need {' and '.join(lacks['gateway'])}")
    told = "; ".join(f"{driver} needs {' and '.join(needs)}" for driver, needs in lacks.items())
    raise Unsupported(f"no driver can move traffic here: {told}", hint=_HINT)


_HINT = "`tidemill doctor --cluster` says what is installed"
_KSERVE = "KServe, whose InferenceService this API server does not know"


def _lacks_for_gateway(found: Installed) -> list[str]:
    needs = [] if found.kserve else [_KSERVE]
    needs += [] if found.routes else ["Gateway API, whose HTTPRoute this API server does not know"]
    return needs + ([] if found.gateway else ["the setting gateway (<namespace>/<name> of a Gateway)"])


def _lacks_for_knative(found: Installed) -> list[str]:
    needs = [] if found.kserve else [_KSERVE]
    return needs + ([] if found.knative else ["Knative Serving, whose Service this API server does not know"])
