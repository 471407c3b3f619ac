"""kopf's watches of the operator's kinds, in a thread of their own: they fill the memory, and wake the models.

kopf knows how to list, watch, and begin again after any failure of the API server; what follows from what is seen is
the service's. Nothing is written here.
"""

import asyncio
import threading
from collections.abc import Callable, Collection
from typing import Any

import kopf

from tidemill.cluster import Access, Kind, Manifest
from tidemill.cluster.watched import WatchedCluster
from tidemill.control.cluster_kinds import CONFIG_MAP, MODEL
from tidemill.core.clock import SystemClock
from tidemill.core.errors import Unavailable
from tidemill.core.ids import model_id
from tidemill.core.telemetry import get_logger
from tidemill.rollout.kserve import MODEL as MODEL_LABEL
from tidemill.rollout.kserve import SETTINGS

__all__ = ["Login", "watching"]

_log = get_logger(__name__)

Login = Callable[[], Access]
"""Where the API server is, and who asks, by now: kopf asks again when its token is taken no more."""

_SERVER_TIMEOUT_S = 300
_READY_S = 60.0


def watching(
    memory: WatchedCluster,
    kinds: Collection[Kind],
    *,
    wake: Callable[[str], None],
    login: Login,
    namespace: str | None,
    stop: threading.Event,
) -> threading.Thread:
    """Watch `kinds` until `stop` is set; returns the thread once the watches have begun.

    Raises `Unavailable` where they do not begin.
    """
    ready = threading.Event()
    registry = _registry(memory, kinds, wake)
    kopf.on.login(registry=registry)(lambda **_: _connection(login()))
    thread = threading.Thread(target=_run, args=(registry, namespace, stop, ready), name="watching", daemon=True)
    thread.start()
    clock = SystemClock()
    until = clock.monotonic() + _READY_S
    while not ready.wait(0.1) and thread.is_alive() and clock.monotonic() < until:
        pass
    if not ready.is_set():
        raise Unavailable(f"the watches have not begun within {_READY_S:g} s", hint="`tidemill doctor --cluster`")
    return thread


def _registry(memory: WatchedCluster, kinds: Collection[Kind], wake: Callable[[str], None]) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    def note(kind: Kind, event: Any) -> None:
        manifest: Manifest = event["object"]
        before = _settings(memory, kind, manifest)
        if event["type"] == "DELETED":
            memory.gone(kind, manifest)
        elif not memory.seen(kind, manifest):
            return  # our own write, or one that is known
        elif before is not None and _said(before) == _said(manifest):
            return  # settings concern every model of the namespace
        for model in _concerned(memory, kind, manifest):
            wake(model)

    for kind in kinds:
        group, _, version = kind.api_version.rpartition("/")

        def handler(event: Any, kind: Kind = kind, **_: Any) -> None:
            note(kind, event)

        kopf.on.event(group, version, kind.plural, registry=registry, id=kind.plural)(handler)
    return registry


def _concerned(memory: WatchedCluster, kind: Kind, manifest: Manifest) -> list[str]:
    """The ids of the models that an object is, or belongs to."""
    meta = manifest["metadata"]
    namespace = meta.get("namespace", "")
    if _are_settings(kind, manifest):
        return [model_id(namespace, one["metadata"]["name"]) for one in memory.list(MODEL, namespace)]
    name = meta["name"] if kind == MODEL else meta.get("labels", {}).get(MODEL_LABEL)
    return [] if name is None else [model_id(namespace, name)]


def _are_settings(kind: Kind, manifest: Manifest) -> bool:
    return kind == CONFIG_MAP and manifest["metadata"]["name"] == SETTINGS


def _settings(memory: WatchedCluster, kind: Kind, manifest: Manifest) -> Manifest | None:
    """Settings as they were known so far; None of any other object."""
    if not _are_settings(kind, manifest):
        return None
    return memory.get(kind, manifest["metadata"].get("namespace"), SETTINGS)


def _said(settings: Manifest) -> tuple[object, object]:
    return settings.get("data"), settings["metadata"].get("labels")


def _connection(found: Access) -> kopf.ConnectionInfo:
    return kopf.ConnectionInfo(
        server=found.server,
        ca_path=found.ca,
        insecure=not found.verified,
        token=found.token,
        certificate_path=found.certificate,
        private_key_path=found.key,
    )


def _run(registry: kopf.OperatorRegistry, namespace: str | None, stop: threading.Event, ready: threading.Event) -> None:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # what is served is looked at when the process starts
    settings.watching.inactivity_timeout = _SERVER_TIMEOUT_S + 30
    settings.watching.server_timeout = _SERVER_TIMEOUT_S
    # Each object has a worker until it has been idle for so long. A limit of workers would be one of objects in that
    # time: of thousands, most would wait for minutes. What is done for an event takes no time.
    settings.queueing.idle_timeout = 0.5
    settings.queueing.worker_limit = None
    try:
        asyncio.run(
            kopf.operator(
                registry=registry,
                settings=settings,
                clusterwide=namespace is None,
                namespaces=() if namespace is None else (namespace,),
                standalone=True,
                stop_flag=stop,
                ready_flag=ready,
            )
        )
    except Exception:
        # Without watches the memory grows old, and nothing would show it: better to end and be started again.
        _log.exception("the watches ended")
    finally:
        stop.set()
