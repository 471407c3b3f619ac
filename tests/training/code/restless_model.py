"""A model whose next batch depends on all that there is: dropout, batch statistics, and three sources of chance.

`RESTLESS_KILL` in the environment names the batch in which the process kills itself, as a node that fails does.
"""

import os
import random
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


class Trainer:
    epochs = 4
    batch_size = 32
    learning_rate = 0.02

    def __init__(self) -> None:
        self.kill = int(os.environ.get("RESTLESS_KILL", "0"))
        self.batches = 0

    def module(self) -> "torch.nn.Module":
        import torch

        class Net(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = torch.nn.Sequential(
                    torch.nn.Flatten(),
                    torch.nn.Linear(64, 8),
                    torch.nn.BatchNorm1d(8),
                    torch.nn.Dropout(0.3),
                    torch.nn.Linear(8, 2),
                )

            def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
                return {"logits": self.layers(image)}

        return Net()

    def loss(self, outputs: "Mapping[str, torch.Tensor]", targets: "Mapping[str, torch.Tensor]") -> "torch.Tensor":
        self.batches += 1
        if self.batches == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        import torch

        scale = 1 + 0.1 * random.random() + 0.1 * np.random.rand()
        return scale * torch.nn.functional.cross_entropy(outputs["logits"], targets["class"])
