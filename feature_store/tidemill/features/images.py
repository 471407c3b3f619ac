"""Statistics of a picture: five numbers that move when light, focus or colour of a camera move.

Luma is ITU-R BT.601 (0.299 R + 0.587 G + 0.114 B) as Pillow computes it, in 8 bits. All results lie in [0, 1].

OpenCV, made for this, takes three times as many pictures a second, for 150 MB in every image and a second decoder.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from tidemill.core.errors import InvalidInput

__all__ = ["MAX_PIXELS", "STATISTICS", "decode_image", "statistics"]

MAX_PIXELS = 32_000_000
"""Larger pictures are refused before they are decoded: a few kB of PNG can ask for gigabytes."""

_Pixels = npt.NDArray[np.uint8]
_LEVELS = np.arange(256, dtype=np.int64)


class _Measured(NamedTuple):
    """A picture as the statistics need it. Sums are of whole numbers, so the results do not depend on their order."""

    rgb: _Pixels
    luma: _Pixels
    histogram: npt.NDArray[np.int64]
    """How many pixels have each luma."""


def _brightness(picture: _Measured) -> float:
    """Mean luma."""
    return float(picture.histogram @ _LEVELS) / picture.luma.size / 255


def _contrast(picture: _Measured) -> float:
    """Standard deviation of luma (RMS contrast)."""
    size = picture.luma.size
    mean, square = float(picture.histogram @ _LEVELS) / size, float(picture.histogram @ _LEVELS**2) / size
    return math.sqrt(max(0.0, square - mean * mean)) / 255


def _sharpness(picture: _Measured) -> float:
    """Variance of the 4-neighbour Laplacian over inner pixels (Pech-Pacheco et al. 2000), of luma in [0, 1/4]."""
    if min(picture.luma.shape) < 3:
        return 0.0
    y = picture.luma.astype(np.int16)
    inner = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
    laplacian = inner.ravel().astype(np.int64)
    mean, square = float(laplacian.sum()) / laplacian.size, float(laplacian @ laplacian) / laplacian.size
    return max(0.0, square - mean * mean) / (4 * 255) ** 2


def _saturation(picture: _Measured) -> float:
    """Mean saturation of HSV: (max − min) / max of a pixel's channels, 0 for black."""
    red, green, blue = picture.rgb[..., 0], picture.rgb[..., 1], picture.rgb[..., 2]
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    return float(np.divide(high - low, np.maximum(high, 1), dtype=np.float32).mean())


def _clipping(picture: _Measured) -> float:
    """Share of pixels whose luma is at most 2/255 or at least 253/255."""
    return float(picture.histogram[:3].sum() + picture.histogram[253:].sum()) / picture.luma.size


STATISTICS: Mapping[str, Callable[[_Measured], float]] = MappingProxyType(
    {
        "brightness": _brightness,
        "contrast": _contrast,
        "sharpness": _sharpness,
        "saturation": _saturation,
        "clipping": _clipping,
    }
)
"""The statistics by the names that `features.image` takes."""


def statistics(image: bytes, names: Iterable[str]) -> dict[str, float]:
    """The named statistics of a PNG or JPEG file, each in [0, 1].

    Raises `InvalidInput` for what is no such picture, is damaged or has more than `MAX_PIXELS`.
    """
    picture = decode_image(image)
    luma = picture.convert("L")
    measured = _Measured(np.asarray(picture), np.asarray(luma), np.asarray(luma.histogram(), dtype=np.int64))
    return {name: STATISTICS[name](measured) for name in names}


def decode_image(image: bytes) -> Image.Image:
    """The decoded picture in RGB; raises `InvalidInput` as `statistics` does."""
    try:
        picture = Image.open(BytesIO(image), formats=("PNG", "JPEG"))
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise InvalidInput(f"a picture of {width} by {height} pixels; at most {MAX_PIXELS:,} are taken")
        return _rgb(picture)
    except InvalidInput:
        raise
    except UnidentifiedImageError as error:  # its text names an object in memory
        raise InvalidInput("no picture (PNG or JPEG)") from error
    # Damaged files make Pillow raise nearly anything: OSError, SyntaxError, struct.error, zlib.error, ValueError, …
    except Exception as error:
        raise InvalidInput(f"no picture (PNG or JPEG): {error}") from error


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits a pixel, which Pillow would cut off at 255 rather than scale
        return Image.fromarray((np.asarray(picture).astype(np.uint32) // 257).astype(np.uint8)).convert("RGB")
    return picture.convert("RGB")
