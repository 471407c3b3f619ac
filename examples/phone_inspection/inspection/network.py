"""The network: convolutions down to 8 x 8 cells, each of which has a score and a guess at the box."""

import torch
from torch import Tensor, nn


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Detector(nn.Module):
    """Pictures (n, 64, 64, 3) to `score` (n), a logit, and `box` (n, 4), in pixels.

    The box is the mean of the cells' guesses, weighted by their scores: the cells that see a scratch decide.
    """

    def __init__(self) -> None:
        super().__init__()
        layers = (
            _layer(3, 12, 2),
            _layer(12, 24, 2),
            _layer(24, 24),
            _layer(24, 48, 2),
            _layer(48, 48),
            _layer(48, 48),
        )
        self.cells = nn.Sequential(*layers, nn.Conv2d(48, 5, 1))
        middle = torch.arange(8) * 8.0 + 4
        self.register_buffer("middles", torch.stack([middle.repeat(8), middle.repeat_interleave(8)] * 2))
        self.middles: Tensor

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Answer a batch."""
        cells = self.cells(image.permute(0, 3, 1, 2) / 255 - 0.5).flatten(2)
        scores, guesses = cells[:, 0], self.middles + 32 * cells[:, 1:]
        return {"score": scores.logsumexp(1) - 4, "box": (guesses * scores.softmax(1)[:, None]).sum(2)}
