"""Which labels are likely wrong, and how far each labeller can be relied on: CROWDLAB, as cleanlab implements it.

CROWDLAB (Goh, Tkachenko & Mueller 2022, *CROWDLAB: Supervised learning to infer consensus labels and quality scores for
data with multiple annotators*) weighs each labeller by their agreement with the others, and the model as one more voice
by its own. That voice is the confidence of the logged prediction: it was made before anybody labelled the thing, so it
is out of sample, as the method asks. It breaks what labellers alone cannot: two against two. Where nothing was logged
(labels of history, answers left out of the log) the voice says the shares of the classes among all labels, which is to
say nothing; where that is so everywhere, the method gives the model no weight. Dawid and Skene's model was the
alternative; it needs no model, but of two against two it can say no more than that they differ.

Memory: things x (labellers + classes) numbers, both capped.
"""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tidemill.labels.words import Said

__all__ = ["LikelyError", "Weighed", "weigh"]

MOST_ITEMS = 20_000
"""Things that are weighed, the newest."""
MOST_LABELLERS = 50
MOST_CLASSES = 100

_UNSURE = 0.999
"""A logged confidence counts no higher: a voice that is never wrong could not be outvoted."""


class LikelyError(msgspec.Struct, frozen=True):
    """A label that the consensus contradicts. `quality` is the probability that it is right, by CROWDLAB."""

    label_id: str
    prediction_id: str | None
    entity: str | None
    event_id: str | None
    labeller: str
    said: str
    consensus: str
    quality: float


class Weighed(msgspec.Struct, frozen=True):
    """What cleanlab says of the labels; empty where `why` says why nothing can be said."""

    items: int = 0
    """Things weighed."""
    with_prediction: int = 0
    """Of those, how many the model had answered."""
    reliability: dict[str, float] = {}
    """By labeller, the worst first: the probability that their label is right."""
    consensus: dict[str, int] = {}
    """Things by the value that the weighed labellers and the model come to."""
    contradicted: int = 0
    """Labels that the consensus contradicts."""
    likely_errors: list[LikelyError] = []
    """Of those the worst."""
    tied: int = 0
    """Things on which labellers are tied and no logged prediction speaks: their consensus is as good as drawn."""
    why: str = ""


def weigh(said: Said, classes: Sequence[str], *, most: int = 20) -> Weighed:
    """Weigh labellers and model. Imports cleanlab, which takes a second and some 150 MB.

    Args:
        said: what was said; its field is of type class or bool.
        classes: `spec.prediction.classes`; for a field of type bool the answer's class says whether anything was found.
        most: likely errors that are named.
    """
    if said.field.type not in {"class", "bool"}:
        return Weighed(why=f"{said.field.name} is neither a class nor a bool: no consensus is told")
    words = _capped(said.words.drop_nulls("text"))
    several = words.group_by("item").len().filter(pl.col("len") > 1).height
    if words["labeller"].n_unique() < 2 or not several:
        return Weighed(why="no two labellers labelled the same thing: nothing tells how far either can be relied on")
    values = sorted(set(words["text"]) | (set(classes) if said.field.type == "class" else {"false", "true"}))
    if len(values) > MOST_CLASSES:
        return Weighed(why=f"{len(values):,} different values: more than {MOST_CLASSES} are not weighed")
    if words["text"].n_unique() < 2:
        return Weighed(why="only one value was said: there is nothing to weigh")
    items = words.select("item").unique(maintain_order=True)
    voices, spoken = _voices(items, said, words, values, classes[0])
    labels = _matrix(words, items, values)
    try:
        found = _crowdlab(labels, voices)
    except ImportError:
        return Weighed(why="cleanlab is not installed, so labellers are not weighed: pip install 'tidemill[labels]'")
    consensus = found["label_quality"]["consensus_label"].to_numpy(dtype=int, copy=True)
    unopposed = (
        (~np.isnan(labels)).sum(axis=1) == 1
    ) & ~spoken  # nobody else spoke, whatever the shares of classes say
    consensus[unopposed] = np.nanmax(labels[unopposed], axis=1, initial=0).astype(int)
    told = _told(words, items, values, found, consensus, most)
    tied = _tied(labels, len(values)) & ~spoken
    return msgspec.structs.replace(told, with_prediction=int(spoken.sum()), tied=int(tied.sum()))


def _crowdlab(labels: NDArray[np.float64], voices: NDArray[np.float64]) -> dict[str, Any]:
    from cleanlab.multiannotator import get_label_quality_multiannotator

    with np.errstate(all="ignore"):
        found: dict[str, Any] = get_label_quality_multiannotator(labels, voices, verbose=False)
    return found


