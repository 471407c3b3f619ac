"""Labels that come when the index no longer has what they are about: when to look into the lake, and how often.

An entry of the index is kept for `Hot.kept` after it was last added to. By then all is decided that depends on which
labels had arrived: revision 0, and what a missing label says at the horizon. Hence a label that comes later can only
be a correction, and neither marks nor verdicts wait for a search of the lake.

*By prediction id* a label is looked for as soon as it is heard, for its place in the log says which outcomes follow
from it; one search serves all labels that were read at once, and an id that tells its time is searched on its day.

*By event* there is nothing that tells a late label from one that is early, or whose event was never predicted, so
every label that finds nothing would search months. (Of an event that is predicted anew after its predictions left the
index, a label reaches the new ones alone.) Such labels are gathered, and searches take a bounded share of the
worker's time; until one has found them or not, the labels topic is not committed beyond them.

What was searched for in vain is remembered, and not searched for again while a prediction that was made since would
still be in the index.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

import msgspec

from tidemill.core.clock import Clock, to_ms
from tidemill.core.ids import time_of
from tidemill.labels.parse import KnownLabel
from tidemill.outcomes.archive import Archive, Event
from tidemill.outcomes.conflict import Heard
from tidemill.outcomes.join import Indexed
from tidemill.outcomes.log import Addressed, Offsets
from tidemill.outcomes.state import AWAY
from tidemill.spec.model import Labels

__all__ = ["Hot", "Late", "LateLabel"]

_KEPT = timedelta(days=3)
"""How long after its verdict a prediction stays in the index: labels come by hand within days or then hardly at all,
and two weeks of predictions would need five times the memory."""

_REACH = timedelta(days=92)
"""Age up to which predictions of an event are searched for: every label without one costs such a search."""

_SHARE = 0.05
"""Largest share of the worker's time that searches by event take."""

_AT_LEAST_S = 1.0
_GATHERED = 200_000
"""Labels that are searched for at once whatever the share, so that they do not fill the memory: some 200 MB."""

_REMEMBERED = 200_000
"""Searches in vain that are remembered: some 50 MB."""


@dataclass(frozen=True, slots=True)
class Hot:
    """How long the index keeps an entry that was not added to, and for how long that is certain."""

    kept: timedelta
    away: timedelta = AWAY

    @classmethod
    def of(cls, labels: Labels) -> "Hot":
        """As long as labels decide anything, and some days.

        Where a missing label means something, that is the horizon and a day; else three days from the verdict.
        """
        kept = labels.maturity.kept
        return cls(kept if labels.maturity.absent == "negative" else min(kept, labels.maturity.after + _KEPT))

    @property
    def sure_ms(self) -> int:
        """Milliseconds for which an entry is there for certain, however long the worker was away meanwhile."""
        return to_ms(self.kept - self.away)


class LateLabel(msgspec.Struct, frozen=True, gc=False):
    """A label, or a pick for labelling, by event; where it stands in the labels topic, and what the index has of it."""

    event: Event
    label: KnownLabel
    partition: int
    offset: int
    known: Sequence[str] = ()
    """Ids of the event's predictions that are in the index."""


class Late:
    """Finds what late labels are about.

    Args:
        archive: the lake.
        hot: how long the index keeps what it has.
        clock: tells how long ago a prediction was made, and how long searches take.
        flush: writes to the lake what waits for it. Called before the first search of a life: what the lives before
            left unwritten may have left the index meanwhile. Later it waits for seconds and stays in it for days.
    """

    def __init__(self, archive: Archive, hot: Hot, clock: Clock, flush: Callable[[], None]) -> None:
        self._flush: Callable[[], None] | None = flush
        self.archive, self._clock, self._sure = archive, clock, hot.sure_ms
        self._gathered: list[LateLabel] = []
        self._vain: dict[str | Event, int] = {}
        self._due = 0.0

    def recall(self, missing: Mapping[str, int]) -> dict[str, tuple[Indexed, list[Heard]]]:
        """Of predictions that the index lacks those that it once had, with the labels heard of them.

        Args:
            missing: when the newest label of each arrived, in milliseconds.
        """
        now = self._now(missing.values())
        asked = {of for of in missing if self._may_be_old(of, now, time_of(of))}
        if not asked or not self._has_any(now):
            return {}
        if self._flush is not None:
            self._flush()
            self._flush = None
        found = self.archive.recall({of: missing[of] for of in asked})
        self._remember(asked - found.keys(), now)
        return found

    def gather(self, labels: Iterable[LateLabel], newest: int) -> None:
        """Take labels by event; those of events that are not in the index, or no longer whole, wait for `settle`.

        Args:
            labels: the labels; not looked at while the lake is too young to have what the index lacks.
            newest: when the last of them arrived, in milliseconds.
        """
        now = self._now([newest])
        if self._has_any(now):
            self._gathered += [
                late
                for late in labels
                if not any(self._is_new(of, now) for of in late.known) and self._may_be_old(late.event, now, None)
            ]

    def settle(self) -> list[Addressed]:
        """Search for what was gathered, if it is time; those labels whose predictions were found."""
        begun = self._clock.monotonic()
        if not self._gathered or (begun < self._due and len(self._gathered) < _GATHERED):
            return []
        gathered, self._gathered = self._gathered, []
        arrived = [late.label.available_at for late in gathered]
        now = self._now(arrived)
        days = _utc(min(arrived)) - _REACH, _utc(now - self._sure)
        events = {late.event for late in gathered}
        found = self.archive.of_events(events, (days[0].date(), days[1].date()))
        self._remember(events - found.keys(), now)
        done = self._clock.monotonic()
        self._due = done + max(_AT_LEAST_S, (done - begun) / _SHARE)
        return [
            Addressed(late.label.resolved(prediction), partition)
            for late in gathered
            for prediction, partition in found.get(late.event, [])
        ]

    @property
    def searched(self) -> int:
        """Labels that are still to be searched for."""
        return len(self._gathered)

    def unsettled(self) -> Offsets:
        """The offset of the first label of each partition that is still to be searched for."""
        first: Offsets = {}
        for late in self._gathered:
            first[late.partition] = min(late.offset, first.get(late.partition, late.offset))
        return first

    def _now(self, arrived: Iterable[int]) -> int:
        """The time in milliseconds: what the index has of a label is asked when it is read, however late that is."""
        return max(to_ms(self._clock.now()), *arrived, 0)

    def _is_new(self, prediction: str, now: int) -> bool:
        made = time_of(prediction)
        return made is not None and now - made < self._sure

    def _may_be_old(self, key: str | Event, now: int, made: int | None) -> bool:
        """Whether a prediction may have been in the index and have left it by now."""
        if made is not None and now - made < self._sure:
            return False
        return key not in self._vain or now - self._vain[key] >= self._sure

    def _has_any(self, now: int) -> bool:
        """Whether the lake goes back to what may have left the index by now."""
        begins = self.archive.begins()
        return begins is not None and begins <= _utc(now - self._sure).date()

    def _remember(self, vain: Iterable[str | Event], now: int) -> None:
        for key in vain:
            self._vain.pop(key, None)
            self._vain[key] = now
        for key in list(islice(self._vain, max(0, len(self._vain) - _REMEMBERED))):
            del self._vain[key]


def _utc(time: int) -> datetime:
    return datetime.fromtimestamp(max(0, time) / 1000, UTC)
