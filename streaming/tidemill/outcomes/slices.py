"""Where a version is worse: gaps between the groups of the resource, and the worst few slices of its outcomes."""

from datetime import datetime
from hashlib import blake2b
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from tidemill.metrics.conditions import coded
from tidemill.metrics.gaps import SMALLEST_GROUP, Gap, Group, gap_of
from tidemill.metrics.slices import Finding, Losses, find
from tidemill.outcomes.known import Bracketed, Cut, Kind
from tidemill.outcomes.matured import Matured, matured
from tidemill.spec.model import ContinualModel

__all__ = ["BLOCKS", "MANY_ENTITIES", "MOST_GROUPS", "GroupGap", "SliceReport", "Units", "clusters_of", "slices_of"]

MANY_ENTITIES = 40
"""Entities from which on they are the clusters: half of them are searched, the others tested."""
BLOCKS = 40
"""Stretches of time with equally many outcomes, which are the clusters where entities are few."""
MOST_GROUPS = 50
"""Groups that are told, the largest: more are no groups but ids."""
NO_GROUP = "(none)"
"""Stands for outcomes without a value."""

Units = Literal["entities", "time"]
"""What the clusters are."""


class GroupGap(msgspec.Struct, frozen=True, kw_only=True):
    """The groups of one name, and the gap of their errors."""

    by: str
    groups: list[Group]
    """By name; of more than `MOST_GROUPS` the largest."""
    left_out: int
    """Groups that are not told."""
    gap: Gap | None


class SliceReport(msgspec.Struct, frozen=True, kw_only=True):
    """Where a version is worse."""

    version: str
    kind: Kind
    since: datetime
    """Time of the first prediction that was looked at."""
    through: datetime
    """Of the last one."""
    is_cut: bool
    """Whether there may be more, older outcomes."""
    outcomes: int
    labelled: int
    """Labels that count."""
    waiting: int
    """Labels that are still to come: they count as right in a slice, and as wrong elsewhere."""
    lost: int
    """Predictions that may be missing from the log, at most; the slices do not allow for them."""
    gaps: list[GroupGap]
    units: Units
    clusters: int
    candidates: int
    """Slices that were looked at."""
    tested: int
    found: list[Finding]
    """All of them are worse than elsewhere, with 95 %; the surest first."""


def slices_of(
    lake: str, resource: ContinualModel, cut: Cut, *, units: Units | None = None, risk: float = 0.05
) -> SliceReport | None:
    """The gaps and slices of `cut.version`, or of the version that answered last; None where it has no outcome.

    Args:
        lake: where the tables are.
        resource: the model.
        cut: `version`, `since` and `until` are looked at.
        units: what the clusters are; None: entities, where there are many.
        risk: of each gap's interval, and of all slices together.

    Raises `NotFound` before there are outcomes, `Unavailable`.
    """
    found = matured(lake, resource, cut)
    if found is None:
        return None
    entity = resource.spec.events.entity.name
    losses, of = clusters_of(found, units)
    features = [one for one in found.features() if of == "time" or one.name != entity]
    known = losses.known
    with_codes = [one for one in (coded(feature, losses.searched & known) for feature in features) if one is not None]
    search = find(with_codes, losses, risk=risk)
    groups = resource.spec.triggers.drift.slices if resource.spec.triggers.drift else ()
    times = found.rows["predicted_at"]
    return SliceReport(
        version=found.version,
        kind=found.kind,
        since=times[0],
        through=times[-1],
        is_cut=found.is_cut,
        outcomes=found.rows.height,
        labelled=int(known.sum()),
        waiting=int(((losses.weights > 0) & ~known).sum()),
        lost=found.lost,
        gaps=[group_gap(found, name, risk) for name in groups],
        units=of,
        clusters=losses.count,
        candidates=search.candidates,
        tested=len(search.tested),
        found=list(search.found),
    )


def clusters_of(found: Matured, units: Units | None) -> tuple[Losses, Units]:
    """The losses with their clusters, half of which are searched, and what they are of."""
    values, weights = found.losses, found.weights
    names = found.rows["entity"].fill_null("")
    counts = pl.DataFrame({"entity": names, "weight": weights}).filter(pl.col("weight") > 0)["entity"].n_unique()
    if units == "entities" or (units is None and counts >= MANY_ENTITIES):
        distinct = names.unique().sort()
        clusters = names.replace_strict(distinct, pl.Series(np.arange(len(distinct))), return_dtype=pl.Int64)
        # By a hash, so that no order of the names decides.
        half = np.array([blake2b(name.encode(), digest_size=1).digest()[0] & 1 for name in distinct], dtype=bool)
        places = clusters.to_numpy()
        return Losses(values, weights, places, len(distinct), half[places]), "entities"
    blocks = _blocks(weights > 0)
    return Losses(values, weights, blocks, BLOCKS, blocks % 2 == 0), "time"


def _blocks(counts: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The stretch of time of each outcome: as many that count in each."""
    rank: npt.NDArray[np.int64] = np.cumsum(counts) - counts
    found: npt.NDArray[np.int64] = np.minimum(rank * BLOCKS // max(1, int(counts.sum())), BLOCKS - 1)
    return found


def group_gap(found: Matured, name: str, risk: float) -> GroupGap:
    """The error of each group, with intervals that hold together and at every moment, and the gap."""
    if name not in found.values.columns:
        return GroupGap(by=name, groups=[], left_out=0, gap=None)
    names = found.values[name].cast(pl.String).fill_null(NO_GROUP).alias("group")
    counts = names.value_counts(sort=True)
    told = counts["group"].head(MOST_GROUPS)
    rows = found.rows.select("asked", "low", "high", "chance", group=names).filter(
        pl.col("group").is_in(told.implode())
    )
    by_name = rows.partition_by("group", as_dict=True)
    sizes = {key: int((part["asked"] & (part["low"] == part["high"])).sum()) for key, part in by_name.items()}
    judged = sum(size >= SMALLEST_GROUP for size in sizes.values())
    groups = []
    for key, part in by_name.items():
        estimate = Bracketed(found.least, risk / max(1, judged))
        estimate.update(part.filter("asked").select("low", "high", "chance").to_numpy())
        seen = estimate.estimate(0 if found.kind == "labelled only" else found.lost)
        groups.append(
            Group(
                name=str(key[0]),
                outcomes=part.height,
                labelled=seen.labelled,
                mean=seen.mean,
                interval=seen.interval,
                is_judged=sizes[key] >= SMALLEST_GROUP,
            )
        )
    groups.sort(key=lambda one: one.name)
    return GroupGap(by=name, groups=groups, left_out=len(counts) - len(told), gap=gap_of(groups))