def _capped(words: pl.DataFrame) -> pl.DataFrame:
    """The newest things, and the labellers with most labels."""
    most = words.group_by("labeller").len().sort(["len", "labeller"], descending=[True, False]).head(MOST_LABELLERS)
    kept = words.join(most, on="labeller", how="semi", maintain_order="left")
    newest = kept.select("item").unique(maintain_order=True).head(MOST_ITEMS)
    return kept.join(newest, on="item", how="semi", maintain_order="left")


def _labellers(words: pl.DataFrame) -> list[str]:
    return sorted(words["labeller"].unique())


def _matrix(words: pl.DataFrame, items: pl.DataFrame, values: list[str]) -> NDArray[np.float64]:
    """Things x labellers: the number of the value, NaN where they did not label it."""
    row, column = _places(words, items)
    made = np.full((items.height, words["labeller"].n_unique()), np.nan)
    numbers = {value: number for number, value in enumerate(values)}
    made[row, column] = words["text"].replace_strict(numbers, return_dtype=pl.Int64).to_numpy()
    return made


def _places(words: pl.DataFrame, items: pl.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    columns = {name: number for number, name in enumerate(_labellers(words))}
    rows = words.join(items.with_row_index("row"), on="item", how="left", maintain_order="left")["row"]
    return rows.cast(pl.Int64).to_numpy(), words["labeller"].replace_strict(columns, return_dtype=pl.Int64).to_numpy()


def _voices(
    items: pl.DataFrame, said: Said, words: pl.DataFrame, values: list[str], nothing: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Things x values: what the model said, as probabilities; and of which things it said something."""
    counts = dict(words.group_by("text").len().iter_rows())
    shares = np.array([counts.get(value, 0) + 0.5 for value in values])
    made = np.tile(shares / shares.sum(), (items.height, 1))
    answers = items.with_row_index("row").join(said.opinions, on="item").drop_nulls(["answer", "confidence"])
    if said.field.type == "bool":
        answers = answers.with_columns(
            answer=pl.when(pl.col("answer") == nothing).then(pl.lit("false")).otherwise(pl.lit("true"))
        )
    answers = answers.filter(pl.col("answer").is_in(values) & pl.col("confidence").is_between(0, 1))
    row = answers["row"].cast(pl.Int64).to_numpy()
    numbers = {value: number for number, value in enumerate(values)}
    column = answers["answer"].replace_strict(numbers, return_dtype=pl.Int64).to_numpy()
    sure = np.minimum(answers["confidence"].to_numpy(), _UNSURE)
    made[row] = ((1 - sure) / (len(values) - 1))[:, None]
    made[row, column] = sure
    spoken = np.zeros(items.height, bool)
    spoken[row] = True
    return made, spoken


def _tied(labels: NDArray[np.float64], values: int) -> NDArray[np.bool_]:
    """On which things two values have as many votes as any."""
    votes = np.sort(np.stack([(labels == value).sum(axis=1) for value in range(values)], axis=1), axis=1)
    tied: NDArray[np.bool_] = votes[:, -1] == votes[:, -2]
    return tied


def _told(
    words: pl.DataFrame,
    items: pl.DataFrame,
    values: list[str],
    found: dict[str, Any],
    consensus: NDArray[np.int64],
    most: int,
) -> Weighed:
    row, column = _places(words, items)
    judged = words.with_columns(
        consensus=pl.Series([values[number] for number in consensus[row]], dtype=pl.String),
        quality=pl.Series(found["detailed_label_quality"].to_numpy(dtype=float)[row, column]),
    )
    wrong = judged.filter(pl.col("text") != pl.col("consensus")).sort("quality", "label_id")
    names = ("label_id", "prediction_id", "entity", "event_id", "labeller", "text", "consensus", "quality")
    stats, names_of = found["annotator_stats"], _labellers(words)
    quality = {
        names_of[int(place)]: float(value)
        for place, value in stats["annotator_quality"].items()
        if math.isfinite(value)  # not so of one who shares no thing with anybody
    }
    counts = np.bincount(consensus, minlength=len(values))
    return Weighed(
        items=items.height,
        reliability={name: quality[name] for name in sorted(quality, key=lambda name: (quality[name], name))},
        consensus={value: int(count) for value, count in zip(values, counts, strict=True) if count},
        contradicted=wrong.height,
        likely_errors=[LikelyError(*one) for one in wrong.head(most).select(names).iter_rows()],
    )
