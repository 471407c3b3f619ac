"""`POST /v1/labels`: labels over HTTP, for all models of this installation. What it says of itself is at /docs.

A body is read here and not by FastAPI: its bytes are what an idempotency key stands for, and a row that is no label
must not keep the others from being taken. Label values are the users' data and are never logged.
"""

import hashlib
from collections.abc import Callable
from threading import Lock
from typing import Annotated, Any, Literal

import msgspec
from fastapi import FastAPI, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest
from pydantic import BaseModel, ConfigDict, Field

from tidemill.core.clock import Clock
from tidemill.core.errors import Conflict, InvalidInput, NotFound, TidemillError, Transient
from tidemill.core.telemetry import REGISTRY, get_logger
from tidemill.labels.check import Checked, LabelCheck
from tidemill.labels.requests import LabelDesk, Made
from tidemill.spec.model import ContinualModel

__all__ = ["MAX_BODY_BYTES", "MAX_LABELS", "LabelService", "make_app"]

MAX_BODY_BYTES = 8 << 20
MAX_LABELS = 10_000
_LONGEST_KEY = 255
_LONGEST_REASON = 300
_AGAIN_S = 5

_log = get_logger(__name__)
_LABELS = Counter(
    "tidemill_feedback_labels_total",
    "Labels in requests, by what became of them.",
    ["model", "result"],
    registry=REGISTRY,
)
_REQUESTS = Counter(
    "tidemill_feedback_requests_total", "Requests for labels, by HTTP status.", ["status"], registry=REGISTRY
)


class LabelIn(BaseModel):
    """What a labeller says of a prediction, or of an event."""

    model_config = ConfigDict(json_schema_extra={"required": ["value"]})

    value: dict[str, Any] = Field(description="The label's fields, as `spec.labels.fields` declares them.")
    labeller: str = Field("", description="Who says so. Each labeller's last word counts.")
    prediction_id: str | None = Field(None, description="The prediction it is about, as the answer named it.")
    entity: str | None = Field(None, description="Or, with `event_id`, the event it is about.")
    event_id: str | None = None
    time: int | str | None = Field(None, description="When it was said: milliseconds since the epoch, or ISO 8601.")


class LabelsIn(BaseModel):
    """Labels of one model."""

    model: str = Field(description="The model's name, or its id `<namespace>.<name>`.")
    labels: list[LabelIn] = Field(min_length=1, max_length=MAX_LABELS)
    new_classes: bool = Field(False, description="Take classes, too, that the resource does not declare.")


class Result(BaseModel):
    """What became of a label."""

    index: int = Field(description="Its place in `labels`, from 0.")
    status: Literal["accepted", "refused"]
    reason: str | None = Field(None, description="Why it was refused.")


class LabelsOut(BaseModel):
    """What became of a request."""

    model: str
    accepted: int
    refused: int
    results: list[Result]


class Refusal(BaseModel):
    """Why a request had no effect."""

    error: str


class _Counts(msgspec.Struct):
    accepted: int
    refused: int


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: str
    labels: list[Any]
    new_classes: bool = False


class LabelService:
    """Answers requests for labels. Thread-safe.

    Args:
        find: the model of a name or id; raises `NotFound`.
        kafka: bootstrap servers.
        clock: the time.
    """

    def __init__(self, find: Callable[[str], ContinualModel], kafka: str, *, clock: Clock) -> None:
        self._find, self._kafka, self._clock = find, kafka, clock
        self._desks: dict[tuple[str, str], LabelDesk] = {}
        self._lock = Lock()

    def answer(self, data: bytes, key: str | None) -> tuple[bytes, bool]:
        """The answer to a body, and whether it was given before.

        Raises:
            InvalidInput, NotFound, Conflict: the request had no effect.
            Unavailable: it had none, or that is not known, and the same request under its key says it.
        """
        body = _read(data)
        resource = self._find(body.model)
        check = LabelCheck(resource, clock=self._clock, new_classes=body.new_classes)

        def make() -> Made:
            return _checked(resource.id, check, body.labels)

        answer, again = self._desk(resource).take(make, key=key, body=hashlib.sha256(data).hexdigest())
        if not again:
            counts = msgspec.json.decode(answer, type=_Counts)
            _LABELS.labels(resource.id, "accepted").inc(counts.accepted)
            _LABELS.labels(resource.id, "refused").inc(counts.refused)
        return answer, again

    def close(self) -> None:
        """Drop the connections."""
        for desk in self._desks.values():
            desk.close()

    def _desk(self, resource: ContinualModel) -> LabelDesk:
        place = (resource.id, resource.labels_topic)
        with self._lock:
            if place not in self._desks:
                self._desks[place] = LabelDesk(resource, self._kafka, clock=self._clock)
            return self._desks[place]


