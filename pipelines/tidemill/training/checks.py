"""Is this a dataset to learn from? The data gates: each its verdict with a reason, before anything expensive is done.

    data.rows         there are enough rows to train on
    data.schema       the rows are what the resource says of events
    data.labels       the labels are what the resource says of labels
    data.classes      there are enough rows of each class
    data.shares       the fresh rows have the classes (the numbers) of those that are trained on
    data.agreement    labellers agree
    data.leakage      no input tells the answer, no row that judges is trained on
    data.duplicates   fresh rows do not repeat training rows
    data.pictures     pictures can be read

A gate that could refuse an honest dataset warns instead: the run goes on, and its report shows the warning. Skipped by
force are all but those without which nothing can be trained (`NEEDED`).
"""

from collections.abc import Sequence

import polars as pl

from tidemill.core.errors import InvalidInput
from tidemill.features.images import decode_image
from tidemill.metrics.losses import true_number
from tidemill.spec.model import ContinualModel
from tidemill.training.agreed import agreement
from tidemill.training.balance import classes, shares
from tidemill.training.data_verdict import passed, refused, shown
from tidemill.training.labels import label_class, parse_label
from tidemill.training.leaks import leakage
from tidemill.training.repeats import duplicates
from tidemill.training.schema import schema
from tidemill.training.snapshot import Snapshot, SnapshotRecord
from tidemill.training.verdict import GateVerdict, may_pass, skipped

__all__ = ["MAX_INVALID_LABELS", "MIN_ROWS", "NEEDED", "PICTURES", "enforce", "judge_data", "truth_of"]

MIN_ROWS = 50
"""Fewer training rows than this are no dataset."""
MAX_INVALID_LABELS = 0.05
"""Share of labels that do not fit the resource above which something is wrong with one of the two."""
PICTURES = 200
"""Pictures decoded: ingest decoded each one already, so this guards against a broken lake, not bad events."""
NEEDED = frozenset({"data.rows", "data.schema", "data.pictures"})
"""Gates that cannot be skipped: training would fail, later and with less to say."""


def judge_data(
    taken: Snapshot, resource: ContinualModel, *, frozen: pl.DataFrame | None = None, skip: bool = False
) -> tuple[GateVerdict, ...]:
    """The verdict of each data gate, in a fixed order.

    Args:
        taken: the run's snapshot.
        resource: what it is held against.
        frozen: entity and event_id of the rows of the frozen dataset that gates use; None: there is none.
        skip: the gates are not enforced, but for those of `NEEDED`.

    Raises:
        Corrupt: the snapshot is not what was written.
    """
    rows, record = taken.frame(), taken.record
    verdicts = [_rows(rows, record, resource), schema(rows, resource, record.service)]
    if may_pass(verdicts) and rows.height:
        truth = truth_of(rows, resource)
        verdicts += [_labels(record, truth, resource), classes(rows, truth, resource), shares(rows, truth)]
        rows, truth = rows.filter(truth.is_not_null()), truth.drop_nulls()
        verdicts += [agreement(taken.words(), resource), leakage(rows, truth, resource, frozen)]
        verdicts += [duplicates(rows, truth, resource), *_pictures(rows, resource)]
    return tuple(skipped(one) if skip and one.gate not in NEEDED else one for one in verdicts)


def enforce(verdicts: Sequence[GateVerdict]) -> None:
    """Raise `InvalidInput` with each enforced refusal, by its gate, if there is any."""
    if not may_pass(verdicts):
        found = [f"{one.gate}: {one.reason}" for one in verdicts if one.enforced and one.passed is False]
        raise InvalidInput("this snapshot is no dataset to learn from: " + "; ".join(found))


def truth_of(rows: pl.DataFrame, resource: ContinualModel) -> pl.Series:
    """What each row's label states: a class (text), or a number of a regression; null where it states neither."""
    values = [parse_label(text, resource) for text in rows["label"]]
    if resource.spec.prediction.type == "regression":
        fields = resource.spec.labels.fields
        numbers = [None if value is None else true_number(fields, value) for value in values]
        return pl.Series("truth", numbers, dtype=pl.Float64)
    names = [None if value is None else label_class(value, resource) for value in values]
    return pl.Series("truth", names, dtype=pl.String)


def _rows(rows: pl.DataFrame, record: SnapshotRecord, resource: ContinualModel) -> GateVerdict:
    count, fresh = (rows.filter((pl.col("part") == "fresh") == is_fresh).height for is_fresh in (False, True))
    figures = {"rows": count, "fresh": fresh, "disputed": record.disputed, "least": MIN_ROWS}
    if count >= MIN_ROWS:
        return passed("rows", f"{count:,} rows to train on, {fresh:,} held out", **figures)
    after = resource.spec.labels.maturity.after
    disputed = f"; {record.disputed:,} events are left out as their labellers differ" if record.disputed else ""
    reason = (
        f"{count} rows to train on, at least {MIN_ROWS} are needed "
        f"(the newest {fresh} are held out as gates.fresh.rows; rows count once they are labelled and "
        f"{after} old, and a label finds its event by entity and event id{disputed})"
    )
    return refused("rows", [reason], **figures)


def _labels(record: SnapshotRecord, truth: pl.Series, resource: ContinualModel) -> GateVerdict:
    """Those that were left out when the snapshot was taken, and those that do not fit the resource of now."""
    invalid = record.invalid_labels + truth.null_count()
    total = sum(record.rows.values()) + record.invalid_labels
    names = ", ".join(resource.spec.prediction.classes)
    wanted = f"none of the classes {names}" if names else "no number"
    figures = {"labels": total, "invalid": invalid}
    if invalid > MAX_INVALID_LABELS * total:
        reason = f"{invalid:,} of {total:,} labels state {wanted}, at most {MAX_INVALID_LABELS:.0%} may"
        return refused("labels", [reason, "do labels.fields and prediction.classes say what is sent?"], **figures)
    if truth.null_count():
        reason = f"{truth.null_count():,} of the rows' labels state {wanted}: take a new snapshot"
        return refused("labels", [reason], **figures)
    return passed("labels", f"{invalid:,} of {total:,} labels state {wanted} and were left out", **figures)


def _pictures(rows: pl.DataFrame, resource: ContinualModel) -> list[GateVerdict]:
    field = resource.image_field
    if field is None:
        return []
    bad = []
    sample = rows.gather_every(max(1, rows.height // PICTURES))
    for event_id, image in sample.select("event_id", field.name).iter_rows():
        if image is None and not field.required:
            continue
        try:
            decode_image(image or b"")
        except InvalidInput as error:
            bad.append(f"{event_id} ({error.message})")
    figures = {"pictures": sample.height, "unreadable": len(bad)}
    if not bad:
        return [passed("pictures", f"{sample.height} pictures were read", **figures)]
    reason = f"{len(bad)} of {sample.height} pictures cannot be read: {shown(bad)}"
    return [refused("pictures", [reason, "is the picture store the one that ingest wrote to?"], **figures)]
