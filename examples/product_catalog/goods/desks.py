"""Three desks that label products. Each product is one desk's; some, in turn or because a person asks, are all three's.

When a kind of product is new, one of them does not know it yet and takes it for something else, until the desks have
talked it over: then it labels anew what it had wrong, and its last words count.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .products import Product

__all__ = ["DESKS", "UNSURE", "Desks", "Word"]

DESKS = ("ann", "bo", "cleo")
UNSURE = 0.9
"""Confidence below which an answer is looked at by all three desks."""
_ALL_LOOK = 0.1
"""Share of the other products that all three look at."""
_SLIPS = 0.005
"""How often a desk says something else, whatever is there."""


@dataclass(frozen=True, slots=True)
class Word:
    """What a desk says of a product."""

    desk: str
    kind: str


@dataclass
class Desks:
    """What the desks say.

    Args:
        rng: who labels what, and slips.
    """

    rng: np.random.Generator
    mistaken: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By kind: the desk that does not know it, and what it takes it for."""

    def label(self, product: Product, confidence: float) -> Iterator[Word]:
        """What is said of a product that was answered with this confidence."""
        all_look = confidence < UNSURE or self.rng.random() < _ALL_LOOK
        for desk in DESKS if all_look else (str(self.rng.choice(DESKS)),):
            yield Word(desk, self._says(desk, product.kind))

    def agree(self, kind: str) -> tuple[str, str]:
        """From now on all know the kind; returns the desk that labels anew, and what it had taken the kind for."""
        return self.mistaken.pop(kind)

    def _says(self, desk: str, kind: str) -> str:
        if kind in self.mistaken and self.mistaken[kind][0] == desk:
            return self.mistaken[kind][1]
        return "other" if self.rng.random() < _SLIPS else kind
