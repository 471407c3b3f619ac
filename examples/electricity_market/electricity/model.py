"""All that Tidemill needs to know of this model: how rows become tensors and answers, and how to learn."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tidemill.training.protocols import Answer, Row, Tensors

_DAYS, _WAVES = 7, 3
INPUTS = 5 + 2 * _WAVES + _DAYS + 1


class Codec:
    """Between rows and tensors; with NumPy alone, because serving imports it.

    Prices are skewed, so their logarithms are taken; centre and scale are round numbers near those of the file's first
    quarter, the same for both states.
    """

    def encode(self, rows: Sequence[Row]) -> Tensors:
        """Market, time of day, day of the week and the newest label that is known, as (n, INPUTS) floats."""
        prices = _column(rows, "nswprice", "vicprice")
        loads = _column(rows, "nswdemand", "vicdemand", "transfer")
        angle = 2 * np.pi * _column(rows, "period") * np.arange(1, _WAVES + 1)
        days = np.eye(_DAYS)[[int(row["day"]) for row in rows]]
        known = [[{"up": 1.0, "down": -1.0}.get(row["known_2h"], 0.0)] for row in rows]
        parts = [(np.log(prices + 0.01) + 2.6) * 3, (loads - 0.42) * 5, np.sin(angle), np.cos(angle), days, known]
        return {"x": np.concatenate(parts, axis=1).astype(np.float32)}

    def decode(self, outputs: Mapping[str, Any]) -> list[Answer]:
        """`up` or `down`, and how sure it is."""
        chances = 1 / (1 + np.exp(-outputs["score"].astype(float)))
        return [
            {"class": "up" if chance > 0.5 else "down", "confidence": float(max(chance, 1 - chance))}
            for chance in chances
        ]

    def targets(self, labels: Sequence[Mapping[str, Any]]) -> Tensors:
        """1 where the price was above its mean of the day before."""
        return {"up": np.array([label["direction"] == "up" for label in labels], np.float32)}


class Trainer:
    """The torch side: the network, its loss, and for how long."""

    epochs, batch_size, learning_rate = 4, 64, 5e-4  # chosen within the first quarter of the file
    min_steps = 50

    def module(self) -> Any:
        """A fresh network: two hidden layers."""
        from torch import nn

        class Market(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.Sequential(
                    nn.Linear(INPUTS, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)
                )

            def forward(self, x: Any) -> dict[str, Any]:
                return {"score": self.layers(x).squeeze(1)}

        return Market()

    def loss(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> Any:
        """Cross entropy."""
        from torch.nn import functional

        return functional.binary_cross_entropy_with_logits(outputs["score"], targets["up"])


def _column(rows: Sequence[Row], *names: str) -> Any:
    return np.array([[float(row[name]) for name in names] for row in rows])
