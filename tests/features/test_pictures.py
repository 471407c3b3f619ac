from base64 import b64encode
from datetime import date
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tidemill.core.errors import InvalidInput
from tidemill.events.pictures import PictureStore
from tidemill.features.images import statistics
from tidemill.features.pictures import INLINE_BYTES, PictureIntake, Taken, picture_file

DAY = date(2026, 11, 25)


def noise(side: int) -> bytes:
    """A PNG that no compression makes small."""
    file = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


SMALL, LARGE = noise(8), noise(200)


def text(file: bytes) -> str:
    return b64encode(file).decode()


@pytest.fixture
def store(tmp_path: Path) -> PictureStore:
    return PictureStore(str(tmp_path / "store"))


@pytest.fixture
def shelf(tmp_path: Path) -> str:
    """A prefix under which lie small.png, large.png and note.txt."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "small.png").write_bytes(SMALL)
    (folder / "large.png").write_bytes(LARGE)
    (folder / "note.txt").write_bytes(b"no picture")
    return f"file://{folder}/"


def test_a_small_picture_by_value_stays_in_its_row(store: PictureStore) -> None:
    assert len(SMALL) <= INLINE_BYTES < len(LARGE)
    taken = PictureIntake((), ("brightness",), store).take(text(SMALL), DAY)
    assert taken == Taken(SMALL, None, statistics(SMALL, ("brightness",)))


def test_a_large_picture_goes_to_the_store_and_is_measured_all_the_same(store: PictureStore) -> None:
    taken = PictureIntake((), ("brightness", "sharpness"), store).take(text(LARGE), DAY)
    assert taken.file is None
    assert taken.digest is not None
    assert store.get(taken.digest, DAY) == LARGE
    assert taken.statistics == statistics(LARGE, ("brightness", "sharpness"))


def test_a_picture_by_uri_goes_to_the_store_however_small(store: PictureStore, shelf: str) -> None:
    taken = PictureIntake((shelf,), (), store).take(f"{shelf}small.png", DAY)
    assert taken.digest is not None
    assert store.get(taken.digest, DAY) == SMALL


def test_without_a_store_all_pictures_stay_in_their_rows(shelf: str) -> None:
    intake = PictureIntake((shelf,), (), None)
    assert [intake.take(one, DAY).file for one in (text(LARGE), f"{shelf}large.png")] == [LARGE, LARGE]


def test_a_uri_is_refused_where_the_resource_allows_none(shelf: str) -> None:
    with pytest.raises(InvalidInput, match="allows none"):
        picture_file(f"{shelf}small.png", ())
