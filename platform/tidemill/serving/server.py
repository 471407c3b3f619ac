"""`tidemill serve`: one version behind KServe's model server, V1 and V2.

In this order, so that a server that listens is one that answers: port bound, artifact verified, codec and model
loaded, one row answered, connections taken. KServe would bind every interface; its app is served by uvicorn here.
"""

import io
import signal
import socket
from pathlib import Path
from typing import Any

import uvicorn

from tidemill.artifacts import local_folder
from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import Corrupt, TidemillError
from tidemill.core.telemetry import get_logger
from tidemill.serving.application import application
from tidemill.serving.features import OnlineFeatures, RowFeatures
from tidemill.serving.kserve_import import kserve_parts
from tidemill.serving.log import PredictionLog, PredictionWriter
from tidemill.serving.model import Requests
from tidemill.serving.patience import PatientProtocol
from tidemill.serving.predictor import Predictor
from tidemill.serving.rows import RequestRow, RowReader
from tidemill.spec.model import ContinualModel
from tidemill.spec.paths import served_name
from tidemill.stack.ports import bound

__all__ = ["run"]

_READ_TIMEOUT_S = 0.1
_KEEP_ALIVE_S = 75
"""Longer than the proxy's, so that it never sends into a connection that is being closed here."""
_GIVE_UP_S = 3600.0
_GRACE_S = 8
"""For requests in flight at the end; the supervisor waits 15 s in all."""

_log = get_logger(__name__)


def run(
    resource: ContinualModel,
    *,
    version: str,
    artifact: str,
    port: int,
    kafka: str,
    redis: str,
    clock: Clock,
    feast_repo: Path | None = None,
    counts: Path | None = None,
    host: str = "127.0.0.1",
) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight are answered, and what was predicted is logged.

    Args:
        resource: the model.
        version: the version to serve; must be the artifact's.
        artifact: folder (or `file://` URI) of its files.
        port: where to listen.
        kafka: bootstrap servers, for the prediction log. The server answers without them, too.
        redis: URL, for online features. Likewise.
        clock: the time.
        feast_repo: folder of the user's own Feast repository, where the resource names a service of it.
        counts: folder where the counts of this model's servers outlive them.
        host: interface to listen on.

    Raises:
        NotFound, Corrupt: there is no such artifact, or its files are not the ones that were written.
        UserCodeError: the codec cannot be loaded.
        InvalidInput, NotFound: the resource names a FeatureService that cannot be used.
        Unavailable: the port is taken, or the registry of the user's Feast repository cannot be read.
    """
    started = clock.monotonic()
    # Bound first and heard last: a taken port shows before seconds are spent, and nobody connects too early.
    with bound(host, port) as listening:
        model = _load(artifact, version)
        log = PredictionLog(
            lambda: _writer(kafka, version),
            f"{resource.id}.predictions",
            clock=clock,
            sample=resource.spec.serving.log.sample,
            folder=counts,
        )
        copies = _log_of_copies(resource, kafka, version, clock)
        try:
            features = OnlineFeatures(
                _feature_source(redis, resource), resource.spec.features.window_names, clock=clock
            )
            service = _service(resource, feast_repo, clock)
            predictor = Predictor(
                resource, version=version, model=model, features=features, log=log, copies=copies, service=service
            )
            _warm_up(resource, model, service)
            requests = Requests(
                resource, name=served_name(resource), reader=RowReader(resource), predictor=predictor, clock=clock
            )
            app = application(kserve_parts(), requests)
            _log.info("serving", version=version, port=port, ready_after_s=round(clock.monotonic() - started, 2))
            _serve(app, listening)
        finally:
            log.close()
            if copies is not None:
                copies.close()


def _log_of_copies(resource: ContinualModel, kafka: str, version: str, clock: Clock) -> PredictionLog | None:
    """Where answers to copies of requests go: apart from the others, so that nothing takes one for a user's."""
    if not resource.spec.rollout.shadow:
        return None
    return PredictionLog(lambda: _writer(kafka, version), f"{resource.id}.copies", clock=clock, copies=True)


def _load(artifact: str, version: str) -> Any:
    from tidemill.training.predictor import OnnxModel

    model = OnnxModel(local_folder(artifact))
    if model.version != version:
        raise Corrupt(f"{artifact} holds version {model.version}, not {version}")
    return model


def _writer(kafka: str, version: str) -> PredictionWriter:
    from tidemill.events.kafka import RecordWriter

    # Rows that wait hold their slots, so they may as well wait: few are lost by the brokers' absence, and none by its
    # length alone.
    return RecordWriter(kafka, client_id=f"serve-{version}", give_up_s=_GIVE_UP_S)


def _feature_source(redis: str, resource: ContinualModel) -> Any:
    if not resource.spec.features.windows:
        return None
    from tidemill.features.label_events import LABELS, label_layout
    from tidemill.features.layout import layout_of
    from tidemill.features.reader import OnlineReader
    from tidemill.serving.features import Views

    features, views = resource.spec.features, []
    if features.event_windows:
        ttl_ms = None if features.ttl is None else to_ms(features.ttl)
        layout = layout_of(resource)
        views.append(OnlineReader(redis, resource.id, layout=layout, ttl_ms=ttl_ms, timeout_s=_READ_TIMEOUT_S))
    if features.label_windows:
        layout = label_layout(resource)
        views.append(OnlineReader(redis, resource.id, LABELS, layout=layout, timeout_s=_READ_TIMEOUT_S))
    return views[0] if len(views) == 1 else Views(views)


def _service(resource: ContinualModel, repository: Path | None, clock: Clock) -> RowFeatures | None:
    """The features of the user's own FeatureService; only then is Feast imported."""
    if resource.spec.features.service is None:
        return None
    from tidemill.features.service import open_service
    from tidemill.serving.service import ServiceFeatures

    return ServiceFeatures(lambda: open_service(resource, repository), resource.spec.events.entity, clock=clock)


def _warm_up(resource: ContinualModel, model: Any, service: RowFeatures | None) -> None:
    """Answer a made-up row, so that the first real one does not pay for what is loaded late.

    A codec may rightly refuse a grey picture; that is no reason not to serve.
    """
    made_up: dict[str, Any] = {"float": 0.0, "int": 0, "string": "", "bool": False}
    row = {
        field.name: _grey_picture()
        if field.type == "image"
        else (field.enum[0] if field.enum else made_up[field.type] if field.min is None else field.min)
        for field in resource.spec.events.fields
    }
    try:
        row |= dict.fromkeys(resource.spec.features.image, 0.5) | dict.fromkeys(resource.spec.features.window_names)
        if service is not None:
            entity = "0" if resource.spec.events.entity.type == "int" else ""
            row |= service.of([RequestRow(entity=entity, event_id=None, values=row)])[0].values
        model.answers([row])
    except TidemillError as error:
        _log.warning("a made-up row was not answered", reason=error.message)


def _grey_picture() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(file, "PNG")
    return file.getvalue()


def _serve(app: Any, listening: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )
    # uvicorn raises the signal again once it has stopped; the log is still to be written then.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listening])
