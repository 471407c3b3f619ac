"""Where a worker begins to read a partition that it was given: a pure function of what Kafka and the lake say."""

from dataclasses import dataclass

__all__ = ["Start", "start_of"]


@dataclass(frozen=True, slots=True)
class Start:
    """The offset to begin at, and what that means."""

    offset: int
    rebuild: bool = False
    """The online rows may lack events that the lake has: fill them from the lake first."""
    lost: int = 0
    """Offsets that the log no longer holds and the lake never took."""
    alarm: str | None = None
    """What a person must know."""


def start_of(*, committed: int | None, taken: int | None, log_start: int, log_end: int, has_table: bool) -> Start:
    """Where to begin.

    Args:
        committed: the group's next offset for this very source, if it committed one.
        taken: the last offset that the events table has of this source.
        log_start: lowest offset that the log still holds.
        log_end: offset after its last record.
        has_table: whether the events table exists.

    The Kafka commit follows the lake and the online rows, so what lies below `committed` is in both, and what lies
    above `taken` is in neither.
    """
    if taken is not None:
        wanted = taken + 1 if committed is None else min(committed, taken + 1)
        # What the lake has is not lost when the log drops it; the rows may lack it, though.
        gone = max(0, log_start - (taken + 1))
        begin = Start(wanted, rebuild=committed is None or wanted < log_start, lost=gone)
    elif committed is not None and has_table:
        begin = Start(committed, lost=max(0, log_start - committed))
    elif committed is not None:
        begin = Start(log_start, alarm="offsets are committed, but the events table is gone: reading the log anew")
    else:
        begin = Start(log_start)
    if begin.offset > log_end:
        return Start(
            log_end,
            begin.rebuild,
            alarm=f"the log ends at {log_end}, before offset {begin.offset} where reading stopped: it was cut off",
        )
    if begin.lost:
        alarm = f"{begin.lost} offsets were dropped from the log before they were read"
        return Start(log_start, begin.rebuild, begin.lost, alarm)
    return Start(max(begin.offset, log_start), begin.rebuild, alarm=begin.alarm)
