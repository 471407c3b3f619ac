"""From rows to a version's files: by torch and the loop here, or by the user's Learner, whatever its library."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.core.errors import Corrupt, UserCodeError
from tidemill.training.export import Exported, compared
from tidemill.training.protocols import Codec, Learner, Row, Tensors
from tidemill.training.tensors import TensorSource
from tidemill.training.user_code import user_code

__all__ = ["Learnt", "learn"]

_SAMPLE = 256
"""Rows on which the ONNX model is compared: more than of torch, because trees are many cases and cost little."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a version is made of."""

    exported: Exported
    weights: bytes
    """Safetensors: what the next version starts from."""


def learn(
    learner: Learner,
    codec: Codec,
    rows: Sequence[Row],
    labels: Sequence[Mapping[str, Any]],
    *,
    seed: int,
    weights: bytes | None = None,
) -> Learnt:
    """Let the user's Learner learn all rows, export it, and compare.

    Args:
        learner: fresh.
        codec: rows and labels to tensors.
        rows: inputs, at least two, oldest first.
        labels: label values, one per row.
        seed: for what the library draws.
        weights: what the champion kept (warm start).

    Raises:
        UserCodeError: the user's code raised, or the ONNX model does not answer as the library does.
        Corrupt: the weights, or the bytes of the ONNX model, are none.
        InvalidInput: the codec refuses a row.
    """
    inputs, wanted = _all(codec, rows, labels)
    before = None if weights is None else _arrays(weights)
    with user_code(learner, "fit"):
        learner.fit(inputs, wanted, seed=seed, before=before)
    with user_code(learner, "to_onnx"):
        model = learner.to_onnx()
    sample = {name: array[:_SAMPLE] for name, array in inputs.items()}
    return Learnt(compared(lambda part: _predicted(learner, part), model, sample, library="predict"), _kept(learner))


def _all(codec: Codec, rows: Sequence[Row], labels: Sequence[Mapping[str, Any]]) -> tuple[Tensors, Tensors]:
    kept = TensorSource(codec, rows, labels, keep_bytes=sys.maxsize).kept
    if kept is None:
        raise AssertionError("a source without a limit keeps everything")
    return kept


def _predicted(learner: Learner, part: Tensors) -> Tensors:
    with user_code(learner, "predict"):
        return _named(learner, "predict", learner.predict(part))


def _kept(learner: Learner) -> bytes:
    from safetensors.numpy import save

    with user_code(learner, "keep"):
        found = _named(learner, "keep", learner.keep())
        return save({name: np.ascontiguousarray(array) for name, array in found.items()})


def _arrays(weights: bytes) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(weights))
    except (SafetensorError, ValueError, KeyError) as error:
        raise Corrupt(f"these are no weights (safetensors): {error}") from error


def _named(learner: Learner, method: str, found: object) -> Tensors:
    if isinstance(found, dict) and all(isinstance(array, np.ndarray) for array in found.values()):
        return found
    who = f"{type(learner).__module__}:{type(learner).__qualname__}.{method}"
    raise UserCodeError(f"{who} should return arrays by name (a dict), not {type(found).__name__}")
