"""Upkeep of lake tables: small files merged, expired days deleted, old files and log entries removed.

None of it stands in the way of appends or readers: it works beside them, on handles of its own. A compaction never
conflicts with an append; an append that meets a deletion is refused once and done again (`LakeTable.append`). Two
workers that keep the same table at once do no harm, one of them only works in vain. Transaction versions outlive all
of it, because `delta.setTransactionRetentionDuration` stays unset: without them each record would be taken again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from threading import Thread

import polars as pl

from tidemill.core.clock import Clock
from tidemill.core.errors import NotFound, TidemillError
from tidemill.core.telemetry import get_logger
from tidemill.events.lake import COMPACT_EVERY, LakeTable

__all__ = ["Policy", "Upkeep", "expire", "vacuum"]

_log = get_logger(__name__)

_LOG_RETENTION = ("delta.logRetentionDuration", "delta.deletedFileRetentionDuration")

_SMALL_FILES = 16
"""Fewer small files in a day than this are not worth a compaction."""

_HOUR_S = 3600.0


@dataclass(frozen=True)
class Policy:
    """What is kept."""

    keep: timedelta | None = None
    """Age (by event or arrival date) at which whole days are deleted; None: never."""
    vacuum: timedelta = timedelta(days=1)
    """How long files and log entries that the newest version does not need stay: as old as a version may be that
    someone still reads."""


def expire(table: LakeTable, before: date) -> int:
    """Delete the days before this one of a table that is partitioned by day; returns how many files went.

    Only the log is written: no file is read. Raises `NotFound` where there is no table, or `Unavailable`.
    """
    with table.opened("deleting from") as found:
        (column,) = found.metadata().partition_columns
        oldest = pl.DataFrame(found.get_add_actions(flatten=True))[f"partition.{column}"].min()
        if not isinstance(oldest, date) or oldest >= before:
            return 0
        return int(found.delete(f"{column} < '{before.isoformat()}'")["num_removed_files"])


def vacuum(table: LakeTable, older_than: timedelta) -> int:
    """Remove files that no version younger than this needs, and the log of older ones; returns how many files went.

    Raises `NotFound` where there is no table, or `Unavailable`.
    """
    hours = max(1, round(older_than.total_seconds() / _HOUR_S))
    wanted = dict.fromkeys(_LOG_RETENTION, f"interval {hours} hours")
    with table.opened("vacuuming") as found:
        if not wanted.items() <= found.metadata().configuration.items():
            found.alter.set_table_properties(wanted)
        removed = found.vacuum(retention_hours=hours, dry_run=False, enforce_retention_duration=False, full=True)
        found.create_checkpoint()
        found.cleanup_metadata()
    return len(removed)


class Upkeep:
    """Keeps tables of one writer in a thread beside it, one round at a time.

    Args:
        tables: each partitioned by day.
        policy: what is kept.
        clock: the time.
        sweeps: called with the first day that is kept, where days expire; for what lies beside the tables.
        checks: what else is done each hour.
    """

    def __init__(
        self,
        tables: Sequence[LakeTable],
        policy: Policy,
        clock: Clock,
        *,
        sweeps: Sequence[Callable[[date], object]] = (),
        checks: Sequence[Callable[[], object]] = (),
    ) -> None:
        self._tables = tuple(tables)
        self._policy = policy
        self._clock = clock
        self._sweeps = tuple(sweeps)
        self._checks = tuple(checks)
        self._commits: Mapping[str, int] = {}
        self._round_at = clock.monotonic() + _HOUR_S / 60  # a worker that has just started has better things to do
        self._thread: Thread | None = None

    def begin_if_due(self) -> None:
        """Begin a round unless one goes on: when a table grew by 64 commits, and each hour. Returns at once."""
        if self._thread is not None and self._thread.is_alive():
            return
        due = self._clock.monotonic() >= self._round_at
        grown = [one for one in self._tables if one.commits - self._commits.get(one.uri, 0) >= COMPACT_EVERY]
        if not grown and not due:
            return
        self._commits = dict(self._commits) | {one.uri: one.commits for one in grown}
        if due:
            self._round_at = self._clock.monotonic() + _HOUR_S
        work = self.round if due else lambda: self._each(grown, lambda table: table.compact(at_least=_SMALL_FILES))
        self._thread = Thread(target=work, name="upkeep", daemon=True)
        self._thread.start()

    def round(self) -> None:
        """All there is to do; what fails is logged and done the next time."""
        self._each(self._tables, lambda table: table.compact(at_least=_SMALL_FILES))
        if self._policy.keep is not None:
            kept_from = self._first_day(self._clock.now(), self._policy.keep)
            self._each(self._tables, lambda table: expire(table, kept_from))
            for sweep in self._sweeps:
                self._tried(lambda: sweep(kept_from), "pictures")  # noqa: B023 -- called before the next turn
        self._each(self._tables, lambda table: vacuum(table, self._policy.vacuum))
        for check in self._checks:
            self._tried(check, "checks")

    def close(self, timeout_s: float = 2.0) -> None:
        """Wait a moment for a round that goes on; one that takes longer is left to end with the process."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _each(self, tables: Sequence[LakeTable], action: Callable[[LakeTable], object]) -> None:
        for table in tables:
            self._tried(lambda: action(table), table.uri)  # noqa: B023 -- called before the next turn

    def _tried(self, action: Callable[[], object], what: str) -> None:
        try:
            action()
        except NotFound:  # nothing was written yet
            return
        except TidemillError as error:
            _log.info("upkeep was put off", what=what, reason=str(error))

    @staticmethod
    def _first_day(now: datetime, keep: timedelta) -> date:
        return (now - keep).date()
