"""The code of the model that is served: one number in, one class out; it costs next to nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["Codec"]


class Codec:
    """`exposure_ms` above 500 is a scratch."""

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The model's input, [n, 1]."""
        return {"mean": np.array([[row["exposure_ms"] / 1000] for row in rows], dtype=np.float32)}

    def decode(self, outputs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Class and confidence of each row."""
        scores = outputs["score"][:, 0].tolist()
        return [
            {"class": "scratch", "confidence": one} if one > 0.5 else {"class": "ok", "confidence": 1 - one}
            for one in scores
        ]

    def targets(self, labels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """It is never trained."""
        raise NotImplementedError
