"""How far labellers agree: over all, per class, per pair of labellers, and which classes they mix up.

Pure functions of what was said (`words`). Costs: one pass to group things and values, and one over pairs of labels of a
thing; the widest frame held is that of the pairs, of the labellers with most labels alone.
"""

from typing import Any, Literal

import msgspec
import polars as pl

from tidemill.events.records import NewClass
from tidemill.labels.alpha import Alpha, interval_alpha, nominal_alpha
from tidemill.labels.words import Said
from tidemill.metrics.losses import iou

__all__ = [
    "Agreement",
    "ClassAgreement",
    "LabellerSeen",
    "MixedUp",
    "PairAgreement",
    "Place",
    "agreement",
    "new_classes",
    "verdict",
]

MOST_LABELLERS = 50
"""Labellers that are compared with each other, those with most labels; over all, everyone counts."""
_EXAMPLES = 5
_MIXED = 10
_NEW = 50
_SIDE = 2 / 3
"""Share of the things in dispute on which a labeller said one class, from which that is their side."""


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which thing: its ids, and what each labeller said of it."""

    prediction_id: str | None
    entity: str | None
    event_id: str | None
    said: dict[str, str]


class ClassAgreement(msgspec.Struct, frozen=True):
    """One class against all others. `alpha` is None where nothing else, or never this, was said."""

    name: str
    labels: int
    alpha: float | None


class PairAgreement(msgspec.Struct, frozen=True):
    """Two labellers on the things that both labelled. `same` is the share on which they said the same value.

    Of boxes, `items` are the things on which both drew one, `overlap` is their mean IoU, and `same` the share on which
    both drew one or neither did. Of measures, `same` is None.
    """

    labellers: tuple[str, str]
    items: int
    same: float | None
    alpha: float | None
    overlap: float | None = None


class LabellerSeen(msgspec.Struct, frozen=True):
    """One labeller: how many labels, and how often another labeller of the same thing said the same."""

    name: str
    labels: int
    compared: int
    """Labels of others on the same things."""
    same: float | None
    overlap: float | None = None


class MixedUp(msgspec.Struct, frozen=True):
    """Two classes that labellers mix up."""

    classes: tuple[str, str]
    items: int
    """Things of which both were said."""
    sides: dict[str, dict[str, int]]
    """By labeller: how often they said which of the two on those things."""
    question: str
    examples: list[Place]


class Agreement(msgspec.Struct, frozen=True):
    """What can be said of the labels of one field; `notes` say what cannot, and why."""

    field: str
    kind: Literal["nominal", "interval", "box"]
    alpha: float | None
    overlap: float | None
    """Of boxes: the mean IoU of pairs of labellers that both drew one."""
    labels: int
    """Last words, of labels that name their labeller."""
    items: int
    compared: int
    """Things with at least two labellers."""
    min_agreement: float
    trusted: bool | None
    """Whether alpha reaches `labels.minAgreement`; None where alpha is not defined."""
    verdict: str
    classes: list[ClassAgreement]
    pairs: list[PairAgreement]
    labellers: list[LabellerSeen]
    mixed_up: list[MixedUp]
    new_classes: list[NewClass]
    notes: list[str]


def agreement(said: Said, classes: tuple[str, ...], min_agreement: float, *, noun: str = "events") -> Agreement:
    """The agreement on one field.

    Args:
        said: what was said.
        classes: `spec.prediction.classes`.
        min_agreement: `spec.labels.minAgreement`.
        noun: what one thing is called, in the plural.
    """
    words = said.words.with_columns(number=pl.col("text").cast(pl.Float64, strict=False))
    kind = _kind(said)
    alone: dict[str, float | None] = {}
    alpha = Alpha(None, 0)
    if kind == "nominal":
        alpha, alone = nominal_alpha(words)
    elif kind == "interval":
        alpha = interval_alpha(words)
    most = words.group_by("labeller").len().sort(["len", "labeller"], descending=[True, False]).head(MOST_LABELLERS)
    paired = _paired(words.join(most, on="labeller", how="semi"), kind)
    overlap = None
    compared = alpha.compared
    if kind == "box":
        overlap, compared = _number(paired["overlap"].mean()), paired["item"].n_unique()
    trusted = None if alpha.value is None else alpha.value >= min_agreement
    return Agreement(
        field=said.field.name,
        kind=kind,
        alpha=alpha.value,
        overlap=overlap,
        labels=words.height,
        items=words["item"].n_unique(),
        compared=compared,
        min_agreement=min_agreement,
        trusted=trusted,
        verdict=verdict(said.field.name, kind, alpha, overlap, min_agreement),
        classes=_classes(words, classes, alone) if kind == "nominal" else [],
        pairs=_pairs(paired, kind),
        labellers=_labellers(words, paired),
        mixed_up=_mixed_up(words, paired, noun) if kind == "nominal" else [],
        new_classes=new_classes(said, classes),
        notes=_notes(said, words),
    )


def new_classes(said: Said, classes: tuple[str, ...]) -> list[NewClass]:
    """Values of a field of type class outside the declared classes, the commonest first, by all labels."""
    new = said.values.filter(~pl.col("text").is_in(list(classes))).head(_NEW)
    rows = new.select("text", "labels", pl.col("first_seen").dt.epoch("ms")).iter_rows()
    return [NewClass(value=value, labels=labels, first_seen=first) for value, labels, first in rows]


def verdict(field: str, kind: str, alpha: Alpha, overlap: float | None, min_agreement: float) -> str:
    """Whether the labels are trusted, plainly."""
    if kind == "box":
        if overlap is None:
            return f"nothing can be said of {field}: no two labellers drew a box on the same thing"
        return f"boxes overlap by {overlap:.2f} on average; minAgreement is of alpha, and says nothing of boxes"
    if alpha.value is None:
        return f"nothing can be said of {field}: {alpha.why}"
    if alpha.value >= min_agreement:
        return f"trusted: alpha {alpha.value:.2f} reaches minAgreement {min_agreement:g}"
    return f"not trusted: alpha {alpha.value:.2f} is below minAgreement {min_agreement:g}"


def _kind(said: Said) -> Literal["nominal", "interval", "box"]:
    if said.field.type == "box":
        return "box"
    return "interval" if said.field.type in {"int", "float"} else "nominal"


def _paired(words: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Each pair of labels of a thing, once: item, a < b (labellers), x, y (what they said), u, v (as numbers)."""
    left = words.select("item", a="labeller", x="text", u="number")
    right = words.select("item", b="labeller", y="text", v="number")
    if kind == "nominal":
        left, right = left.drop_nulls("x"), right.drop_nulls("y")
    elif kind == "interval":
        left, right = left.filter(pl.col("u").is_finite()), right.filter(pl.col("v").is_finite())
    paired = left.lazy().join(right.lazy(), on="item").filter(pl.col("a") < pl.col("b")).collect()
    if kind != "box":
        same = pl.col("x") == pl.col("y") if kind == "nominal" else pl.lit(None, pl.Boolean)
        return paired.with_columns(same=same, overlap=pl.lit(None, pl.Float64))
    overlaps = [_overlap(x, y) for x, y in paired.select("x", "y").iter_rows()]
    return paired.with_columns(
        same=pl.col("x").is_null() == pl.col("y").is_null(), overlap=pl.Series(overlaps, dtype=pl.Float64)
    )


