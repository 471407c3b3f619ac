"""The books at the end: what the factory sent, against what the lake, the prediction log and the outcomes hold."""

from collections.abc import Callable

import msgspec
import polars as pl

from tidemill.control.provision import topics_of
from tidemill.core.clock import Clock
from tidemill.core.errors import NotFound
from tidemill.events.kafka import RecordReader
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.records import Outcome, Prediction
from tidemill.spec.model import ContinualModel
from tidemill.wiring import Local

from .factory import Counts

__all__ = ["Books", "close_books"]

_WITHIN_S = 45.0


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """What the stores hold of what the factory sent."""

    ingested: int
    """Different events in the lake."""
    repeated: int
    """Rows of the lake beyond these."""
    quarantined: int
    logged: int
    """Answers that the factory got and that are in the prediction log."""
    joined: int
    """Answers that the factory got and whose outcome has its label."""


def close_books(
    machine: Local,
    resource: ContinualModel,
    answered: set[str],
    counts: Counts,
    clock: Clock,
    waiting: Callable[[], None] = lambda: None,
) -> Books:
    """Count, until everything is there or nothing more comes for too long.

    Args:
        machine: where to look.
        resource: the model.
        answered: ids of the predictions that the factory got.
        counts: what the factory sent.
        clock: for the deadline.
        waiting: called between two looks.
    """
    kafka, topics = machine.settings.require_kafka(), topics_of(resource)
    logged: set[str] = set()
    joined: set[str] = set()
    end = clock.monotonic() + _WITHIN_S
    with (
        # What servers say of themselves stands there, too.
        RecordReader(kafka, topics.predictions, Prediction, on_bad=lambda *_: None) as predictions,
        RecordReader(kafka, topics.outcomes, Outcome, keyed=True) as outcomes,
    ):
        while True:
            logged |= {one.record.prediction_id for one in predictions.poll(5000, 0.2)} & answered
            found = [one.record for one in outcomes.poll(5000, 0.2)]
            joined |= {one.prediction_id for one in found if one.label is not None} & answered
            ingested, repeated = _events(machine, resource)
            complete = ingested >= counts.events and logged >= answered and joined >= answered
            if complete or clock.monotonic() > end:
                break
            waiting()
    return Books(
        ingested=ingested,
        repeated=repeated,
        quarantined=_rows(machine, resource, "quarantine"),
        logged=len(logged),
        joined=len(joined),
    )


def _events(machine: Local, resource: ContinualModel) -> tuple[int, int]:
    table = LakeTable(table_uri(machine.settings.lake_uri, resource.id, "events"))
    try:
        frame = table.scan().select("entity", "event_id").collect()
    except NotFound:
        return 0, 0
    different = frame.n_unique()
    return different, frame.height - different


def _rows(machine: Local, resource: ContinualModel, name: str) -> int:
    table = LakeTable(table_uri(machine.settings.lake_uri, resource.id, name))
    try:
        return int(table.scan().select(pl.len()).collect().item())
    except NotFound:
        return 0
