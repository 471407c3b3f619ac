"""The gate `data.duplicates`: fresh rows that were seen in training show what a model remembers, not what it learnt.

The same content is natural where inputs have few values, or a camera stands still. Refused are only fresh rows that
repeat training rows, with their labels, as training rows do not repeat each other: at least 30 different contents and
half of all, where of as many training rows, the newest, at most a tenth repeats older ones. Were both shares the same
in truth, Fisher's exact test gives 30 of 60 against 6 of 60 a probability of about 1e-6.
"""

import polars as pl

from tidemill.spec.model import ContinualModel
from tidemill.training.data_verdict import passed, refused, warned
from tidemill.training.verdict import GateVerdict, Value

__all__ = ["duplicates"]

_TWINS, _REPEATED, _USUAL = 30, 0.5, 0.1
_COPIES = 0.2
"""Share of training rows that are copies of others, above which it is told."""


def duplicates(rows: pl.DataFrame, truth: pl.Series, resource: ContinualModel) -> GateVerdict:
    """Judge whether fresh rows repeat training rows (see the module), and how many training rows are copies."""
    image = resource.image_field
    names = [image.name] if image else [field.name for field in resource.spec.events.fields]
    keyed = rows.select(
        "part", "event_time", "source", "offset", content=pl.struct(pl.col(name).hash() for name in names)
    ).with_columns(truth=truth)
    train = keyed.filter(pl.col("part") != "fresh").sort("event_time", "source", "offset")
    fresh = keyed.filter(pl.col("part") == "fresh")
    size = min(fresh.height, train.height // 2)
    twins, share = _twins(fresh, train)
    _, usual = _twins(train.tail(size), train.head(train.height - size))
    copies = 1 - train["content"].n_unique() / train.height if train.height else 0.0
    figures: dict[str, Value] = {"twins": twins, "fresh_share": share, "train_share": usual, "copies": copies}
    what = "pictures" if image else "contents"
    said = (
        f"{share:.0%} of the different {what} of fresh rows ({twins:,}) are in training rows with the same label; "
        f"of as many newest training rows it is {usual:.0%}"
    )
    if size >= _TWINS and twins >= _TWINS and share >= _REPEATED and usual <= _USUAL:
        todo = "fresh rows would show memory only: were events sent again under other ids?"
        return refused("duplicates", [said, todo], **figures)
    notes = [said] if share >= 2 * usual + 0.01 and twins else []
    if copies > _COPIES:
        notes.append(f"{copies:.0%} of the training rows are copies of others")
    return warned("duplicates", notes, **figures) if notes else passed("duplicates", said, **figures)


def _twins(asked: pl.DataFrame, among: pl.DataFrame) -> tuple[int, float]:
    """How many different contents with their truth are also among the others, and what share of all that is."""
    different = asked.select("content", "truth").unique()
    twins = different.join(among.select("content", "truth"), on=["content", "truth"], how="semi").height
    return twins, twins / different.height if different.height else 0.0
