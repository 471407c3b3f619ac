"""The queue as it is shown: what was picked and has no label yet, in the order in which to label it.

Picks of the control share come first, because an estimate needs all of them: who stops half-way must not leave them
out. Then the most useful: disputes, and the largest probabilities.

Only a label that came after the pick answers it. One that was volunteered before has another probability, and estimates
that rest on picks would wait in vain for a thing that nobody is shown.
"""

import math
from collections.abc import Mapping

import msgspec
import polars as pl

from tidemill.core.errors import NotFound
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.pictures import DIGEST_COLUMN
from tidemill.labels.queue import CONTROL, DISPUTE, coin
from tidemill.labels.rounds import Round, answered, disputed
from tidemill.spec.model import ContinualModel

__all__ = ["Waiting", "waiting"]

_DISPUTES = 4
"""One line in so many may be a dispute, so that old disputes do not crowd out what is new."""


class Waiting(msgspec.Struct, frozen=True):
    """One thing to label. `prediction_id` is that of its newest prediction."""

    prediction_id: str | None
    entity: str | None
    event_id: str | None
    reasons: dict[str, float]
    """Each reason that applies, with the probability that was recorded of it; of a dispute 1."""
    probability: float | None
    """With what probability it was picked, as recorded; None for a dispute, which is settled by its first label."""
    answer: str | None = None
    confidence: float | None = None
    picture: str | None = None
    """Where its picture is: a file's place, or `events` where it is in the event's row of the lake."""


def waiting(
    lake: str, resource: ContinualModel, found: Round, picked: Mapping[str, Mapping[str, float]], limit: int
) -> tuple[list[Waiting], int]:
    """The first `limit` lines of the queue, and how many there are.

    Args:
        lake: folder or URI of the lake.
        resource: the model.
        found: the round: what was asked before it, and what is labelled.
        picked: what it picked, with reasons.
        limit: lines.
    """
    open_things = _open(lake, resource, found, picked)
    disputes = disputed(found)
    for item in open_things.keys() & set(disputes["item"]):
        one = open_things[item]
        open_things[item] = msgspec.structs.replace(one, reasons=one.reasons | {DISPUTE: 1.0})
    order = sorted(open_things, key=lambda item: (not _is_control(item, open_things[item]), *_rank(item, open_things)))
    disputes = disputes.filter(~pl.col("item").is_in(list(open_things)))
    room = max(1, limit // _DISPUTES)
    lines = [
        Waiting(prediction_id, entity, event_id, {DISPUTE: 1.0}, None)
        for prediction_id, entity, event_id in disputes.select("prediction_id", "entity", "event_id").head(room).rows()
    ]
    controls = sum(_is_control(item, one) for item, one in open_things.items())
    picks = [open_things[item] for item in order]
    lines = [*picks[:controls], *lines, *picks[controls:]][:limit]
    return _with_pictures(lake, resource, lines), len(picks) + disputes.height


def _open(
    lake: str, resource: ContinualModel, found: Round, picked: Mapping[str, Mapping[str, float]]
) -> dict[str, Waiting]:
    """What was picked, now or before, and has no label since: by thing."""
    table = LakeTable(table_uri(lake, resource.id, "predictions"))
    ids = found.asked["prediction_id"].drop_nulls()
    known = table.scan().filter(pl.col("prediction_id").is_in(ids.implode())).select(answered())
    shown = ("item", "prediction_id", "entity", "event_id", "answer", "confidence", "reasons")
    columns = (*shown, "available_at", "picked_at")
    earlier = table.collect(known).unique("prediction_id").join(found.asked, on="prediction_id").select(columns)
    new = pl.DataFrame(
        [(item, msgspec.json.encode(reasons).decode()) for item, reasons in picked.items()],
        schema={"item": pl.String(), "reasons": pl.String()},
        orient="row",
    )
    picked_now = pl.lit(found.through).alias("picked_at")
    rows = pl.concat([earlier, found.predictions.join(new, on="item").with_columns(picked_now).select(columns)])
    last = found.labelled.group_by("item").agg(pl.max("labelled_at"))
    answers = pl.col("labelled_at").is_not_null()
    if resource.spec.labels.control < 1:  # else picks are not recorded, and every label has the probability 1
        answers &= pl.col("labelled_at") > pl.col("picked_at")
    rows = rows.join(last, on="item", how="left").filter(~answers).sort("available_at", "prediction_id")
    return {
        item: _line(prediction_id, entity, event_id, answer, confidence, msgspec.json.decode(reasons))
        for item, prediction_id, entity, event_id, answer, confidence, reasons in rows.select(shown).iter_rows()
    }


def _line(
    prediction_id: str,
    entity: str,
    event_id: str | None,
    answer: str | None,
    confidence: float | None,
    reasons: dict[str, float],
) -> Waiting:
    probability = 1 - math.prod(1 - share for share in reasons.values())
    return Waiting(prediction_id, entity, event_id, reasons, probability, answer, confidence)


def _is_control(item: str, line: Waiting) -> bool:
    """Whether the control share's coin fell on it, whatever else did."""
    return coin(item, CONTROL) < line.reasons.get(CONTROL, 0.0)


def _rank(item: str, lines: Mapping[str, Waiting]) -> tuple[float, str]:
    shares = (share for name, share in lines[item].reasons.items() if name != CONTROL)
    return math.prod(1 - share for share in shares), item


def _with_pictures(lake: str, resource: ContinualModel, lines: list[Waiting]) -> list[Waiting]:
    """The same lines, with the places of their pictures where the model has pictures and the lake the events."""
    if resource.image_field is None:
        return lines
    table = LakeTable(table_uri(lake, resource.id, "events"))
    ids = [line.event_id for line in lines if line.event_id is not None]
    try:
        rows = table.scan().filter(pl.col("event_id").is_in(ids))
        found = table.collect(rows.select("entity", "event_id", "event_date", DIGEST_COLUMN))
    except NotFound:
        return lines
    store = table_uri(lake, resource.id, "pictures")
    places = {
        (entity, event_id): f"{store}/{day.isoformat()}/{digest[:2]}/{digest}" if digest else "events"
        for entity, event_id, day, digest in found.iter_rows()
    }
    return [
        msgspec.structs.replace(line, picture=places.get((line.entity or "", line.event_id or ""))) for line in lines
    ]
