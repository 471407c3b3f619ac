"""Pictures a second: a JPEG in base64 to its five statistics, and where the time goes; and into the store and back."""

import tempfile
from base64 import b64encode
from collections.abc import Callable
from datetime import date
from functools import partial
from io import BytesIO

import numpy as np
from benchmarks.report import Figure, Report, environment
from PIL import Image

from tidemill.core.clock import SystemClock
from tidemill.events.pictures import PictureStore
from tidemill.features.images import STATISTICS, decode_image, statistics
from tidemill.features.pictures import PictureIntake

SIDES = {"64x64": (64, 64), "640x480": (640, 480)}
DAY = date(2026, 1, 1)


def run(size: str) -> Report:
    """For each size of picture, one process and one thread."""
    seconds = 1.0 if size == "small" else 5.0
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        intake = PictureIntake((), tuple(STATISTICS), PictureStore(folder))
        for name, (width, height) in SIDES.items():
            file = jpeg(width, height)
            text = b64encode(file).decode()
            whole = per_second(partial(intake.take, text, DAY), seconds)
            decoding = per_second(partial(decode_image, file), seconds)
            measuring = 1 / (1 / per_second(partial(statistics, file, STATISTICS), seconds) - 1 / decoding)
            note = f"{len(file):,} bytes; decoding alone {decoding:,.0f}/s, statistics alone {measuring:,.0f}/s"
            figures.append(Figure(f"pictures {name}", round(whole), "1/s", note=note))
    ran = {"seconds": seconds, "quality": 85, "seed": 0}
    return Report("bench", "pictures", size, ran, figures, environment(("numpy", "pillow")))


def per_second(action: Callable[[], object], seconds: float) -> float:
    """How often it can be done in a second."""
    clock = SystemClock()
    action()
    begun, count = clock.monotonic(), 0
    while (took := clock.monotonic() - begun) < seconds:
        action()
        count += 1
    return count / took


def jpeg(width: int, height: int) -> bytes:
    """Coloured squares under noise, about as large as a photograph of this size."""
    rng = np.random.default_rng(0)
    squares = np.kron(rng.integers(0, 256, (height // 8, width // 8, 3)), np.ones((8, 8, 1)))
    pixels = np.clip(squares + rng.normal(0, 6, squares.shape), 0, 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return file.getvalue()
