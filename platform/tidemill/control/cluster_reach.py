"""Whether the services that the settings name can be reached from here: a connection, and no more than that."""

import os
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from tidemill.core.settings import Settings, masked
from tidemill.stack.doctor import Check
from tidemill.stack.readiness import is_ready

__all__ = ["reach"]

_PORTS = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379}
_TIMEOUT_S = 2.0


def reach(settings: Settings) -> Iterator[Check]:
    """A check for each service that the loop needs on a cluster. Takes up to 2 s for one that does not answer."""
    yield _service("Kafka", "kafka", settings.kafka, "missing", "no events come in")
    yield _service("Redis", "redis", settings.redis, "missing", "no features are served")
    yield _service("Kubeflow Pipelines", "kfp", settings.kfp, "missing", "no loop turns: it could start no run")
    yield _service("Prometheus", "prometheus", settings.prometheus, "warning", "guards of a rollout see nothing")
    yield _service("MLflow", "mlflow", settings.mlflow, "missing", "versions are registered in a file of this machine")
    # Not set, it is of no harm where each resource names its own.
    unset: Literal["warning", "missing"] = "missing" if settings.artifacts else "warning"
    yield _service("object store", "artifacts", _store(settings.artifacts), unset, "each model needs an artifactRoot")


def _service(name: str, setting: str, value: str | None, unset: Literal["warning", "missing"], without: str) -> Check:
    variable = f"TIDEMILL_{setting.upper()}"
    addresses = [] if value is None else _addresses(value)
    if value is None or not addresses:
        found = f"{variable} is not set" if value is None else f"{variable}={masked(value)} is of this machine alone"
        return Check(name=name, state=unset, found=f"{found}: {without}", hint=f"set {variable}")
    silent = [one for one in addresses if not is_ready(f"tcp://{one}", timeout_s=_TIMEOUT_S)]
    if not silent:
        return Check(name=name, state="ok", found=f"{', '.join(addresses)} answers")
    # One broker of several is enough to find the others by.
    state: Literal["warning", "missing"] = "warning" if len(silent) < len(addresses) else "missing"
    hint = f"is {variable} right, and does a network policy let this pod through?"
    return Check(name=name, state=state, found=f"{', '.join(silent)} does not answer", hint=hint)


def _addresses(value: str) -> list[str]:
    """`host:port` of each server; none where the value is a file or a folder."""
    if "://" not in value:
        return [] if "/" in value else [one.strip() for one in value.split(",")]
    parts = urlsplit(value)
    port = parts.port or _PORTS.get(parts.scheme)
    return [f"{parts.hostname}:{port}"] if parts.hostname and port else []


def _store(uri: str | None) -> str | None:
    """Where the object store of an `s3://` or `gs://` URI listens."""
    scheme = urlsplit(uri or "").scheme
    if scheme == "s3":
        own = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return own or "https://s3.amazonaws.com"
    return "https://storage.googleapis.com" if scheme == "gs" else uri
