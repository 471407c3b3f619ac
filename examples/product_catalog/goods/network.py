"""The network: a hidden layer over words and numbers, and a head with one row for each class."""

import torch
from torch import Tensor, nn


class Sorter(nn.Module):
    """`words` (n, words) and `numbers` (n, 2) to `scores` (n, classes)."""

    def __init__(self, words: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(words + 2, 32), nn.ReLU())
        self.head = nn.Linear(32, classes)

    def forward(self, words: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        """Answer a batch."""
        return {"scores": self.head(self.body(torch.cat([words, numbers / 5 - 1], dim=1)))}
