"""The final check as five desks that do not agree: two of them call dirt a scratch.

Pictures of phones, some of them dirty: a smear of specks, as long as a scratch and no defect. Each is looked at by
four of the five desks. `WRONG` are the two that take dirt for a scratch; now and then every desk slips. The truth is
known, so that what `tidemill labels agreement` finds can be held against it.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tidemill.core.clock import Clock, to_ms
from tidemill.events.records import Label, encode
from tidemill.spec.model import ContinualModel

from .delivery import Delivery
from .inspector import Inspector, Phone
from .render import NORMAL, SIZE, STATIONS, Picture, render

__all__ = ["DESKS", "DIRTY", "WRONG", "Checked", "check", "draw_checked", "labels_of"]

DESKS = ("desk-1", "desk-2", "desk-3", "desk-4", "desk-5")
WRONG = frozenset({"desk-2", "desk-4"})
DIRTY = 0.4
"""Share of the phones without a scratch that are dirty."""
_SLIPS = 0.01
"""How often a desk says the other thing, whatever is there."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Checked:
    """A phone that the desks looked at: the truth, and what each of four desks said."""

    picture: Picture
    dirt: Box | None
    """Around the dirt, if there is any."""
    said: Mapping[str, str]

    @property
    def wrong(self) -> set[str]:
        """Desks that were wrong."""
        return {desk for desk, defect in self.said.items() if defect != self.picture.defect}


def draw_checked(seed: int, count: int) -> list[Checked]:
    """Phones in normal light and what the desks say of them; the same seed gives the same."""
    rng = np.random.default_rng((seed, 3))
    stations = [STATIONS[number % len(STATIONS)] for number in range(count)]
    checked = []
    for picture in render(rng, stations, NORMAL):
        dirty = picture.defect == "ok" and rng.random() < DIRTY
        drawn, dirt = _soiled(rng, picture) if dirty else (picture, None)
        checked.append(Checked(drawn, dirt, _said(rng, drawn.defect, dirty)))
    return checked


def labels_of(checked: Checked, event_id: str, time: int, *, seed: int = 0) -> Iterator[Label]:
    """The labels of one phone, desk by desk; boxes are drawn by hand, to a pixel or so."""
    for desk, defect in checked.said.items():
        rng = np.random.default_rng((seed, DESKS.index(desk), time))
        around = checked.picture.box or checked.dirt or (20.0, 20.0, 40.0, 40.0)
        box = [round(edge + float(rng.uniform(-1, 1)), 1) for edge in around] if defect == "scratch" else None
        value: dict[str, Any] = {"defect": defect, "box": box}
        yield Label(value=value, labeller=desk, entity=checked.picture.station, event_id=event_id, time=time)


def check(
    resource: ContinualModel, checked: list[Checked], *, delivery: Delivery, inspector: Inspector | None, clock: Clock
) -> None:
    """Send the phones to the events topic, to the endpoint where there is an inspector, and the desks' labels."""
    batch = f"{to_ms(clock.now()):x}"
    for number, one in enumerate(checked):
        phone = Phone(f"desks-{batch}-{number}", to_ms(clock.now()), one.picture)
        event = {"event_id": phone.event_id, "station": one.picture.station, "captured_at": phone.captured_at}
        value = msgspec.json.encode({**event, "image": one.picture.jpeg})
        delivery.send(resource.events_topic, one.picture.station, value)
        if inspector is not None:
            inspector.inspect(phone)
        for label in labels_of(one, phone.event_id, phone.captured_at):
            delivery.send(resource.labels_topic, one.picture.station, encode(label))
    delivery.flush(60.0)


def _said(rng: np.random.Generator, truth: str, dirty: bool) -> dict[str, str]:
    absent = int(rng.integers(len(DESKS)))
    said = {}
    for desk in DESKS[:absent] + DESKS[absent + 1 :]:
        seen = "scratch" if dirty and desk in WRONG else truth
        other = "ok" if seen == "scratch" else "scratch"
        said[desk] = other if rng.random() < _SLIPS else seen
    return said


def _soiled(rng: np.random.Generator, picture: Picture) -> tuple[Picture, Box]:
    """The picture with a smear of dark and bright specks, and the box around it."""
    pixels = np.asarray(Image.open(io.BytesIO(picture.jpeg))).astype(np.float32)
    angle, half = rng.uniform(0, np.pi), rng.uniform(6, 12)
    centre = SIZE / 2 + rng.uniform(-8, 8, size=2)
    along = rng.uniform(-half, half, size=18)
    places = centre + along[:, None] * np.array([np.cos(angle), np.sin(angle)]) + rng.normal(0, 1.2, size=(18, 2))
    places = np.clip(places, 4, SIZE - 5)
    for x, y in places.astype(int):
        pixels[y, x] += rng.uniform(-60, 90)
    low, high = places.min(axis=0) - 2, places.max(axis=0) + 2
    box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    return replace(picture, jpeg=_jpeg(pixels)), box


def _jpeg(pixels: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=88)
    return file.getvalue()
