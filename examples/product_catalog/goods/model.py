"""All that Tidemill needs to know of this model: how rows become tensors and answers, and how to learn.

Both classes are told their `classes`: those that are declared, and those that runs have adopted since.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np

from tidemill.training.protocols import Answer, Row, Tensors

WORDS = 512
"""Places of words: a title's words are hashed, so that words nobody has seen before have a place, too."""


class Codec:
    """Between rows and tensors; with NumPy alone, because serving imports it."""

    classes: tuple[str, ...] = ()

    def encode(self, rows: Sequence[Row]) -> Tensors:
        """Which words the title has, (n, 512), and the logarithms of price and weight."""
        words = np.zeros((len(rows), WORDS), np.float32)
        for number, row in enumerate(rows):
            words[number, [crc32(word.encode()) % WORDS for word in row["title"].split()]] = 1
        numbers = np.log1p(np.array([(row["price"], row["grams"]) for row in rows], np.float32).reshape(-1, 2))
        return {"words": words, "numbers": numbers}

    def decode(self, outputs: Mapping[str, Any]) -> list[Answer]:
        """The likeliest class."""
        chances = np.exp(outputs["scores"] - outputs["scores"].max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        return [{"class": self.classes[one.argmax()], "confidence": float(one.max())} for one in chances]

    def targets(self, labels: Sequence[Mapping[str, Any]]) -> Tensors:
        """The number of the class."""
        return {"kind": np.array([self.classes.index(label["kind"]) for label in labels], np.int64)}


class Trainer:
    """The torch side: the network, its loss, and for how long."""

    classes: tuple[str, ...] = ()
    epochs, batch_size, learning_rate = 4, 64, 4e-3
    min_steps = 600  # so that fifty products of a new kind are seen often enough

    def module(self) -> Any:
        """A fresh network, with an output for each class."""
        from .network import Sorter

        return Sorter(WORDS, len(self.classes))

    def loss(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> Any:
        """Cross entropy, a little smoothed: some titles mislead."""
        from torch.nn import functional

        return functional.cross_entropy(outputs["scores"], targets["kind"], label_smoothing=0.02)
