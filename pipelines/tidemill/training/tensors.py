"""Rows and labels as tensors, through the user's Codec: encoded once where that fits into memory, else each epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import InvalidInput, UserCodeError
from tidemill.training.protocols import Codec, Row, Tensors
from tidemill.training.user_code import user_code

__all__ = ["TensorSource", "encode", "targets"]

_MAX_KEPT_BYTES = 1 << 30
_CHUNK = 256

Batch = tuple[Tensors, Tensors]


def encode(codec: Codec, rows: Sequence[Row]) -> Tensors:
    """Input tensors, batch first. Raises `InvalidInput` for a row that cannot be one, `UserCodeError` otherwise.

    ValueError is the protocol's way to refuse a row; OSError is Pillow's, for what is no picture.
    """
    try:
        with user_code(codec, "encode"):
            found = codec.encode(rows)
    except UserCodeError as error:
        if isinstance(error.__cause__, ValueError | OSError):
            raise InvalidInput(f"a row that the codec refuses: {error.__cause__}") from error
        raise
    return _checked(codec, "encode", found, len(rows))


def targets(codec: Codec, labels: Sequence[Mapping[str, Any]]) -> Tensors:
    """Target tensors, batch first; raises `UserCodeError`."""
    with user_code(codec, "targets"):
        found = codec.targets(labels)
    return _checked(codec, "targets", found, len(labels))


class TensorSource:
    """Training data by row number.

    Args:
        codec: the user's.
        rows: inputs.
        labels: label values, one per row.
        keep_bytes: encoded rows up to this size are kept for all epochs.
    """

    def __init__(
        self,
        codec: Codec,
        rows: Sequence[Row],
        labels: Sequence[Mapping[str, Any]],
        *,
        keep_bytes: int = _MAX_KEPT_BYTES,
    ) -> None:
        self._codec, self._rows, self._labels = codec, rows, labels
        first = self._encoded(range(min(_CHUNK, len(rows))))
        size = sum(array.nbytes for tensors in first for array in tensors.values())
        per_row = size / max(1, min(_CHUNK, len(rows)))
        self._kept = self._encode_all(first) if per_row * len(rows) <= keep_bytes else None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def kept(self) -> Batch | None:
        """All inputs and targets, where they are kept."""
        return self._kept

    def batch(self, numbers: NDArray[np.int64]) -> Batch:
        """Inputs and targets of the numbered rows."""
        if self._kept is None:
            return self._encoded(numbers.tolist())
        inputs, wanted = self._kept
        return {k: v[numbers] for k, v in inputs.items()}, {k: v[numbers] for k, v in wanted.items()}

    def _encoded(self, numbers: Sequence[int]) -> Batch:
        rows = [self._rows[number] for number in numbers]
        return encode(self._codec, rows), targets(self._codec, [self._labels[number] for number in numbers])

    def _encode_all(self, first: Batch) -> Batch:
        """All rows, chunk by chunk into arrays of the final size, so that no copy of the whole is made."""
        full: Batch = tuple(  # type: ignore[assignment]
            {name: np.empty((len(self._rows), *array.shape[1:]), array.dtype) for name, array in tensors.items()}
            for tensors in first
        )
        for start in range(0, len(self._rows), _CHUNK):
            stop = min(start + _CHUNK, len(self._rows))
            part = first if start == 0 else self._encoded(range(start, stop))
            for whole, piece in zip(full, part, strict=True):
                for name, array in piece.items():
                    whole[name][start:stop] = array
        return full


def _checked(codec: Codec, method: str, found: Tensors, rows: int) -> Tensors:
    who = f"{type(codec).__module__}:{type(codec).__qualname__}.{method}"
    if not isinstance(found, dict) or not found:
        raise UserCodeError(f"{who} should return tensors by name, not {type(found).__name__}")
    for name, array in found.items():
        if not isinstance(array, np.ndarray) or array.ndim == 0 or len(array) != rows:
            shape = getattr(array, "shape", type(array).__name__)
            raise UserCodeError(f"{who}: {name} should be an array of {rows} rows, batch first, not {shape}")
    return found
