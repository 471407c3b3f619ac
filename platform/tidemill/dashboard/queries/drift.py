"""Drift of each quantity: what was usual when the version was made, what is now, and the evidence between them.

Both are of votes, as the watch counts them: one of each entity and window tick (`tidemill.watch.votes`).
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import polars as pl

from tidemill.artifacts import local_folder, manifest_of, read
from tidemill.control.state import LoopStatus
from tidemill.core.clock import to_ms
from tidemill.core.errors import NotFound
from tidemill.events.lake import LakeTable, table_uri
from tidemill.spec.model import ContinualModel
from tidemill.watch.quantity import FeatureReference
from tidemill.watch.reference import FILE, Reference, decode_reference
from tidemill.watch.votes import category_votes, votes_of

__all__ = ["Bar", "FeatureDrift", "drift_of", "evidence_of"]

_ROWS = 5000
_TICKS = 300
_RECENT = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bin of a number, or one value of a category."""

    name: str
    before: float
    now: float | None
    """Shares; None where nothing came yet."""


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """One quantity that is watched."""

    name: str
    subject: str
    state: str
    """`alarm`, `ok`, or why it is not watched: `reference-too-small`, `cannot-promise`."""
    reason: str
    """Of an alarm its message; else why it is not watched, or not all of it."""
    evidence: float
    """The detector's M; an alarm is 1."""
    bars: tuple[Bar, ...]
    before: float | None
    """Means; None of a category."""
    now: float | None
    finds: str
    """How soon a shift would be found."""
    note: str = ""
    """Why the two may not look alike though nothing moved."""
    trail: tuple[tuple[int, float], ...] = ()
    """Time and evidence of the last ticks."""


def drift_of(lake: str, resource: ContinualModel, status: LoopStatus | None) -> tuple[FeatureDrift, ...]:
    """Every quantity of the champion's reference, alarms first; none before there is a champion. Raises `Unavailable`.

    What `serving.log.redact` names is left out.
    """
    if status is None or status.champion is None:
        return ()
    reference = _reference(status.champion.artifact)
    if reference is None:
        return ()
    trails = evidence_of(lake, resource)
    events = _events(lake, resource)
    alarms = {(one.subject, one.feature, one.slice): one.message for one in status.drift.alarms}
    hidden = {*resource.spec.serving.log.redact, *(f"prediction.{name}" for name in resource.spec.serving.log.redact)}
    found = [
        _feature(one, reference, trails.get(one.key, ()), events, alarms.get((one.subject, one.name, one.slice)))
        for one in reference.features
        if one.name not in hidden
    ]
    return tuple(sorted(found, key=lambda one: (one.state != "alarm", one.state != "ok")))


def _feature(
    one: FeatureReference,
    reference: Reference,
    trail: tuple[tuple[int, float], ...],
    events: pl.DataFrame | None,
    alarm: str | None,
) -> FeatureDrift:
    shares, mean = _now(one, reference, events)
    return FeatureDrift(
        name=one.said,
        subject=one.subject,
        state="alarm" if alarm else one.state,
        reason=alarm or one.reason,
        evidence=trail[-1][1] if trail else 0.0,
        bars=_bars(one, shares),
        before=one.mean,
        now=mean,
        finds=_finds(one),
        note=_note(one, reference, events),
        trail=trail,
    )


def _bars(one: FeatureReference, now: tuple[float, ...] | None) -> tuple[Bar, ...]:
    """Of a number the votes between two edges, of a category those of each value, of a loss none."""
    if one.kind == "number" and one.edges:
        first, *others, _ = one.edges[1:]
        names = (f"up to {first:.3g}", *(f"to {edge:.3g}" for edge in others), f"above {one.edges[-2]:.3g}")
        # What lies beyond the smallest and the largest vote of the reference counts to the bins at the ends.
        after = None if now is None else (0.0, *now[1:-1], 1.0)
        return tuple(
            Bar(name, one.shares[at + 1] - one.shares[at], None if after is None else after[at + 1] - after[at])
            for at, name in enumerate(names)
        )
    if one.kind == "category" and one.shares:
        values = (*one.labels, "others")
        return tuple(
            Bar(name, share, None if now is None else now[at])
            for at, (name, share) in enumerate(zip(values, one.shares, strict=True))
        )
    return ()


