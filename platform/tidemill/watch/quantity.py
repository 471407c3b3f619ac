"""What is kept of one quantity that is watched, and the detectors it gives.

A quantity is a number, a category, or a loss, with one vote per entity and window tick. `tidemill.stats.drift` says how
its rows are bet on; the figures for that, and for telling people what moved, are here.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from tidemill.stats.drift import HOUR_MS, MISSING, Detectors, Missing, Watched, detectors
from tidemill.watch.season import Season
from tidemill.watch.votes import Kind

__all__ = ["ENTITIES", "FeatureReference", "MissingReference", "State", "Subject", "fits", "in_hour", "watched"]

ENTITIES = 64
"""Entities up to which each one's mean is kept, so that a signal can name those that moved."""

Subject = Literal["inputs", "predictions", "labels", "errors"]
"""What a quantity is of; each has a stream of votes of its own."""
State = Literal["ok", "reference-too-small", "cannot-promise"]


class MissingReference(msgspec.Struct, frozen=True, kw_only=True):
    """The missing rate. A vote is the share of one entity's rows in one window tick that have no value."""

    share: float
    """Mean of the votes in the half that makes the reference."""
    c_ref: float
    """How far it may be from the truth."""
    tau: float


class FeatureReference(msgspec.Struct, frozen=True, kw_only=True):
    """One feature. A vote is of one entity's rows in one window tick: their mean, or the share of each value."""

    name: str
    kind: Kind = "number"
    subject: Subject = "inputs"
    """What it is of."""
    slice: str | None = None
    """The group it is of, such as `station=B`; None: all."""
    state: State
    """Whether drift of it is signalled; if not, `reason` says why, with figures."""
    reason: str = ""
    """Where the state is ok: what of it is not watched, and why."""
    edges: tuple[float, ...] = ()
    """Bin edges of a number, rising: one below the smallest vote, quantiles, the largest vote."""
    labels: tuple[str, ...] = ()
    """Values of a category that are told apart, at most 15, the commonest first; the last share is that of others."""
    others: int = 0
    """Values of a category that were there besides."""
    shares: tuple[float, ...] = ()
    """Of a number the share of votes at or below each edge, 0 first, 1 last; of a category the mean share of each
    label and of all other values; of a loss its mean."""
    votes: int = 0
    """Votes in the half that makes the reference."""
    ticks: int = 0
    """Window ticks with votes in the whole reference."""
    tau: float = 1.0
    """Variance inflation of block means: how many dependent votes are worth one independent vote."""
    c_ref: float = 1.0
    """How far the shares may be from the truth, except with 1 %; the largest of `margins` where there are any."""
    margins: tuple[float, ...] = ()
    """That of each share, of a category or a loss: rare values are known better."""
    missing: MissingReference | None = None
    """The missing rate; None where it is not watched."""
    tolerance: float
    """The tolerance in use; above the declared one where hours differ by more, or the older half alarmed. Of a loss
    the largest rise."""
    raised: bool = False
    """Whether it was raised."""
    season: Season | None = None
    """How hours differ of themselves; None where they do not, or too little was seen to tell."""
    votes_needed: int = 0
    """Votes in the whole reference from which c_ref is at most half the declared tolerance."""
    mean: float | None = None
    """Mean of the votes that make the reference; None of a category."""
    deviation: float | None = None
    """Standard deviation of the rows; None of a category."""
    entities: Mapping[str, float] = {}
    """Mean by entity; empty where there are more than 64, and of a category."""
    entity_shares: Mapping[str, tuple[float, ...]] = {}
    """Of a category: `shares` by entity; empty where there are more than 64."""
    finds_one_sigma_in: int | None = None
    """Events, in about so many of which a shift of one `deviation` is found; None: not in 30 days, or never."""
    finds_in: int | None = None
    """The same of a category: until it is found that half of all rows have a value that was never there. Of a loss:
    that it rose by twice the tolerance."""

    @property
    def said(self) -> str:
        """What people call it: losses of several groups have one name."""
        return self.name if self.slice is None else f"{self.name}, {self.slice}"

    @property
    def key(self) -> str:
        """What no other quantity of its version is called: an event field may be called as the loss is."""
        return self.said if self.subject == "inputs" else f"{self.subject}/{self.said}"


def fits(feature: FeatureReference) -> bool:
    """Whether its figures are of one piece."""
    widths = {"number": len(feature.edges), "category": len(feature.labels) + 1, "loss": 1}
    rows = len(feature.shares)
    rising = all(one < other for one, other in zip(feature.edges, feature.edges[1:], strict=False))
    if feature.kind == "number":
        rising &= all(one <= other for one, other in zip(feature.shares, feature.shares[1:], strict=False))
    wide = {rows, len(feature.margins) or rows, *map(len, feature.entity_shares.values())} == {rows}
    hours = feature.season.shares if feature.season is not None else ()
    wide &= len(hours) in {0, 24, 168} and {len(shares) for shares in hours} <= {0, rows}
    return rising and wide and rows <= MISSING and rows in {0, widths[feature.kind]}


def in_hour(feature: FeatureReference, begin: int) -> FeatureReference:
    """The feature with the shares and means that are usual in the hour in which a tick begins (milliseconds)."""
    season = feature.season
    if season is None or not season.shares:
        return feature
    hour = begin // HOUR_MS % len(season.shares)
    usual = season.means[hour]
    moved = 0.0 if usual is None or feature.mean is None else usual - feature.mean
    return msgspec.structs.replace(
        feature,
        shares=season.shares[hour] or feature.shares,
        mean=None if feature.mean is None else feature.mean + moved,
        entities={entity: mean + moved for entity, mean in feature.entities.items()},
    )


def watched(features: Sequence[FeatureReference], *, tolerance: float = 0.0, rise: float = 0.0) -> Detectors:
    """The detectors against `features`; a declared `tolerance`, or `rise` of a loss, above theirs holds at once."""
    return detectors(
        [
            Watched(
                edges=feature.edges,
                shares=feature.shares,
                tolerance=max(feature.tolerance, rise if feature.kind == "loss" else tolerance),
                c_ref=feature.c_ref,
                tau=feature.tau,
                on=feature.state == "ok",
                margins=feature.margins,
                missing=_missing(feature.missing),
                only_rise=feature.kind == "loss",
                hours=feature.season.shares if feature.season is not None else (),
            )
            for feature in features
        ]
    )


def _missing(reference: MissingReference | None) -> Missing | None:
    if reference is None:
        return None
    return Missing(share=reference.share, c_ref=reference.c_ref, tau=reference.tau)
