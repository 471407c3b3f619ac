"""Rows to answers, without HTTP: features, model, and the record of each answer."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec
from prometheus_client import Counter, Histogram

from tidemill.core.clock import to_ms
from tidemill.core.ids import new_id
from tidemill.core.telemetry import REGISTRY
from tidemill.events.records import Prediction
from tidemill.features.rows import Value
from tidemill.serving.features import FeatureRow, OnlineFeatures, PictureStatistics, RowFeatures
from tidemill.serving.log import PredictionLog
from tidemill.serving.rows import RequestRow
from tidemill.spec.model import ContinualModel
from tidemill.spec.paths import MIRROR_HEADER

__all__ = ["Answered", "Answers", "Predictor"]

_REQUEST = "request"
"""The cohort key of a model whose requests are assigned by chance."""

_PREDICTIONS = Counter("tidemill_predictions_total", "Rows answered.", ["version"], registry=REGISTRY)
_COPIES = Counter(
    "tidemill_copies_total",
    "Rows of copies of requests answered: no user got these answers.",
    ["version"],
    registry=REGISTRY,
)
_SECONDS = Histogram(
    "tidemill_predict_seconds",
    "Features, model and record of one request, without HTTP.",
    ["version"],
    registry=REGISTRY,
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
)


class Answers(Protocol):
    """What answers rows; `tidemill.training.predictor.OnnxModel` is one."""

    def answers(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One answer per row; raises `InvalidInput` for a row that is refused, `UserCodeError` for code that fails."""
        ...


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """One answer: what the model said, and the id that a label may name."""

    prediction_id: str
    version: str
    output: dict[str, Any]


class Predictor:
    """Answers rows of one version and hands each to the log. Used by one thread.

    Args:
        resource: what it answers (class, box or number).
        version: who answers.
        model: the model.
        features: the online features.
        log: the prediction log.
        copies: the log of answers to copies of requests, where `rollout.shadow` may send some.
        service: the features of the user's own FeatureService, where the resource names one.
    """

    def __init__(
        self,
        resource: ContinualModel,
        *,
        version: str,
        model: Answers,
        features: OnlineFeatures,
        log: PredictionLog,
        copies: PredictionLog | None = None,
        service: RowFeatures | None = None,
    ) -> None:
        self.version = version
        self._seconds, self._answered = _SECONDS.labels(version), _PREDICTIONS.labels(version)
        self._copies, self._copied = copies, _COPIES.labels(version)
        self._kind = resource.spec.prediction.type
        self._model, self._features, self._log, self._service = model, features, log, service
        self._pictures = PictureStatistics(resource)
        self._cohort = resource.spec.rollout.cohorts.key
        self._redacted = list(resource.spec.serving.log.redact)

    def answer(
        self,
        rows: Sequence[RequestRow],
        *,
        request_id: str,
        now: datetime,
        cohort: str | None = None,
        is_copy: bool = False,
    ) -> list[Answered]:
        """One answer per row, in order; nothing is logged of a request that fails.

        `cohort` is the key that the request carried. `now` is when the request arrived: all rows of a request carry
        it, and the rollout counts them by it. Their ids are in the rows' order, by which a copy's rows are told.
        Raises `InvalidInput`, `UserCodeError`.
        """
        with self._seconds.time():
            measured = self._pictures.of([row.values for row in rows])
            found = self._features_of(rows, to_ms(now))
            used = [one | other.values for one, other in zip(measured, found, strict=True)]
            answers = self._model.answers([row.values | values for row, values in zip(rows, used, strict=True)])
            answered = [
                Answered(prediction_id=name, version=self.version, output=self._output(answer))
                for name, answer in zip(sorted(new_id(now) for _ in answers), answers, strict=True)
            ]
            records = zip(rows, used, found, answered, strict=True)
            told = {"request_id": request_id, "cohort": cohort}
            log = self._copies if is_copy and self._copies is not None else self._log
            log.put([self._record(*one, told, now=now) for one in records])
        (self._answered if log is self._log else self._copied).inc(len(answered))
        return answered

    def is_copy(self, headers: Mapping[str, str]) -> bool:
        """Whether the answer to a request with these headers, in lower case, reaches no user (`rollout.shadow`)."""
        return self._copies is not None and headers.get(MIRROR_HEADER) == self.version

    def cohort_of(self, headers: Mapping[str, str] | None) -> str | None:
        """The key that rollouts assign (`rollout.cohorts`); None where requests are assigned, or this one has none."""
        return None if self._cohort == _REQUEST else (headers or {}).get(self._cohort) or None

    def _features_of(self, rows: Sequence[RequestRow], now_ms: int) -> list[FeatureRow]:
        features = self._features.of([row.entity for row in rows], now_ms)
        if self._service is None:
            return features
        return [own.joined(other) for own, other in zip(features, self._service.of(rows), strict=True)]

    def _output(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """What the spec declares of an answer, in plain numbers: NumPy's have no JSON."""
        if self._kind == "regression":
            return {"value": float(answer["value"])}
        output: dict[str, Any] = {"class": str(answer["class"]), "confidence": float(answer["confidence"])}
        if self._kind == "detection":
            box = answer.get("box")
            output["box"] = None if box is None else [float(side) for side in box]
        return output

    def _kept(self, values: dict[str, Any]) -> dict[str, Any]:
        """Without what the resource leaves out of the log: a name that is missing is never taken for a value."""
        if not self._redacted:
            return values
        return {name: value for name, value in values.items() if name not in self._redacted}

    def _record(
        self,
        row: RequestRow,
        used: dict[str, Value],
        found: FeatureRow,
        answered: Answered,
        told: Mapping[str, str | None],
        *,
        now: datetime,
    ) -> Prediction:
        return Prediction(
            prediction_id=answered.prediction_id,
            version=self.version,
            entity=row.entity,
            time=to_ms(now),
            output=self._kept(answered.output),
            event_id=row.event_id,
            request_id=told["request_id"],
            cohort=told["cohort"],
            features=self._kept(used),
            feature_status=found.status,
            feature_statuses=found.statuses,
            fence=found.fence,
            redacted=self._redacted,
            boot="",  # the log numbers it
            seq=0,
        )