def _overlap(first: str | None, second: str | None) -> float | None:
    """IoU of two boxes in JSON; None where one of them is no box."""
    if first is None or second is None:
        return None
    try:
        return iou(*(msgspec.json.decode(text, type=list[float]) for text in (first, second)))
    except msgspec.MsgspecError:  # labels of an older form of the resource
        return None


def _classes(words: pl.DataFrame, classes: tuple[str, ...], alone: dict[str, float | None]) -> list[ClassAgreement]:
    counts = dict(words.drop_nulls("text").group_by("text").len().iter_rows())
    declared = [*(name for name in classes if name in counts), *sorted(counts.keys() - set(classes))]
    return [ClassAgreement(name, counts[name], alone.get(name)) for name in declared[:MOST_LABELLERS]]


def _pairs(paired: pl.DataFrame, kind: str) -> list[PairAgreement]:
    """Alpha of two labellers follows from how often they differ and from the values of both together."""
    group = ["a", "b"]
    items = pl.col("overlap").count() if kind == "box" else pl.len()
    found = paired.group_by(group).agg(
        items.alias("items"), pl.col("same").mean().alias("same"), pl.col("overlap").mean().alias("overlap")
    )
    if kind == "box":
        found = found.with_columns(alpha=pl.lit(None, pl.Float64))
    else:
        found = found.join(_pair_alpha(paired, kind), on=group)
    rows = found.sort(group).select("a", "b", "items", "same", "alpha", "overlap").iter_rows()
    return [PairAgreement((a, b), *rest) for a, b, *rest in rows]


