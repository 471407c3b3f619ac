"""Products as sellers list them: a title of a few words, a price and a weight, drawn from random numbers.

Each kind has its own words and its own prices and weights; brands, colours and sizes are shared, and every seventh
title has a word of some other kind in it ("phone holder", "laptop bag"). So a good model is right about most products
and not about all, and a kind that it has never seen looks most like something else.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["DECLARED", "KINDS", "NOTHING", "SELLERS", "Product", "draw"]

SELLERS = ("north-goods", "harbour-trade", "old-mill", "east-gate", "river-shop", "hill-market")
NOTHING = "other"
"""What is none of the kinds that the catalogue has a shelf for."""

_SHARED = (
    "norvik arlo tessa quint basal orion black white silver blue green compact pro mini max lite new 2026 set edition "
    "original with warranty wireless rechargeable usb display portable premium"
)
_STRAY = 1 / 7


@dataclass(frozen=True)
class Kind:
    """One kind of product."""

    words: tuple[str, ...]
    price: float
    """Median, in any currency."""
    grams: float
    """Median weight."""


@dataclass(frozen=True, slots=True)
class Product:
    """One product, and the truth about it."""

    seller: str
    title: str
    price: float
    grams: float
    kind: str


def _kind(words: str, price: float, grams: float) -> Kind:
    return Kind(tuple(words.split()), price, grams)


KINDS: Mapping[str, Kind] = {
    NOTHING: _kind("mug lamp chair book kettle umbrella towel backpack puzzle vase clock-radio blanket", 25, 700),
    "phone": _kind("phone smartphone dual-sim 5g handset 128gb 256gb selfie octa-core unlocked", 480, 190),
    "tablet": _kind("tablet 10-inch 11-inch stylus reader pad kids-mode 64gb wifi-only folio", 330, 480),
    "laptop": _kind("laptop notebook keyboard 15-inch 14-inch ssd 16gb-ram ultrabook chromebook core", 900, 1500),
    "camera": _kind("camera lens mirrorless dslr zoom 24mp tripod shutter aperture 4k-video", 650, 600),
    "smartwatch": _kind("watch smartwatch strap fitness heart-rate gps 44mm 41mm steps wrist", 260, 45),
    "earbuds": _kind("earbuds earphones noise-cancelling charging-case in-ear buds bass anc tips", 120, 55),
}
"""The kinds by name. The catalogue starts with `DECLARED`; the last two come in the course of the day."""
DECLARED = (NOTHING, "phone", "tablet", "laptop", "camera")


def draw(rng: np.random.Generator, count: int, shares: Mapping[str, float]) -> list[Product]:
    """Products, each of a kind by its share; the same numbers give the same."""
    names = list(shares)
    weights = np.array([shares[name] for name in names])
    kinds = rng.choice(names, size=count, p=weights / weights.sum())
    return [_draw(rng, str(kind)) for kind in kinds]


def _draw(rng: np.random.Generator, name: str) -> Product:
    kind = KINDS[name]
    words = [*rng.choice(kind.words, size=int(rng.integers(1, 4)), replace=False)]
    words += [*rng.choice(_SHARED.split(), size=int(rng.integers(1, 4)), replace=False)]
    if rng.random() < _STRAY:
        other = KINDS[str(rng.choice([one for one in DECLARED if one != name]))]
        words.append(rng.choice(other.words))
    return Product(
        seller=str(rng.choice(SELLERS)),
        title=" ".join(str(word) for word in rng.permutation(words)),
        price=round(float(kind.price * np.exp(rng.normal(0, 0.35))), 2),
        grams=round(float(kind.grams * np.exp(rng.normal(0, 0.3))), 1),
        kind=name,
    )
