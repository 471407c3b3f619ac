"""Labels as they stand: what was said in the last week, and the queue of what to label next."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple

from tidemill.core.errors import NotFound, Unavailable
from tidemill.events.records import Label
from tidemill.labels.agreement import Agreement, agreement
from tidemill.labels.queue import Picks, pick
from tidemill.labels.rounds import read_round, records_of
from tidemill.labels.waiting import Waiting, waiting
from tidemill.labels.words import MOST_LABELS, judged_field, read_said
from tidemill.spec.model import ContinualModel

__all__ = ["Asked", "next_round", "noun_of", "recent_agreement"]

_RECENT = timedelta(days=7)


class Asked(NamedTuple):
    """A round of the queue: what it picked, and all that waits to be labelled."""

    picks: Picks
    records: list[Label]
    """To be written to the topic of labels before anything is shown; none where `labels.control` is 1, for then each
    label's probability is known to be 1."""
    lines: list[Waiting]
    total: int
    through: datetime
    """Up to when predictions were considered."""


def next_round(
    lake: str,
    resource: ContinualModel,
    now: datetime,
    *,
    limit: int,
    budget: int | None = None,
    drifted: Collection[str] = (),
) -> Asked:
    """What to label next: the first `limit` lines, of about `budget` new picks (None: as many as are shown).

    `drifted` are the entities that recent drift signals name. Raises `NotFound` before there are predictions,
    `Unavailable`.
    """
    found = read_round(lake, resource, judged_field(resource), now)
    picks = pick(
        found.things(),
        control=resource.spec.labels.control,
        classes=len(resource.spec.prediction.classes),
        budget=limit if budget is None else budget,
        drifted=drifted,
    )
    records = list(records_of(picks.reasons, found)) if resource.spec.labels.control < 1 else []
    lines, total = waiting(lake, resource, found, picks.reasons, limit)
    return Asked(picks, records, lines, total, found.through)


def recent_agreement(
    lake: str, resource: ContinualModel, now: datetime, *, most: int = MOST_LABELS
) -> Agreement | None:
    """What labellers said in the last week, the newest `most` labels of it.

    None where there is nothing, or the lake does not answer.
    """
    try:
        said = read_said(lake, resource, judged_field(resource), since=now - _RECENT, most=most, opinions=False)
    except (NotFound, Unavailable):
        return None
    least = resource.spec.labels.min_agreement
    return agreement(said, resource.spec.prediction.classes, least, noun=noun_of(resource)) if said.read else None


def noun_of(resource: ContinualModel) -> str:
    """What people call the things that are labelled."""
    return "pictures" if resource.image_field is not None else "events"
