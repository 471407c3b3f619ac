"""The same trainer and codec without the loop: never trained again, or at fixed times, served at once, without a gate.

Training is the product's `fit`, warm from the version before: on what is new and on a sample of what is older, as a
run's snapshot has it, but with no rows held out. What is answered is the torch module's.
"""

import time
from typing import Any

import numpy as np

from electricity.model import Codec, Trainer
from electricity.rows import DELAY, Market
from tidemill.training.dataset import MIN_TRAIN_ROWS
from tidemill.training.fit import fit
from tidemill.training.weights import save_weights

__all__ = ["Retrained"]

REPLAY = 0.3
"""Share of the training rows that are older ones, where that makes at least `MIN_TRAIN_ROWS`."""


class Retrained:
    """Retrains every so many rows.

    Args:
        market: the rows.
        every: rows between two trainings; None: the first version stays.
        seed: of weights, order and sample.
    """

    def __init__(self, market: Market, *, every: int | None, seed: int = 0) -> None:
        self.runs, self.seconds = -1, 0.0
        self._market, self._every, self._seed = market, every, seed
        self._known = self._since = 0
        self._weights: bytes | None = None
        self._codec, self._trainer = Codec(), Trainer()

    def begin(self, row: int) -> None:
        """History is there; the first version is made with the first label that comes."""
        self._since = row - DELAY

    def tell(self, row: int) -> None:
        """Train, where it is time."""
        passed = row - self._since
        if passed == 0 or (self._every is not None and passed % self._every == 0):
            self._train(row + 1)

    def answer(self, row: int) -> str:
        """The module's answer."""
        import torch

        with torch.inference_mode():
            x = torch.from_numpy(self._codec.encode([self._market.rows[row]])["x"])
            outputs = {name: value.numpy() for name, value in self._module(x).items()}
        return str(self._codec.decode(outputs)[0]["class"])

    def _train(self, known: int) -> None:
        rng = np.random.default_rng((self._seed, known))
        new = np.arange(self._known, known)
        wanted = max(round(len(new) * REPLAY / (1 - REPLAY)), MIN_TRAIN_ROWS - len(new))
        older = rng.choice(self._known, min(wanted, self._known), replace=False)
        numbers = np.sort(np.concatenate([older, new]).astype(int)).tolist()
        rows = [self._market.rows[number] for number in numbers]
        labels = [{"direction": self._market.directions[number]} for number in numbers]
        begun = time.process_time()
        fitted = fit(self._trainer, self._codec, rows, labels, seed=int(rng.integers(2**31)), weights=self._weights)
        self._module: Any = fitted.module
        self._weights = save_weights(fitted.module)
        self.seconds += time.process_time() - begun
        self._known, self.runs = known, self.runs + 1
