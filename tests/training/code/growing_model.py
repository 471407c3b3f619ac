"""A user's code that is told its classes: pictures of 8 x 8 pixels by their brightness, a class for each level."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tiny_model import Codec as TinyCodec
from tiny_model import Trainer as TinyTrainer

if TYPE_CHECKING:
    import torch


class Codec(TinyCodec):
    classes: tuple[str, ...] = ()

    def decode(self, outputs: Mapping[str, Any]) -> list[dict[str, Any]]:
        scores = np.exp(outputs["logits"] - outputs["logits"].max(axis=1, keepdims=True))
        shares = scores / scores.sum(axis=1, keepdims=True)
        return [{"class": self.classes[share.argmax()], "confidence": float(share.max())} for share in shares]

    def targets(self, labels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {"class": np.array([self.classes.index(label["defect"]) for label in labels], dtype=np.int64)}


class Trainer(TinyTrainer):
    classes: tuple[str, ...] = ()
    min_steps = 100

    def module(self) -> "torch.nn.Module":
        import torch

        net = super().module()
        net.layers[3] = torch.nn.Linear(self.hidden, len(self.classes))  # type: ignore[operator]
        return net


class Fixed(TinyTrainer):
    """Not told its classes."""
