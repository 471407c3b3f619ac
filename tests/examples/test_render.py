"""Pictures of phones: reproducible, labelled exactly, and different where they should be."""

import io

import numpy as np
import pytest
from inspection import render as module
from inspection.render import CHANGED, NORMAL, SIZE, STATIONS, Light, Picture, render
from PIL import Image

from tidemill.features.images import statistics


def draw(
    count: int, light: Light = NORMAL, *, seed: int = 1, station: str | None = None, scratched: float = 0.5
) -> list[Picture]:
    stations = [station or STATIONS[number % 3] for number in range(count)]
    return render(np.random.default_rng(seed), stations, light, scratched=scratched)


def mean_of(name: str, pictures: list[Picture]) -> float:
    return float(np.mean([statistics(picture.jpeg, [name])[name] for picture in pictures]))


def test_a_picture_is_a_small_jpeg_of_a_phone() -> None:
    for picture in draw(12):
        image = Image.open(io.BytesIO(picture.jpeg))
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (SIZE, SIZE))
        assert 900 < len(picture.jpeg) < 3000


def test_the_same_seed_draws_the_same_pictures_and_another_seed_others() -> None:
    assert draw(40) == draw(40)
    assert draw(40)[0] != draw(40, seed=2)[0]


def test_about_half_of_the_phones_are_scratched_unless_another_share_is_asked_for() -> None:
    assert 0.42 < np.mean([picture.defect == "scratch" for picture in draw(600)]) < 0.58
    assert {picture.defect for picture in draw(40, scratched=1.0)} == {"scratch"}
    assert {picture.defect for picture in draw(40, scratched=0.0)} == {"ok"}


def test_a_box_is_inside_the_picture_and_wide_enough_to_be_judged() -> None:
    for picture in draw(400):
        assert (picture.box is None) == (picture.defect == "ok")
        if picture.box is not None:
            x0, y0, x1, y1 = picture.box
            assert 0 <= x0 < x1 <= SIZE
            assert 0 <= y0 < y1 <= SIZE
            assert min(x1 - x0, y1 - y0) >= 11.9


def test_a_scratch_is_nowhere_but_in_its_box() -> None:
    grey = np.full((200, SIZE, SIZE, 3), 0.5, np.float32)
    scratched, boxes = module._scratch(np.random.default_rng(3), grey)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    for image, (x0, y0, x1, y1) in zip(scratched, boxes, strict=True):
        visible = np.abs(image[..., 0] - 0.5) > 0.05
        outside = (columns < x0) | (columns > x1) | (rows < y0) | (rows > y1)
        assert visible.sum() > 10
        assert not (visible & outside).any()


def test_the_changed_light_is_darker_and_its_colours_are_stronger() -> None:
    normal, changed = draw(90), draw(90, CHANGED)
    assert mean_of("brightness", changed) < 0.8 * mean_of("brightness", normal)
    assert mean_of("saturation", changed) > 1.2 * mean_of("saturation", normal)


def test_the_changed_light_is_warmer() -> None:
    def red_over_blue(pictures: list[Picture]) -> float:
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(one.jpeg)), np.float64) for one in pictures])
        return float(pixels[..., 0].mean() / pixels[..., 2].mean())

    assert red_over_blue(draw(90, CHANGED)) > 1.3 * red_over_blue(draw(90))


def test_stations_differ_less_than_the_light_does() -> None:
    of_stations = [mean_of("brightness", draw(150, station=station)) for station in STATIONS]
    change = mean_of("brightness", draw(150)) - mean_of("brightness", draw(150, CHANGED))
    assert len({round(value, 6) for value in of_stations}) == 3
    assert max(of_stations) - min(of_stations) < change / 2


def test_a_station_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="west"):
        draw(1, station="west")
