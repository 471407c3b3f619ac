from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tidemill.core.errors import Unavailable
from tidemill.events.pictures import DIGEST_COLUMN, PictureStore
from tidemill.events.sources import Source
from tidemill.features import pictures
from tidemill.features.images import statistics
from tidemill.ingest.batch import Batch, BatchReader
from tidemill.spec.model import ContinualModel
from tidemill.testing.serving import picture

NOW = 1_790_000_000_000
SOURCE = Source("c", "t", 0)
EventJson = Callable[..., bytes]


@pytest.fixture
def batch(make_resource: Callable[..., ContinualModel], tmp_path: Path) -> Callable[..., Batch]:
    """A batch of record values, of a resource that allows URIs below `tmp_path`/shelf."""
    fields = [{"name": "image", "type": "image", "required": False, "uris": [f"file://{tmp_path}/shelf/"]}]
    resource = make_resource(
        "m", features={"image": ["brightness"]}, fields=[*fields, {"name": "exposure_ms", "type": "float"}]
    )
    reader = BatchReader(resource, PictureStore(str(tmp_path / "store")))

    def make(*values: bytes) -> Batch:
        raws: list[Any] = [
            SimpleNamespace(offset=offset, value=value, timestamp=NOW, key=None, headers=[])
            for offset, value in enumerate(values)
        ]
        return reader.read({SOURCE: raws}, {SOURCE: 0})

    return make


def test_a_picture_by_uri_is_measured_and_its_row_has_its_digest(
    batch: Callable[..., Batch], event_json: EventJson, tmp_path: Path
) -> None:
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "a.png").write_bytes(picture())
    (row,) = batch(event_json(image=f"file://{tmp_path}/shelf/a.png")).events.rows(named=True)
    assert row["image"] is None
    assert row["brightness"] == pytest.approx(200 / 255)
    assert PictureStore(str(tmp_path / "store")).get(row[DIGEST_COLUMN], row["event_date"]) == picture()


def test_a_picture_that_is_not_there_is_quarantined_with_the_reason(
    batch: Callable[..., Batch], event_json: EventJson, tmp_path: Path
) -> None:
    (tmp_path / "shelf").mkdir()
    (bad,) = batch(event_json(), event_json(image=f"file://{tmp_path}/shelf/a.png")).quarantined
    assert (bad.offset, bad.field, bad.reason) == (1, "image", "there is no such file")


def test_of_many_pictures_each_is_taken_or_refused_in_its_place(
    batch: Callable[..., Batch], event_json: EventJson, tmp_path: Path
) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    for number in range(40):
        (shelf / f"{number}.png").write_bytes(b"none" if number % 4 == 3 else picture(number))
    found = batch(*(event_json(image=f"file://{shelf}/{number}.png") for number in range(40)))
    assert found.events["offset"].to_list() == [number for number in range(40) if number % 4 != 3]
    assert found.events["brightness"].to_list() == pytest.approx(
        [number / 255 for number in range(40) if number % 4 != 3]
    )
    assert [bad.offset for bad in found.quarantined] == list(range(3, 40, 4))


def test_of_pictures_that_are_fetched_side_by_side_one_is_decoded_at_a_time(
    batch: Callable[..., Batch], event_json: EventJson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "a.png").write_bytes(picture())
    inside, most = [], []

    def measured(file: bytes, names: Sequence[str]) -> dict[str, float]:
        inside.append(1)
        most.append(len(inside))
        found = statistics(file, names)
        inside.pop()
        return found

    monkeypatch.setattr(pictures, "statistics", measured)
    assert batch(*[event_json(image=f"file://{shelf}/a.png")] * 200).events.height == 200
    assert set(most) == {1}


def test_no_row_is_quarantined_for_a_store_that_does_not_answer(
    batch: Callable[..., Batch], event_json: EventJson, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable):
        batch(event_json(image=f"file://{tmp_path}/shelf/a.png"))