def make_app(service: LabelService) -> FastAPI:
    """The application."""
    app = FastAPI(
        title="Tidemill feedback",
        version="1",
        description="What turned out to be true: labels of predictions and events.",
        docs_url="/docs",
        redoc_url=None,
    )

    @app.get("/healthz", summary="Whether the service is there", response_class=Response, tags=["service"])
    def healthz() -> Response:
        return Response("ok\n", media_type="text/plain")

    @app.get("/metrics", summary="Metrics for Prometheus", response_class=Response, tags=["service"])
    def metrics() -> Response:
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    @app.post(
        "/v1/labels",
        summary="Send labels",
        response_model=LabelsOut,
        tags=["labels"],
        responses={
            207: {"model": LabelsOut, "description": "Some were refused; the others are accepted."},
            400: {"model": LabelsOut | Refusal, "description": "None was accepted, or the body is none."},
            404: {"model": Refusal, "description": "There is no such model."},
            413: {"model": Refusal, "description": f"The body is larger than {MAX_BODY_BYTES >> 20} MiB."},
            415: {"model": Refusal, "description": "The body is not declared to be application/json."},
            422: {"model": Refusal, "description": "The Idempotency-Key was used with another body."},
            503: {"model": Refusal, "description": "Kafka does not answer; try again after `Retry-After` seconds."},
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _body_schema()}},
            }
        },
    )
    async def labels(
        request: Request,
        idempotency_key: Annotated[
            str | None,
            Header(
                description="Any text of your own, up to 255 characters. The same request with the same key, within a "
                "day, has the same answer and no second effect."
            ),
        ] = None,
    ) -> Response:
        """Labels of one model, up to 10,000 in 8 MiB. Accepted means written to Kafka, acknowledged by all replicas.

        Each is accepted or refused by itself; those accepted are written all together or, with status 503, not at all.
        """
        response = await _respond(service, request, idempotency_key)
        _REQUESTS.labels(str(response.status_code)).inc()
        return response

    return app


def _body_schema() -> dict[str, Any]:
    """The schema of a body in one piece: FastAPI, which does not read the body, lists none of its parts."""
    schema = LabelsIn.model_json_schema()
    schema["properties"]["labels"]["items"] = schema.pop("$defs")["LabelIn"]
    return schema


async def _respond(service: LabelService, request: Request, key: str | None) -> Response:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        # A page in a browser can send other types to this machine without asking.
        return _refusal(415, "the body should be JSON, with Content-Type: application/json")
    if key is not None and not (0 < len(key) <= _LONGEST_KEY and key.isprintable()):
        return _refusal(400, f"Idempotency-Key should be 1 to {_LONGEST_KEY} printable characters")
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY_BYTES:
            return _refusal(413, f"the body is larger than {MAX_BODY_BYTES >> 20} MiB: send fewer labels at once")
    try:
        answer, again = await run_in_threadpool(service.answer, bytes(data), key)
    except Conflict as error:
        return _refusal(422, error.message)
    except NotFound as error:
        return _refusal(404, error.message)
    except InvalidInput as error:
        return _refusal(400, error.message)
    except Transient as error:
        _log.warning("labels were not taken", reason=error.message)
        return _refusal(503, "Kafka does not answer; try again", {"Retry-After": str(_AGAIN_S)})
    except TidemillError as error:
        _log.error("labels were not taken", reason=error.message)
        return _refusal(500, "the labels could not be written; the service's log says why")
    headers = {"Idempotent-Replayed": "true"} if again else {}
    return Response(answer, _status(answer), headers, media_type="application/json")


def _refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": reason}, status, headers)


def _status(answer: bytes) -> int:
    counts = msgspec.json.decode(answer, type=_Counts)
    if not counts.refused:
        return 200
    return 207 if counts.accepted else 400


def _read(data: bytes) -> _Body:
    try:
        body = msgspec.json.decode(data, type=_Body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(
            f"the body should be an object with model and labels: {str(error)[:_LONGEST_REASON]}"
        ) from error
    if not 0 < len(body.labels) <= MAX_LABELS:
        raise InvalidInput(f"labels should be 1 to {MAX_LABELS:,} labels, not {len(body.labels):,}")
    return body


def _checked(model: str, check: LabelCheck, rows: list[Any]) -> Made:
    taken: list[Checked] = []
    results: list[dict[str, Any]] = []
    for index, row in enumerate(rows):
        try:
            taken.append(check(_object(row)))
            results.append({"index": index, "status": "accepted"})
        except InvalidInput as refusal:
            results.append({"index": index, "status": "refused", "reason": refusal.message[:_LONGEST_REASON]})
    answer = {"model": model, "accepted": len(taken), "refused": len(rows) - len(taken), "results": results}
    return taken, msgspec.json.encode(answer)


def _object(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise InvalidInput("is no JSON object")
    return row
