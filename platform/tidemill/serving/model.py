"""A version as a KServe model: V1 and V2 requests to rows, answers to responses, errors to statuses."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from prometheus_client import Counter

from tidemill.core.clock import Clock
from tidemill.core.errors import InvalidInput, TidemillError
from tidemill.core.ids import new_id
from tidemill.core.telemetry import REGISTRY, get_logger
from tidemill.serving.predictor import Answered, Predictor
from tidemill.serving.rows import RequestRow, RowReader

__all__ = ["NO_BOX", "Requests", "make_model"]

NO_BOX = (-1.0, -1.0, -1.0, -1.0)
"""In V2, where a tensor has no null: nothing was found."""

_log = get_logger(__name__)
_REQUESTS = Counter(
    "tidemill_predict_requests_total",
    "Requests, by what became of them: answered, refused (the request's fault) or failed (ours).",
    ["version", "result"],
    registry=REGISTRY,
)


class Requests:
    """Answers requests of both protocols, one at a time, in a thread of its own: the event loop is never held up.

    Args:
        parts: KServe's classes (`kserve_parts`).
        name: the model's, as it stands in predict paths.
        reader: checks rows.
        predictor: answers them.
        clock: when a request arrived.
    """

    def __init__(self, parts: Any, *, name: str, reader: RowReader, predictor: Predictor, clock: Clock) -> None:
        self.parts, self.name, self.reader = parts, name, reader
        self._predictor, self._clock = predictor, clock
        self._thread = ThreadPoolExecutor(1, "predict")
        results = ("answered", "refused", "failed")
        self._counted = {result: _REQUESTS.labels(predictor.version, result) for result in results}

    async def answer(self, payload: Any, headers: Mapping[str, str] | None) -> Any:
        """The response of one request; raises KServe's `InvalidInput` (400) and `InferenceError` (500)."""
        now = self._clock.now()
        is_v2 = isinstance(payload, self.parts.InferRequest)
        request_id = (payload.id if is_v2 else None) or (headers or {}).get("x-request-id") or new_id(now)

        def read() -> list[RequestRow]:
            return _rows_of_v2(payload, self.reader) if is_v2 else _rows_of_v1(payload, self.reader)

        def work(rows: list[RequestRow] | None) -> list[Answered]:
            cohort = self._predictor.cohort_of(headers)
            return self._predictor.answer(
                read() if rows is None else rows, request_id=request_id, now=now, cohort=cohort
            )

        try:
            rows = await asyncio.to_thread(read) if self.reader.fetches else None  # others are not to wait for it
            answered = await asyncio.get_running_loop().run_in_executor(self._thread, work, rows)
        except InvalidInput as error:
            self._counted["refused"].inc()
            raise self.parts.InvalidInput(error.message) from error
        except Exception as error:
            self._counted["failed"].inc()
            _tell(error, request_id)
            raise self.parts.InferenceError("the model could not answer; its log says why") from error
        self._counted["answered"].inc()
        return _v2(self.parts, self.name, payload, answered, request_id) if is_v2 else _v1(answered)

    def stop(self) -> None:
        """End its thread."""
        self._thread.shutdown()


def make_model(requests: Requests) -> Any:
    """The KServe model that answers with `requests`; ready from the start."""

    class VersionModel(requests.parts.Model):  # type: ignore[misc,name-defined]  # KServe has no types
        def __init__(self) -> None:
            super().__init__(requests.name)
            self.ready = True

        async def predict(self, payload: Any, headers: Mapping[str, str] | None = None) -> Any:
            return await requests.answer(payload, headers)

        def get_input_types(self) -> list[dict[str, Any]]:
            return [{"name": one, "datatype": "BYTES", "shape": [-1]} for one in requests.reader.names]

        def stop(self) -> None:
            requests.stop()

    return VersionModel()


def _rows_of_v1(payload: Any, reader: RowReader) -> list[RequestRow]:
    if isinstance(payload, bytes):  # KServe decodes a short list of content types only
        try:
            payload = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidInput(f"the request is no JSON: {error}") from error
    if not isinstance(payload, dict):
        raise InvalidInput('the request must be an object that holds "instances": a list of rows')
    return reader.read(payload.get("instances"))


def _rows_of_v2(request: Any, reader: RowReader) -> list[RequestRow]:
    columns = {one.name: _column(one) for one in request.inputs if one.name in reader.names}
    return reader.from_columns(columns)


def _column(tensor: Any) -> list[Any]:
    """A V2 input as a list; a picture in it is base64, as in V1."""
    try:
        return list(tensor.as_numpy().reshape(-1).tolist())
    except Exception as error:  # KServe and NumPy raise whatever a wrong shape or datatype leads to
        raise InvalidInput(f"input {tensor.name}: {tensor.datatype} of shape {tensor.shape}: {error}") from error


def _v1(answered: Sequence[Answered]) -> dict[str, Any]:
    return {
        "predictions": [{"prediction_id": one.prediction_id, "version": one.version, **one.output} for one in answered]
    }


def _v2(parts: Any, name: str, request: Any, answered: Sequence[Answered], request_id: str) -> Any:
    count = len(answered)
    columns: dict[str, tuple[str, list[int], list[Any]]] = {
        "prediction_id": ("BYTES", [count], [one.prediction_id for one in answered]),
        "version": ("BYTES", [count], [one.version for one in answered]),
        "class": ("BYTES", [count], [one.output["class"] for one in answered]),
        "confidence": ("FP64", [count], [one.output["confidence"] for one in answered]),
    }
    if answered and "box" in answered[0].output:
        sides = [side for one in answered for side in (one.output["box"] or NO_BOX)]
        columns["box"] = ("FP64", [count, 4], sides)
    return parts.InferResponse(
        response_id=request_id,
        model_name=name,
        model_version=answered[0].version if answered else None,
        infer_outputs=[
            parts.InferOutput(name=one, datatype=datatype, shape=shape, data=data)
            for one, (datatype, shape, data) in columns.items()
        ],
        requested_outputs=request.request_outputs,
        use_binary_outputs=request.use_binary_outputs,
    )


def _tell(error: Exception, request_id: str) -> None:
    """In words where they are ours; with its traceback where it is a bug."""
    if isinstance(error, TidemillError):
        _log.error("no answer", request=request_id, reason=error.message)
    else:
        _log.error("no answer", request=request_id, exc_info=error)
