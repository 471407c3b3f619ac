"""All models at a glance: a row each."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from tidemill.control.known import known_resource, known_status
from tidemill.control.protocols import StoredModel
from tidemill.control.state import LoopStatus
from tidemill.control.triggers import why_not_now
from tidemill.control.words import in_order
from tidemill.core.errors import Corrupt, NotFound
from tidemill.outcomes.known import Bracketed, Cut, Kind
from tidemill.outcomes.matured import matured
from tidemill.watch.flow import Flow

__all__ = ["Headline", "ModelRow", "Share", "headline_of", "model_row"]

_RECENT = timedelta(days=1)
_OUTCOMES = 20_000


@dataclass(frozen=True, slots=True)
class Headline:
    """How right the newest answers of the version that serves turned out to be."""

    version: str
    kind: Kind
    error: float | None
    low: float
    high: float
    """The interval of 95 %."""
    outcomes: int
    labelled: int
    waiting: int
    """Labels that are still to come."""


@dataclass(frozen=True, slots=True)
class Share:
    """A version's part of the traffic, as the proxy shows it."""

    version: str
    percent: int
    is_candidate: bool
    ready: bool


@dataclass(frozen=True, slots=True)
class ModelRow:
    """What `tidemill get` says of a model, and how it does."""

    id: str
    name: str
    phase: str
    paused: bool
    champion: str | None
    champion_since: int | None
    """Milliseconds since the epoch."""
    candidate: str | None
    traffic: tuple[Share, ...]
    drift: tuple[str, ...]
    """Features with an alarm."""
    next: str
    """What the loop does next, or waits for."""
    more: int
    """Further reasons why no run starts."""
    troubles: tuple[str, ...]
    headline: Headline | None = None
    fresh_s: float | None = None
    """Age of the newest value of the view that is farthest behind."""
    fresh_ok: bool | None = None
    """Whether that is within `features.freshness`; None where nothing is declared."""
    behind: int | None = None
    """Events that wait to be taken in."""

    @property
    def backlog(self) -> int | None:
        """Labels that are still to come; None before anything came of age."""
        return self.headline.waiting if self.headline else None


def model_row(stored: StoredModel, now: datetime, headline: Headline | None, flow: Flow | None) -> ModelRow:
    """The row of one model. A status that cannot be read counts as none: control rebuilds it."""
    resource = stored.resource
    try:
        status = known_status(stored)
    except Corrupt:
        status = None
    name = resource.metadata.name if resource.metadata.namespace == "default" else resource.id
    ages = [(view["age_s"], view["slo_ok"]) for view in flow["views"].values()] if flow else []
    oldest = max(ages, default=(None, None), key=lambda one: one[0])
    waits = _next(status, why_not_now(resource, status, now) if status else ())
    return ModelRow(
        id=resource.id,
        name=name,
        phase=status.phase if status else "Pending",
        paused=resource.spec.paused,
        champion=status.champion.version if status and status.champion else None,
        champion_since=status.champion.since if status and status.champion else None,
        candidate=status.candidate.version if status and status.candidate else None,
        traffic=traffic_of(status),
        drift=tuple(dict.fromkeys(one.feature for one in status.drift.alarms)) if status else (),
        next=waits[0],
        more=len(waits) - 1,
        troubles=status.seen.troubles if status else (),
        headline=headline,
        fresh_s=oldest[0],
        fresh_ok=oldest[1],
        behind=flow["lag"] if flow else None,
    )


def traffic_of(status: LoopStatus | None) -> tuple[Share, ...]:
    """The shares that are seen, the champion's first; versions without traffic are there, too."""
    if status is None:
        return ()
    candidate = status.candidate.version if status.candidate else None
    return tuple(Share(one.version, one.share, one.version == candidate, one.ready) for one in in_order(status))


def _next(status: LoopStatus | None, reasons: tuple[str, ...]) -> tuple[str, ...]:
    if status is None:
        return ("waits for control: is it running?",)
    return reasons or ("a run starts at the next tick",)


def headline_of(lake: str, stored: StoredModel, now: datetime) -> Headline | None:
    """The quality of the last day's newest outcomes; None before there are any. Raises `Unavailable`."""
    status = known_status(stored)
    version = status.champion.version if status and status.champion else None
    cut = Cut(version=version, since=now - _RECENT)
    try:
        found = matured(lake, known_resource(stored), cut, values="none", most=_OUTCOMES)
    except NotFound:
        return None
    if found is None:
        return None
    estimate = Bracketed(found.least, 0.05)
    estimate.update(found.rows.filter("asked").select("low", "high", "chance").to_numpy())
    seen = estimate.estimate(0 if found.kind == "labelled only" else found.lost)
    low, high = seen.interval
    return Headline(found.version, found.kind, seen.mean, low, high, found.rows.height, seen.labelled, estimate.waiting)
