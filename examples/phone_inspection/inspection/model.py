"""All that Tidemill needs to know of this model: how rows become tensors and answers, and how to learn."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from tidemill.training.protocols import Answer, Row, Tensors


class Codec:
    """Between rows and tensors; with NumPy alone, because serving imports it."""

    def encode(self, rows: Sequence[Row]) -> Tensors:
        """Pictures, as (n, 64, 64, 3) bytes."""
        return {"image": np.stack([np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB")) for row in rows])}

    def decode(self, outputs: Mapping[str, Any]) -> list[Answer]:
        """`scratch` and where it is, or `ok`."""
        chances, boxes = 1 / (1 + np.exp(-outputs["score"])), outputs["box"]
        return [
            {"class": "scratch", "confidence": float(chance), "box": box.astype(float).round(1).tolist()}
            if chance > 0.5
            else {"class": "ok", "confidence": float(1 - chance), "box": None}
            for chance, box in zip(chances, boxes, strict=True)
        ]

    def targets(self, labels: Sequence[Mapping[str, Any]]) -> Tensors:
        """What the final check found."""
        scratched = np.array([label["defect"] == "scratch" for label in labels], np.float32)
        return {"scratched": scratched, "box": np.array([label["box"] or [0] * 4 for label in labels], np.float32)}


class Trainer:
    """The torch side: the network, its loss, and for how long."""

    epochs, batch_size, learning_rate = 4, 32, 4e-3
    min_steps = 400  # what a retrain on the first pictures in a new light needs

    def module(self) -> Any:
        """A fresh network."""
        from .network import Detector

        return Detector()

    def loss(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> Any:
        """Is there a scratch; and where there is one, how far off is the box, in pixels."""
        from torch.nn import functional

        off = functional.smooth_l1_loss(outputs["box"], targets["box"], beta=2.0, reduction="none").mean(1)
        missed = functional.binary_cross_entropy_with_logits(outputs["score"], targets["scratched"])
        return missed + 0.2 * (off * targets["scratched"]).mean()
