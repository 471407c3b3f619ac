"""Pictures of phone backs, drawn from random numbers: casing, camera, reflections, dust, noise, and scratches.

A picture is 64 x 64 RGB. Half of the phones have one scratch of random place, direction, length and depth;
its box is known exactly because we drew it. Three stations differ a little in mat, lamp and lens. The light is
a parameter: `NORMAL`, and `CHANGED`, in which the lamps are darker and warmer and throw a glare. So is the camera of
each station (`inspection.camera`).

All pictures of a batch are drawn together (arrays of n x 64 x 64 x 3), about 1 ms a picture with its JPEG file.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .camera import Camera

__all__ = ["CHANGED", "NORMAL", "SIZE", "STATIONS", "Light", "Picture", "draw", "render"]

SIZE = 64
STATIONS = ("north", "east", "south")

Array = NDArray[Any]  # float32 throughout; NumPy's types lose that at the first number


@dataclass(frozen=True)
class Light:
    """The light at the stations."""

    gain: float
    """Brightness; 1 is normal."""
    warmth: float
    """Red rises and blue falls by this share."""
    glare: float
    """Strength of the lamp's mirror image on the glass; 1 saturates the camera."""


NORMAL = Light(gain=1.0, warmth=0.0, glare=0.0)
CHANGED = Light(gain=0.6, warmth=0.25, glare=0.5)


@dataclass(frozen=True)
class Picture:
    """One picture and the truth about it."""

    station: str
    jpeg: bytes
    defect: str
    """`ok` or `scratch`."""
    box: tuple[float, float, float, float] | None
    """x0, y0, x1, y1 of the scratch in pixels."""


# Finishes of the casing and mats of the stations, as RGB; angle of the lamp's reflection per station.
_FINISHES = np.array(
    [(0.30, 0.31, 0.34), (0.62, 0.63, 0.65), (0.25, 0.36, 0.52), (0.33, 0.45, 0.40), (0.58, 0.46, 0.46)], np.float32
)
_MATS = np.array([(0.17, 0.18, 0.20), (0.20, 0.21, 0.19), (0.16, 0.16, 0.17)], np.float32)
_LAMPS = np.array([0.5, 0.9, 2.3], np.float32)
_GLARE = np.array([1.0, 0.92, 0.75], np.float32)
_Y, _X = (axis.astype(np.float32) + 0.5 for axis in np.mgrid[0:SIZE, 0:SIZE])
_CHUNK = 32


def render(
    rng: np.random.Generator,
    stations: Sequence[str],
    light: Light = NORMAL,
    *,
    scratched: float = 0.5,
    cameras: Mapping[str, Camera] = {},
) -> list[Picture]:
    """One picture per entry of `stations`, a share of them `scratched`; the same `rng` gives the same pictures.

    `cameras` are those of stations whose camera is not as it should be. Raises ValueError for a station that is not
    one of `STATIONS`.
    """
    if unknown := {*stations, *cameras} - set(STATIONS):
        raise ValueError(f"there is no station {', '.join(sorted(unknown))}; there are {', '.join(STATIONS)}")
    pictures: list[Picture] = []
    for start in range(0, len(stations), _CHUNK):
        names = stations[start : start + _CHUNK]
        numbers = np.array([STATIONS.index(name) for name in names])
        pixels, defects, boxes = draw(rng, numbers, light, scratched, cameras)
        for name, image, defect, box in zip(names, pixels, defects, boxes, strict=True):
            truth = tuple(round(float(edge), 1) for edge in box)
            pictures.append(
                Picture(name, _jpeg(image), "scratch", (truth[0], truth[1], truth[2], truth[3]))
                if defect
                else Picture(name, _jpeg(image), "ok", None)
            )
    return pictures


def draw(
    rng: np.random.Generator,
    stations: NDArray[np.int64],
    light: Light,
    share: float = 0.5,
    cameras: Mapping[str, Camera] = {},
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], Array]:
    """Pixels (n, 64, 64, 3), which phones are scratched (n), and boxes (n, 4; zeros where there is no scratch)."""
    n = len(stations)
    x, y = _phone_coordinates(rng, n)
    edge = _rounded_box(x, y, 23.5, 29.5, 7.0)
    image = _mat(rng, stations)
    _blend(image, _casing(rng, n, x, y), _cover(edge))
    image *= (1 + 0.35 * _cover(np.abs(edge + 0.9) - 0.7))[..., None]  # the metal rim
    _camera(rng, image, x, y)
    on_glass = _cover(edge + 2)
    image += (_reflection(rng, stations) * on_glass)[..., None]
    scratched = rng.random(n) < share
    boxes = np.zeros((n, 4), np.float32)
    which = np.flatnonzero(scratched)
    image[which], boxes[which] = _scratch(rng, image[which])
    _dust(rng, image)
    image = _illuminate(rng, image, on_glass, light)
    for station, camera in cameras.items():
        taken = stations == STATIONS.index(station)
        image[taken] = camera.take(image[taken])
    image += rng.standard_normal(image.shape, dtype=np.float32) * 0.009
    return (np.clip(image, 0, 1) * 255).astype(np.uint8), scratched, boxes


