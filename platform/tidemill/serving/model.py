"""A version as a KServe model: V1 and V2 requests to rows, answers to responses."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from prometheus_client import Counter

from tidemill.core.clock import Clock
from tidemill.core.errors import InvalidInput, TidemillError
from tidemill.core.ids import new_id
from tidemill.core.telemetry import REGISTRY, get_logger
from tidemill.serving import v2
from tidemill.serving.intake import Refusal
from tidemill.serving.predictor import Answered, Predictor
from tidemill.serving.rows import RequestRow, RowReader
from tidemill.spec.model import ContinualModel

__all__ = ["NO_BOX", "Payload", "Reply", "Requests", "make_model"]

NO_BOX = (-1.0, -1.0, -1.0, -1.0)
"""In V2, where a tensor has no null: nothing was found."""
_OUTPUTS = {
    "classification": ("class", "confidence"),
    "detection": ("class", "confidence", "box"),
    "regression": ("value",),
}
_TEXTS = ("prediction_id", "version", "class")
_PLATFORM = "onnx_onnxv1"

_log = get_logger(__name__)
_REQUESTS = Counter(
    "tidemill_predict_requests_total",
    "Requests, by what became of them: answered, refused (the request's fault) or failed (ours).",
    ["version", "result"],
    registry=REGISTRY,
)


class Payload(NamedTuple):
    """A predict request as it came."""

    is_v2: bool
    body: bytes
    request_id: str | None
    """Of the header `x-request-id`."""
    json_length: str | None = None
    """Of the header `v2.HEADER_LENGTH`."""
    cohort: str | None = None
    """The key that rollouts assign (`rollout.cohorts`), where it came with the request."""
    is_copy: bool = False
    """Whether somebody else answers the user."""


class Reply(NamedTuple):
    """A response."""

    body: bytes
    json_length: int | None = None
    """Of the JSON in front, where tensors follow."""


class Requests:
    """Answers requests of both protocols, one at a time, in a thread of its own: the event loop is never held up.

    Args:
        resource: the model.
        name: its name in predict paths.
        reader: checks rows.
        predictor: answers them.
        clock: when a request arrived.
    """

    def __init__(
        self, resource: ContinualModel, *, name: str, reader: RowReader, predictor: Predictor, clock: Clock
    ) -> None:
        self.name, self.reader, self.version = name, reader, predictor.version
        self.outputs = ("prediction_id", "version", *_OUTPUTS[resource.spec.prediction.type])
        """Names of what an answer has."""
        self._predictor, self._clock = predictor, clock
        self._thread = ThreadPoolExecutor(1, "predict")
        results = ("answered", "refused", "failed")
        self._counted = {result: _REQUESTS.labels(predictor.version, result) for result in results}

    async def answer(self, payload: Payload) -> Reply:
        """The response of one request.

        Raises `InvalidInput` for one that does not fit, and `Refusal` (500) for one that the model could not answer.
        """
        now = self._clock.now()
        try:
            if self.reader.fetches:  # others are not to wait for a picture that is somewhere else
                asked, rows = await asyncio.to_thread(self._read, payload)
            else:
                asked, rows = None, None
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, payload, asked, rows, now)
        except InvalidInput:
            raise
        except Exception as error:
            _tell(error, payload.request_id)
            raise Refusal(500, "the model could not answer; its log says why") from error

    def cohort_of(self, headers: Mapping[str, str]) -> str | None:
        """The key that rollouts assign, by the headers in lower case; None where there is none."""
        return self._predictor.cohort_of(headers)

    def is_copy(self, headers: Mapping[str, str]) -> bool:
        """Whether a request with these headers, in lower case, is a copy of one that another version answers."""
        return self._predictor.is_copy(headers)

    def count(self, result: str) -> None:
        """Count a request: `answered`, `refused` or `failed`."""
        self._counted[result].inc()

    def tensors(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Inputs and outputs, as V2's metadata describe them."""
        inputs = [_tensor(name, datatype) for name, datatype in self.reader.datatypes.items()]
        outputs = [_tensor(name, "BYTES" if name in _TEXTS else "FP64") for name in self.outputs]
        for one in outputs:
            one["shape"] += [4] if one["name"] == "box" else []
        return inputs, outputs

    def stop(self) -> None:
        """End its thread."""
        self._thread.shutdown()

    def _read(self, payload: Payload) -> tuple[v2.V2Request | None, list[RequestRow]]:
        if payload.is_v2:
            asked = v2.read(payload.body, payload.json_length, self.outputs)
            return asked, self.reader.from_columns(asked.columns)
        return None, self.reader.read_json(payload.body)

    def _work(
        self, payload: Payload, asked: v2.V2Request | None, rows: list[RequestRow] | None, now: datetime
    ) -> Reply:
        if rows is None:
            asked, rows = self._read(payload)
        request_id = (asked.id if asked else None) or payload.request_id or new_id(now)
        answered = self._predictor.answer(
            rows, request_id=request_id, now=now, cohort=payload.cohort, is_copy=payload.is_copy
        )
        if asked is None:
            return Reply(msgspec.json.encode({"predictions": [_flat(one) for one in answered]}))
        head = {"model_name": self.name, "model_version": self.version, "id": request_id}
        return Reply(*v2.write(asked, head, {name: _column(name, answered) for name in asked.outputs}))


def make_model(parts: Any, requests: Requests) -> Any:
    """The KServe model that answers with `requests`; ready from the start.

    Args:
        parts: KServe's classes (`kserve_parts`).
        requests: who answers.
    """

    class VersionModel(parts.Model):  # type: ignore[misc]  # KServe has no types
        def __init__(self) -> None:
            super().__init__(requests.name)
            self.ready = True

        async def predict(self, payload: Payload, headers: Mapping[str, str] | None = None) -> Reply:
            return await requests.answer(payload)

        def metadata(self) -> dict[str, Any]:
            inputs, outputs = requests.tensors()
            return {
                "name": requests.name,
                "versions": [requests.version],
                "platform": _PLATFORM,
                "inputs": inputs,
                "outputs": outputs,
            }

        def stop(self) -> None:
            requests.stop()

    return VersionModel()


def _flat(one: Answered) -> dict[str, Any]:
    return {"prediction_id": one.prediction_id, "version": one.version, **one.output}


def _column(name: str, answered: Sequence[Answered]) -> v2.Column:
    count = len(answered)
    if name == "box":
        return v2.Column("FP64", [count, 4], [side for one in answered for side in (one.output["box"] or NO_BOX)])
    if name in {"prediction_id", "version"}:
        return v2.Column("BYTES", [count], [getattr(one, name) for one in answered])
    return v2.Column("BYTES" if name in _TEXTS else "FP64", [count], [one.output[name] for one in answered])


def _tensor(name: str, datatype: str) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [-1]}


def _tell(error: Exception, request_id: str | None) -> None:
    """In words where they are ours; with its traceback where it is a bug."""
    if isinstance(error, TidemillError):
        _log.error("no answer", request=request_id, reason=error.message)
    else:
        _log.error("no answer", request=request_id, exc_info=error)