def _now(
    one: FeatureReference, reference: Reference, events: pl.DataFrame | None
) -> tuple[tuple[float, ...] | None, float | None]:
    """The shares of the newest votes in the reference's rows, and their mean; of inputs alone."""
    if events is None or one.subject != "inputs" or one.slice is not None or one.name not in events.columns:
        return None, None
    if one.kind == "number" and one.edges:
        (votes,) = votes_of(events, [one.name], reference.tick_ms)
        if not len(votes):
            return None, None
        below = (votes.values[:, None] <= list(one.edges)).mean(axis=0)
        return tuple(map(float, below)), float(votes.values.mean())
    if one.kind == "category":
        (found,) = category_votes(events, [one.name], reference.tick_ms)
        means = dict(zip((*found.labels, ""), found.table.mean(axis=0), strict=True)) if len(found) else {}
        known = [float(means.get(label, 0.0)) for label in one.labels]
        return (*known, max(0.0, 1.0 - sum(known))), None
    return None, None


def _note(one: FeatureReference, reference: Reference, events: pl.DataFrame | None) -> str:
    """Means of fewer rows spread wider."""
    if events is None or one.name not in events.columns or not reference.rows_per_vote:
        return ""
    ticks = pl.col("event_time").dt.epoch("ms") // reference.tick_ms
    votes = events.select(pl.struct("entity", ticks).n_unique()).item()
    now = events.height / max(1, votes)
    if 0.5 < now / reference.rows_per_vote < 2:
        return ""
    return f"a vote is of {now:.1f} events now, of {reference.rows_per_vote:.1f} then: means of fewer spread wider"


def _finds(one: FeatureReference) -> str:
    if one.finds_one_sigma_in is not None:
        return f"a shift of one standard deviation is found in about {one.finds_one_sigma_in:,} events"
    if one.finds_in is not None:
        return f"found in about {one.finds_in:,} events"
    return ""


def _reference(artifact: str) -> Reference | None:
    try:
        folder = local_folder(artifact)
        return decode_reference(read(folder, manifest_of(folder), FILE), artifact)
    except NotFound:
        return None


def _events(lake: str, resource: ContinualModel) -> pl.DataFrame | None:
    """The newest events; None before there are any."""
    table = LakeTable(table_uri(lake, resource.id, "events"))
    wanted = [*resource.watched_features, *resource.watched_categories]
    try:
        rows = table.scan()
    except NotFound:
        return None
    last = table.collect(rows.select(pl.col("event_date").max())).item()
    if last is None:
        return None
    rows = rows.filter(pl.col("event_date") >= last - _RECENT).select("entity", "event_time", *wanted)
    return table.collect(rows.top_k(_ROWS, by="event_time"))


def evidence_of(lake: str, resource: ContinualModel) -> dict[str, tuple[tuple[int, float], ...]]:
    """By quantity, the evidence at the end of the last ticks, oldest first. Raises `Unavailable`."""
    table = LakeTable(table_uri(lake, resource.id, "watch"))
    try:
        rows = table.scan()
    except NotFound:
        return {}
    rows = rows.filter(pl.col("kind") == "evidence").select("sequence", "time", "evidence")
    found: dict[str, list[tuple[int, float]]] = {}
    for _, time, text in table.collect(rows.top_k(_TICKS, by="sequence")).sort("sequence").iter_rows():
        told: dict[str, Any] = msgspec.json.decode(text)
        for name, value in told.items():
            found.setdefault(name, []).append((to_ms(time), float(value)))
    return {name: tuple(points) for name, points in found.items()}