def _phone_coordinates(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Pixel coordinates relative to a phone that lies a little off the centre, a little turned."""
    shift, turn = _uniform(rng, n, -1.5, 1.5, 2), _uniform(rng, n, -0.05, 0.05)
    x, y = _X - SIZE / 2 - shift[:, 0, None, None], _Y - SIZE / 2 - shift[:, 1, None, None]
    cos, sin = np.cos(turn)[:, None, None], np.sin(turn)[:, None, None]
    return cos * x + sin * y, cos * y - sin * x


def _mat(rng: np.random.Generator, stations: NDArray[np.int64]) -> Array:
    ribs = 0.02 * np.sin(_X * 1.3 + _uniform(rng, len(stations), 0, 6)[:, None, None])
    image: Array = _MATS[stations][:, None, None, :] + ribs[..., None]
    return image


def _casing(rng: np.random.Generator, n: int, x: Array, y: Array) -> Array:
    finish = _FINISHES[rng.integers(len(_FINISHES), size=n)] * _uniform(rng, n, 0.92, 1.08)[:, None]
    shade = 1 - 0.005 * y + 0.002 * x
    logo = 0.10 * _cover(np.abs(np.hypot(x, y - 3) - 3.2) - 0.8)
    return finish[:, None, None, :] * shade[..., None] + logo[..., None]


def _camera(rng: np.random.Generator, image: Array, x: Array, y: Array) -> None:
    """The camera island with two or three lenses and a flash, drawn in place."""
    island = _rounded_box(x + 10.5, y + 17, 9.0, 9.0, 4.0)
    image *= (1 - 0.22 * _cover(island))[..., None]
    image += (0.10 * _cover(np.abs(island) - 0.6))[..., None]
    third = rng.random(len(image)) < 0.5
    for cx, cy, shown in ((-14.2, -20.7, None), (-14.2, -13.3, None), (-6.8, -17.0, third)):
        away = np.hypot(x - cx, y - cy)
        disc = _cover(away - 3.2)
        if shown is not None:
            disc = disc * shown[:, None, None]
        glint = 0.5 * _cover(np.hypot(x - cx + 1, y - cy + 1) - 0.5) * disc
        image *= (1 - 0.75 * disc)[..., None]
        image += (0.18 * disc * _cover(np.abs(away - 2.9) - 0.4) + glint)[..., None]
    image += (0.35 * _cover(np.hypot(x + 5.6, y + 23.0) - 1.2))[..., None]


def _reflection(rng: np.random.Generator, stations: NDArray[np.int64]) -> Array:
    """A soft band of lamp light, at the station's angle."""
    n = len(stations)
    angle = _LAMPS[stations] + _uniform(rng, n, -0.15, 0.15)
    across = _along(angle) - _uniform(rng, n, -24, 24)[:, None, None]
    width, strength = _uniform(rng, n, 5, 11)[:, None, None], _uniform(rng, n, 0.03, 0.14)[:, None, None]
    band: Array = strength * np.exp(-((across / width) ** 2))
    return band


def _scratch(rng: np.random.Generator, image: Array) -> tuple[Array, Array]:
    """A bent line, bright with a dark lip, thinner at its ends; returns the pictures and the boxes around it."""
    n = len(image)
    angle, half, bend = _uniform(rng, n, 0, np.pi), _uniform(rng, n, 8, 17), _uniform(rng, n, -4, 4)
    reach_x = np.abs(np.cos(angle)) * half + np.abs(np.sin(angle) * bend) + 1
    reach_y = np.abs(np.sin(angle)) * half + np.abs(np.cos(angle) * bend) + 1
    cx = SIZE / 2 + _uniform(rng, n, -1, 1) * np.maximum(20.5 - reach_x, 0)
    cy = SIZE / 2 + _uniform(rng, n, -1, 1) * np.maximum(26.5 - reach_y, 0)
    cos, sin = np.cos(angle), np.sin(angle)
    dx, dy = _X - cx[:, None, None], _Y - cy[:, None, None]
    along = (cos[:, None, None] * dx + sin[:, None, None] * dy) / half[:, None, None]
    inside = np.clip(1 - along**2, 0, None)
    across = cos[:, None, None] * dy - sin[:, None, None] * dx - bend[:, None, None] * inside
    depth = _uniform(rng, n, 0.22, 0.50)[:, None, None]
    taper = np.minimum(inside * 3, 1)
    width = _uniform(rng, n, 0.55, 0.95)[:, None, None]
    line = depth * taper * (np.exp(-((across / width) ** 2)) - 0.45 * np.exp(-(((across - 1.6) / width) ** 2)))
    return image + line[..., None] * (0.55 + 0.6 * image), _boxes(cx, cy, cos, sin, half, bend)


def _boxes(cx: Array, cy: Array, cos: Array, sin: Array, half: Array, bend: Array) -> Array:
    """Boxes around the bent lines: two pixels of margin, and no side under twelve (as an inspector would draw them)."""
    t = np.linspace(-1, 1, 9, dtype=np.float32)
    along, across = half[:, None] * t, bend[:, None] * (1 - t**2)
    px = cx[:, None] + cos[:, None] * along - sin[:, None] * across
    py = cy[:, None] + sin[:, None] * along + cos[:, None] * across
    low = np.stack([px.min(axis=1), py.min(axis=1)], axis=1) - 2
    high = np.stack([px.max(axis=1), py.max(axis=1)], axis=1) + 2
    lacking = np.maximum(12 - (high - low), 0) / 2
    boxes: Array = np.clip(np.concatenate([low - lacking, high + lacking], axis=1), 0, SIZE)
    return boxes


def _dust(rng: np.random.Generator, image: Array) -> None:
    """Three bright specks a picture, drawn in place."""
    n = len(image)
    rows, columns = rng.integers(4, SIZE - 4, size=(2, n, 3))
    image[np.arange(n)[:, None], rows, columns] += _uniform(rng, n, 0.0, 0.2, 3)[..., None]


def _illuminate(rng: np.random.Generator, image: Array, on_glass: Array, light: Light) -> Array:
    """The lamps: brightness, colour, and a glare with a streak through it."""
    n = len(image)
    flicker = _uniform(rng, n, 0.95, 1.05)
    tint = np.array([1 + light.warmth, 1, 1 - light.warmth], np.float32)
    lit: Array = image * (light.gain * flicker[:, None, None, None]) * tint
    if light.glare:
        angle = _uniform(rng, n, 0, np.pi)
        cx, cy = _uniform(rng, n, -14, 14)[:, None, None], _uniform(rng, n, -20, 20)[:, None, None]
        along = _along(angle, cx, cy)
        across = _along(angle + np.pi / 2, cx, cy)
        streak = np.exp(-((along / 16) ** 2) - (across / 5) ** 2)
        spot = np.exp(-(along**2 + across**2) / 24)
        lit += (light.glare * on_glass * (0.12 * streak + 0.88 * spot))[..., None] * _GLARE
    return lit


def _rounded_box(x: Array, y: Array, half_width: float, half_height: float, radius: float) -> Array:
    """Signed distance to a rounded rectangle around the origin (negative inside)."""
    qx, qy = np.abs(x) - (half_width - radius), np.abs(y) - (half_height - radius)
    outside = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
    distance: Array = outside + np.minimum(np.maximum(qx, qy), 0) - radius
    return distance


def _cover(distance: Array) -> Array:
    """How much of a pixel a shape covers, from its signed distance: edges without steps."""
    return np.clip(0.5 - distance, 0, 1)


def _along(angle: Array, cx: Array | float = 0.0, cy: Array | float = 0.0) -> Array:
    """Coordinate along a direction, from the picture's centre plus (cx, cy)."""
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    coordinate: Array = cos * (_X - SIZE / 2 - cx) + sin * (_Y - SIZE / 2 - cy)
    return coordinate


def _blend(image: Array, over: Array, cover: Array) -> None:
    image += (over - image) * cover[..., None]


def _uniform(rng: np.random.Generator, n: int, low: float, high: float, *more: int) -> Array:
    drawn: Array = low + (high - low) * rng.random((n, *more), dtype=np.float32)
    return drawn


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=88)
    return file.getvalue()