def _pair_alpha(paired: pl.DataFrame, kind: str) -> pl.DataFrame:
    group = ["a", "b"]
    if kind == "nominal":
        both = pl.concat([paired.select(*group, value=name) for name in ("x", "y")])
        expected = (
            both.group_by(*group, "value")
            .agg(pl.len().cast(pl.Float64).alias("n"))
            .group_by(group)
            .agg(total=pl.col("n").sum(), squares=(pl.col("n") ** 2).sum())
            .with_columns(
                expected=(pl.col("total") ** 2 - pl.col("squares")) / (pl.col("total") * (pl.col("total") - 1))
            )
        )
        observed = paired.group_by(group).agg((~pl.col("same")).mean().alias("observed"))
    else:
        both = pl.concat([paired.select(*group, value=name) for name in ("u", "v")])
        expected = both.group_by(group).agg((2 * pl.col("value").var()).alias("expected"))
        observed = paired.group_by(group).agg(((pl.col("u") - pl.col("v")) ** 2).mean().alias("observed"))
    defined = pl.when(pl.col("expected") > 0).then(1 - pl.col("observed") / pl.col("expected"))
    return observed.join(expected, on=group).select(*group, defined.alias("alpha"))


def _labellers(words: pl.DataFrame, paired: pl.DataFrame) -> list[LabellerSeen]:
    """Those with most labels first."""
    each = pl.concat([paired.select("same", "overlap", labeller=name) for name in ("a", "b")])
    others = each.group_by("labeller").agg(pl.len().alias("compared"), pl.col("same", "overlap").mean())
    counts = words.group_by("labeller").agg(pl.len().alias("labels"))
    found = counts.join(others, on="labeller", how="left").with_columns(pl.col("compared").fill_null(0))
    ordered = found.sort(["labels", "labeller"], descending=[True, False]).head(MOST_LABELLERS)
    return [
        LabellerSeen(*row) for row in ordered.select("labeller", "labels", "compared", "same", "overlap").iter_rows()
    ]


def _mixed_up(words: pl.DataFrame, paired: pl.DataFrame, noun: str) -> list[MixedUp]:
    """The pairs of values that were both said of a thing, those of most things first."""
    apart = paired.filter(~pl.col("same")).select(
        "item", low=pl.min_horizontal("x", "y"), high=pl.max_horizontal("x", "y")
    )
    apart = apart.unique(maintain_order=True)
    common = apart.group_by("low", "high").len().sort(["len", "low", "high"], descending=[True, False, False])
    found = []
    for low, high, items in common.head(_MIXED).iter_rows():
        disputed = apart.filter((pl.col("low") == low) & (pl.col("high") == high)).select("item").sort("item")
        said = words.join(disputed, on="item", how="semi")
        sides = _sides(said.filter(pl.col("text").is_in([low, high])))
        examples = [_place(said.filter(pl.col("item") == item)) for item in disputed["item"].head(_EXAMPLES)]
        found.append(MixedUp((low, high), items, sides, _question(low, high, items, sides, noun), examples))
    return found


def _sides(said: pl.DataFrame) -> dict[str, dict[str, int]]:
    sides: dict[str, dict[str, int]] = {}
    for labeller, text, count in said.group_by("labeller", "text").len().sort("labeller", "text").iter_rows():
        sides.setdefault(labeller, {})[text] = count
    return sides


def _question(low: str, high: str, items: int, sides: dict[str, dict[str, int]], noun: str) -> str:
    """For the labellers, in words."""
    told = []
    for name in (low, high):
        on_it = [of for of, counts in sides.items() if counts.get(name, 0) >= _SIDE * sum(counts.values())]
        if on_it:
            told.append(f"{_listed(on_it)} {'say' if len(on_it) > 1 else 'says'} {name}")
    things = noun.removesuffix("s") if items == 1 else noun
    return f"is this {low} or {high}? {items} {things}" + (f"; {', '.join(told)}" if told else "; no one takes a side")


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _place(said: pl.DataFrame) -> Place:
    """One thing, from all that was said of it."""
    first = said.row(0, named=True)
    words = {row["labeller"]: str(row["text"]) for row in said.sort("labeller").iter_rows(named=True)}
    return Place(first["prediction_id"], first["entity"], first["event_id"], words)


def _notes(said: Said, words: pl.DataFrame) -> list[str]:
    notes = []
    labellers = words["labeller"].n_unique()
    if labellers < 2:
        notes.append(f"{labellers or 'no'} labeller: agreement needs two who label the same things")
    if said.unnamed:
        notes.append(f"{said.unnamed:,} labels name no labeller and are left out")
    if labellers > MOST_LABELLERS:
        notes.append(f"pairs are of the {MOST_LABELLERS} labellers with most labels, of {labellers:,}")
    if said.capped:
        notes.append(f"of the newest {said.read:,} labels; there are more")
    return notes


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
