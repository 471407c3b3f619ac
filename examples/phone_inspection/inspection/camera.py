"""What goes wrong with a camera: it loses its focus, another one is put in its place, its lens gets dirty.

`Camera` turns the light that reaches a station's camera into what its sensor reports, before noise. `GOOD` changes
nothing. `DEFOCUSED` blurs, `SWAPPED` is another make (brighter in the dark, white balance for another lamp, vivid
colours), and on the lens of `DIRTY` lie grease, which veils all, and spots.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEFOCUSED", "DIRTY", "GOOD", "SWAPPED", "Camera"]

Array = NDArray[Any]  # float32 throughout; NumPy's types lose that at the first number

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Camera:
    """One camera: its lens, and how its sensor and its software answer to light."""

    defocus: float = 0.0
    """Radius in pixels of the disc into which the lens spreads a point; 0 is sharp."""
    film: float = 0.0
    """Share of the light that a greasy film on the lens scatters over the whole picture."""
    spots: int = 0
    """Dirt on the lens: soft dark spots, always at the same places."""
    gamma: float = 1.0
    """Exponent of the answer to light; below 1 dark parts come out brighter."""
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Gain of red, green and blue."""
    vividness: float = 1.0
    """Factor on the distance of a pixel's colours from its grey."""

    def take(self, image: Array) -> Array:
        """Pictures (n, height, width, 3), values from 0 on, as this camera reports them; new ones, or `image`."""
        if self.defocus:
            image = _spread(image, _disc(self.defocus))
        if self.film:
            image = (1 - self.film) * image + self.film * image.mean(axis=(1, 2, 3), keepdims=True)
        if self.spots:
            image = image * _spots(self.spots, image.shape[1], image.shape[2])[..., None]
        if self.balance != GOOD.balance:
            image = image * np.asarray(self.balance, np.float32)
        if self.vividness != GOOD.vividness:
            grey = (image @ _LUMA)[..., None]
            image = grey + self.vividness * (image - grey)
        if self.gamma != GOOD.gamma:
            image = np.maximum(image, 0) ** np.float32(self.gamma)
        return image


def _disc(radius: float) -> Array:
    """The disc of a point out of focus: its share of each pixel, of odd width."""
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    cover = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1).astype(np.float32)
    disc: Array = cover / cover.sum()
    return disc


def _spread(image: Array, kernel: Array) -> Array:
    """Convolution with a small kernel; beyond its border a picture goes on as it ends."""
    reach = len(kernel) // 2
    height, width = image.shape[1:3]
    padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    spread = np.zeros_like(image)
    for row, column in np.argwhere(kernel > 0):
        spread += kernel[row, column] * padded[:, row : row + height, column : column + width]
    return spread


def _spots(count: int, height: int, width: int) -> Array:
    """How much light each pixel of a spotted lens lets through (height, width)."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:height, 0:width] + 0.5
    through = np.ones((height, width))
    for _ in range(count):
        cy, cx, radius, depth = rng.uniform((0.1 * height, 0.1 * width, 3, 0.3), (0.9 * height, 0.9 * width, 7, 0.6))
        through *= 1 - depth * np.exp(-(((x - cx) ** 2 + (y - cy) ** 2) / radius**2))
    return through.astype(np.float32)


GOOD = Camera()
DEFOCUSED = Camera(defocus=1.5)
SWAPPED = Camera(gamma=0.75, balance=(1.15, 1.0, 0.8), vividness=1.4)
DIRTY = Camera(film=0.45, spots=6)
