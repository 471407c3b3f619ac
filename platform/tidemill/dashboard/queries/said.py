"""What labellers said of a thing."""

from dataclasses import dataclass

import msgspec
import polars as pl

from tidemill.core.clock import to_ms
from tidemill.core.errors import NotFound
from tidemill.dashboard.queries.browse import Box, Thing, box_of
from tidemill.events.lake import LakeTable, table_uri
from tidemill.labels.words import judged_field
from tidemill.spec.model import ContinualModel

__all__ = ["Said", "said_of"]

_SAID = 200
"""Labels that are read of the things on one page."""


@dataclass(frozen=True, slots=True)
class Said:
    """One labeller's word on a thing."""

    labeller: str
    label: str | None
    box: Box | None
    at: int


def said_of(lake: str, resource: ContinualModel, thing: Thing) -> tuple[Said, ...]:
    """Each labeller's last word on a thing, the newest first. Raises `Unavailable`."""
    table = LakeTable(table_uri(lake, resource.id, "labels"))
    try:
        rows = table.scan().filter(pl.col("refused").is_null(), pl.col("value").is_not_null())
    except NotFound:
        return ()
    mine = pl.col("prediction_id") == thing.prediction_id
    if thing.event_id is not None:
        mine |= (pl.col("entity") == thing.entity) & (pl.col("event_id") == thing.event_id)
    found = table.collect(rows.filter(mine).select("labeller", "value", "available_at").top_k(_SAID, by="available_at"))
    box = next((one.name for one in resource.spec.labels.fields if one.type == "box"), "")
    words: dict[str, Said] = {}
    for labeller, text, at in found.sort("available_at", descending=True).iter_rows():
        value = msgspec.json.decode(text)
        if isinstance(value, dict):
            judged = value.get(judged_field(resource).name)
            said = None if judged is None else str(judged)
            words.setdefault(labeller or "", Said(labeller or "nobody", said, box_of(value.get(box)), to_ms(at)))
    return tuple(words.values())
