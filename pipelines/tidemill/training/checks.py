"""Is this a dataset to learn from? Every reason why not, in words, before anything expensive is done."""

from collections import Counter
from collections.abc import Sequence

import polars as pl

from tidemill.core.errors import InvalidInput
from tidemill.features.images import decode_image
from tidemill.spec.model import ContinualModel
from tidemill.training.labels import label_class, parse_label
from tidemill.training.snapshot import SnapshotRecord

__all__ = ["MAX_INVALID_LABELS", "MIN_CLASS_ROWS", "MIN_ROWS", "PICTURES", "check", "complaints"]

MIN_ROWS = 50
"""Fewer training rows than this are no dataset."""
MIN_CLASS_ROWS = 5
"""A class with fewer training rows is not learnt."""
MAX_INVALID_LABELS = 0.05
"""Share of labels that do not fit the resource above which something is wrong with one of the two."""

PICTURES = 200
"""Pictures decoded: ingest decoded each one already, so this guards against a broken lake, not bad events."""

_SHOWN = 3


def check(frame: pl.DataFrame, record: SnapshotRecord, resource: ContinualModel) -> None:
    """Raise `InvalidInput` with all complaints about a snapshot, if there is any."""
    if found := complaints(frame, record, resource):
        raise InvalidInput("this snapshot is no dataset to learn from: " + "; ".join(found))


def complaints(frame: pl.DataFrame, record: SnapshotRecord, resource: ContinualModel) -> list[str]:
    """What is wrong with a snapshot, each in a sentence; empty when nothing is."""
    train = frame.filter(pl.col("part") != "fresh")
    fresh = frame.filter(pl.col("part") == "fresh")
    found = _too_few(train, fresh, record, resource)
    if train.height and resource.spec.prediction.type != "regression":
        found += _classes(train, resource)
    found += _leaks(train, fresh, resource)
    found += _pictures(frame, resource)
    return found


def _too_few(train: pl.DataFrame, fresh: pl.DataFrame, record: SnapshotRecord, resource: ContinualModel) -> list[str]:
    found = []
    if train.height < MIN_ROWS:
        after = resource.spec.labels.maturity.after
        found.append(
            f"{train.height} rows to train on, at least {MIN_ROWS} are needed "
            f"(the newest {fresh.height} are held out as gates.fresh.rows; rows count once they are labelled and "
            f"{after} old, and a label finds its event by entity and event id)"
        )
    labelled = sum(record.rows.values())
    if record.invalid_labels > MAX_INVALID_LABELS * (labelled + record.invalid_labels):
        classes = ", ".join(resource.spec.prediction.classes)
        wanted = f"none of the classes {classes}" if classes else "no number"
        found.append(f"{record.invalid_labels} labels state {wanted}")
    return found


def _classes(train: pl.DataFrame, resource: ContinualModel) -> list[str]:
    values = [parse_label(text, resource) for text in train["label"]]
    counts = Counter(label_class(value, resource) for value in values if value is not None)
    expected: Sequence[str] = resource.spec.prediction.classes
    if not any(field.type == "class" for field in resource.spec.labels.fields):
        expected = (expected[0], "found")
    rare = [f"{name} ({counts[name]})" for name in expected if counts[name] < MIN_CLASS_ROWS]
    return [f"fewer than {MIN_CLASS_ROWS} training rows of class {', '.join(rare)}"] if rare else []


def _leaks(train: pl.DataFrame, fresh: pl.DataFrame, resource: ContinualModel) -> list[str]:
    found = []
    columns = {field.name for field in resource.spec.events.fields} | set(resource.spec.features.image)
    both = sorted(columns & {field.name for field in resource.spec.labels.fields})
    if both:
        found.append(f"{', '.join(both)} is both an input and a label: the model would be told the answer")
    shared = train.join(fresh, on=["entity", "event_id"], how="semi").height
    if shared:
        found.append(f"{shared} events are both trained on and held out")
    return found


def _pictures(frame: pl.DataFrame, resource: ContinualModel) -> list[str]:
    field = resource.image_field
    if field is None:
        return []
    bad = []
    sample = frame.gather_every(max(1, frame.height // PICTURES))
    for event_id, image in sample.select("event_id", field.name).iter_rows():
        if image is None and not field.required:
            continue
        try:
            decode_image(image or b"")
        except InvalidInput as error:
            bad.append(f"{event_id} ({error.message})")
    shown = ", ".join(bad[:_SHOWN]) + (f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else "")
    return [f"{len(bad)} of {sample.height} pictures cannot be read: {shown}"] if bad else []
