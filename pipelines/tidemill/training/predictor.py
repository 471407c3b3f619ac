"""A version that answers rows: verified, then ONNX Runtime with the user's Codec around it. Imports no torch."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from tidemill.artifacts import Manifest, read, verify
from tidemill.core.errors import InvalidInput, UserCodeError
from tidemill.training.protocols import Answer, Row
from tidemill.training.session import open_session
from tidemill.training.tensors import encode
from tidemill.training.user_code import load_codec, user_code

__all__ = ["OnnxModel", "check_answers"]

_BATCH = 256
_BOX_SIDES = 4


class OnnxModel:
    """Loads a version and answers rows with it; safe to call from several threads if the Codec is.

    Args:
        folder: the version's directory.
        threads: CPU threads of one inference.
        batch: most rows in one inference.

    Raises:
        NotFound, Corrupt: there is no such version, or one of its files is not the one that was written.
        UserCodeError: its Codec cannot be loaded.
    """

    def __init__(self, folder: Path, *, threads: int = 1, batch: int = _BATCH) -> None:
        self.manifest: Manifest = verify(folder)
        self._codec = load_codec(self.manifest.codec, self.manifest.prediction.classes)
        self._session = open_session(read(folder, self.manifest, "model.onnx"), threads=threads)
        self._inputs = [spec.name for spec in self.manifest.inputs]
        self._outputs = [spec.name for spec in self.manifest.outputs]
        self._batch = batch

    @property
    def version(self) -> str:
        """The version that answers."""
        return self.manifest.version

    def answers(self, rows: Sequence[Row]) -> list[Answer]:
        """One answer per row, in order.

        Raises:
            InvalidInput: the codec refuses a row.
            UserCodeError: the codec raised, or what it made is no answer.
        """
        found: list[Answer] = []
        for start in range(0, len(rows), self._batch):
            found.extend(self._answer(rows[start : start + self._batch]))
        return found

    def _answer(self, rows: Sequence[Row]) -> list[Answer]:
        tensors = encode(self._codec, rows)
        missing = [name for name in self._inputs if name not in tensors]
        if missing:
            raise UserCodeError(f"{self.manifest.codec}.encode lacks the model's input {', '.join(missing)}")
        feed = {name: tensors[name] for name in self._inputs}
        try:
            raw = self._session.run(self._outputs, feed)
        except Exception as error:  # a row of another size than the model takes: generated types, no common base
            raise InvalidInput(f"the model cannot take these rows: {error}") from error
        outputs: Mapping[str, NDArray[np.generic]] = dict(zip(self._outputs, raw, strict=True))
        with user_code(self._codec, "decode"):
            answers = self._codec.decode(outputs)
        check_answers(answers, self.manifest, len(rows))
        return answers


def check_answers(answers: Any, manifest: Manifest, rows: int) -> None:
    """Raise `UserCodeError` unless these are `rows` answers as the manifest's prediction declares them."""
    who = f"{manifest.codec}.decode"
    if not isinstance(answers, list) or len(answers) != rows:
        count = f"{len(answers)} answers" if isinstance(answers, list) else type(answers).__name__
        raise UserCodeError(f"{who} should return a list of {rows} answers, not {count}")
    for answer in answers:
        if problem := _problem(answer, manifest):
            raise UserCodeError(f"{who} returned {answer!r}: {problem}")


def _problem(answer: Any, manifest: Manifest) -> str | None:
    if not isinstance(answer, dict):
        return "an answer is a dict"
    if manifest.prediction.type == "regression":
        return None if _is_finite(answer.get("value")) else "value should be a number"
    if answer.get("class") not in manifest.prediction.classes:
        return f"class should be one of {', '.join(manifest.prediction.classes)}"
    confidence = answer.get("confidence")
    if not _is_finite(confidence) or not 0 <= confidence <= 1:
        return "confidence should be a number in [0, 1]"
    if manifest.prediction.type == "detection" and answer.get("box") is not None:
        box = answer["box"]
        if not isinstance(box, list | tuple) or len(box) != _BOX_SIDES or not all(map(_is_finite, box)):
            return "box should be [x0, y0, x1, y1] or None"
    return None


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
