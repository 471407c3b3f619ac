from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tidemill.core.errors import InvalidInput
from tidemill.features.images import MAX_PIXELS, STATISTICS, decode_image, statistics
from tidemill.spec.model import IMAGE_STATISTICS


def picture(pixels: npt.NDArray[np.uint8], kind: str = "PNG") -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def plain(value: int, size: int = 16) -> npt.NDArray[np.uint8]:
    return np.full((size, size, 3), value, dtype=np.uint8)


def noise(seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_every_statistic_that_a_resource_may_name_is_there() -> None:
    assert set(STATISTICS) == set(IMAGE_STATISTICS)


def test_a_plain_grey_picture_has_its_brightness_and_nothing_else() -> None:
    found = statistics(picture(plain(128)), STATISTICS)
    assert found == pytest.approx(
        {"brightness": 128 / 255, "contrast": 0, "sharpness": 0, "saturation": 0, "clipping": 0}
    )


def test_only_the_named_statistics_are_computed_in_the_order_of_their_names() -> None:
    assert list(statistics(picture(noise()), ["contrast", "brightness"])) == ["contrast", "brightness"]


def test_a_checkerboard_has_the_largest_contrast_and_sharpness_and_is_clipped_throughout() -> None:
    board = np.indices((16, 16)).sum(axis=0) % 2 * 255
    found = statistics(picture(np.repeat(board[..., None], 3, axis=2).astype(np.uint8)), STATISTICS)
    assert found == pytest.approx({"brightness": 0.5, "contrast": 0.5, "sharpness": 1, "saturation": 0, "clipping": 1})


def test_saturation_is_that_of_hsv_and_zero_for_black() -> None:
    pixels = np.array([[[255, 0, 0], [0, 0, 0], [200, 100, 100], [9, 9, 9]]], dtype=np.uint8)
    assert statistics(picture(pixels), ["saturation"])["saturation"] == pytest.approx((1 + 0 + 0.5 + 0) / 4)


def test_clipping_counts_both_ends() -> None:
    pixels = np.repeat(np.array([[[0], [2], [3], [252], [253], [255]]], dtype=np.uint8), 3, axis=2)
    assert statistics(picture(pixels), ["clipping"])["clipping"] == pytest.approx(4 / 6)


def test_statistics_equal_their_definitions_on_noise() -> None:
    pixels = noise()
    luma = np.asarray(Image.fromarray(pixels).convert("L")).astype(float) / 255
    inner = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]
    found = statistics(picture(pixels), STATISTICS)
    assert found["brightness"] == pytest.approx(luma.mean())
    assert found["contrast"] == pytest.approx(luma.std())
    assert found["sharpness"] == pytest.approx((inner / 4).var())


@pytest.mark.parametrize("factor", [0.8, 0.5])
def test_less_light_lowers_brightness_and_contrast(factor: float) -> None:
    bright = noise() // 2 + 64
    dark = (bright * factor).astype(np.uint8)
    before, after = (statistics(picture(pixels, "JPEG"), STATISTICS) for pixels in (bright, dark))
    assert after["brightness"] < before["brightness"]
    assert after["contrast"] < before["contrast"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_of_png_is_measured(mode: str) -> None:
    stream = BytesIO()
    grey = Image.fromarray(plain(200, 4)[..., 0])
    made = {"1": Image.new("1", (4, 4), 1), "I;16": Image.fromarray(np.full((4, 4), 200 * 257, np.uint16))}
    source = made.get(mode) or grey.convert(mode)
    source.save(stream, "PNG")
    expected = 1.0 if mode == "1" else 200 / 255
    assert statistics(stream.getvalue(), ["brightness"])["brightness"] == pytest.approx(expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (3, 3)])
def test_the_smallest_pictures_have_statistics(size: tuple[int, int]) -> None:
    found = statistics(picture(np.zeros((*size, 3), np.uint8)), STATISTICS)
    assert all(0 <= value <= 1 for value in found.values())


@given(st.binary(max_size=300))
def test_bytes_that_are_no_picture_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="no picture"):
        decode_image(data)


@given(st.sampled_from(["PNG", "JPEG"]), st.data())
def test_a_damaged_picture_is_measured_or_refused_and_nothing_else(kind: str, data: st.DataObject) -> None:
    image = bytearray(picture(noise(), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(image)))
    try:
        found = statistics(bytes(image[:cut]), STATISTICS)
    except InvalidInput:
        return
    assert all(0 <= value <= 1 for value in found.values())


def test_other_formats_are_refused() -> None:
    with pytest.raises(InvalidInput, match="PNG or JPEG"):
        decode_image(picture(noise(), "GIF"))


def test_a_small_file_that_asks_for_gigabytes_is_refused_before_it_is_decoded() -> None:
    stream = BytesIO()
    Image.new("1", (MAX_PIXELS // 1000 + 1, 1000)).save(stream, "PNG")
    assert len(stream.getvalue()) < 10_000
    with pytest.raises(InvalidInput, match="pixels"):
        decode_image(stream.getvalue())


def test_the_reason_is_the_same_each_time() -> None:
    with pytest.raises(InvalidInput) as refused:
        statistics(b"hello", ())
    assert refused.value.message == "no picture (PNG or JPEG)"
