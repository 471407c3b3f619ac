"""Where a new life of the worker begins: what the log's commits and the lake say is done (DATAPLANE.md, rule 3)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from tidemill.core.errors import Conflict
from tidemill.core.telemetry import get_logger
from tidemill.events.lake import LakeTable
from tidemill.outcomes.counts import told
from tidemill.outcomes.gaps import Gaps
from tidemill.outcomes.log import Channel, Offsets, OutcomeLog, Position
from tidemill.outcomes.tables import Tables, mark_of

__all__ = ["judged_positions", "known_gaps", "outcome_starts", "resolved_starts", "starts_of"]

_log = get_logger(__name__)


def judged_positions(log: OutcomeLog) -> dict[int, Position]:
    """Up to where predictions are judged, by partition. Raises `Conflict` where outcomes exist and nothing says."""
    judged = log.judged()
    if not judged and any(log.ends(Channel.OUTCOMES).values()):
        raise Conflict(
            "there are outcomes, but the offsets up to which predictions were judged are gone",
            hint="restore the offsets of the consumer group <model>.outcomes.join, "
            "or delete the topic and the table <model>.outcomes to judge every prediction anew",
        )
    held = _held(log, Channel.PREDICTIONS), _held(log, Channel.RESOLVED)
    positions = {}
    for part in log.sources[Channel.PREDICTIONS]:
        known = judged.get(part, Position(0, 0))
        written = _within(held[0], part, known.written if part in judged else None)
        read = _within(held[1], part, known.read if part in judged else None)
        positions[part] = replace(known, written=written, read=read)
    return positions


def starts_of(log: OutcomeLog, channel: Channel, table: LakeTable) -> Offsets:
    """Where to take in predictions or labels from: after what both the commit and the lake say is done."""
    committed, held = log.committed(channel), _held(log, channel)
    starts = {}
    for part, source in log.sources[channel].items():
        upto = table.version_of(source)
        done = [] if upto is None else [upto + 1]
        if part in committed and (upto is not None or table.exists):
            done.append(committed[part])
        elif part in committed:
            _log.error("the lake's table is gone; it is filled again from the log's start", table=table.uri)
        starts[part] = _within(held, part, min(done, default=None))
    return starts


def outcome_starts(log: OutcomeLog, table: LakeTable) -> Offsets:
    """Where to follow the outcomes from: after what the lake has."""
    held = _held(log, Channel.OUTCOMES)
    starts = {}
    for part, source in log.sources[Channel.OUTCOMES].items():
        upto = table.version_of(source)
        starts[part] = _within(held, part, None if upto is None else upto + 1)
    return starts


def resolved_starts(
    log: OutcomeLog, table: LakeTable, judged: Mapping[int, Position]
) -> tuple[Offsets, dict[int, int]]:
    """Where to read resolved labels from, so that both the verdicts and the lake have all; the newest marks by then."""
    held = _held(log, Channel.RESOLVED)
    starts, through = {}, {}
    for part, source in log.sources[Channel.RESOLVED].items():
        at, upto = judged[part], table.version_of(source)
        start = _within(held, part, None if upto is None else min(upto + 1, at.read))
        mark = table.version_of(mark_of(source))
        starts[part] = start
        through[part] = at.through if start >= at.read else -1 if mark is None else mark
    return starts, through


def known_gaps(log: OutcomeLog, tables: Tables) -> Gaps:
    """What is missing among the predictions that the lake has, and what their processes said of themselves."""
    upto = {
        str(source): known
        for source in log.sources[Channel.PREDICTIONS].values()
        if (known := tables.predictions.table.version_of(source)) is not None
    }
    gaps = Gaps()
    for boot, first, last in tables.numbers(upto):
        gaps.see(boot, first, last)
    for word, arrived_at in told(tables.counts.table):
        gaps.hear(word, arrived_at)
    return gaps


class _Held(NamedTuple):
    """What the log holds of a channel: by partition the lowest offset and the one after the last."""

    channel: Channel
    first: Offsets
    end: Offsets


def _held(log: OutcomeLog, channel: Channel) -> _Held:
    ends = {part: offset for (_, part), offset in log.ends(channel).items()}
    return _Held(channel, log.starts(channel), ends)


def _within(held: _Held, part: int, wanted: int | None) -> int:
    """`wanted` (None: the log's start), or the nearest offset that the log still holds."""
    first, end = held.first[part], held.end[part]
    if wanted is None:
        return first
    if wanted < first:
        _log.error("not read, and dropped from the log", topic=held.channel.value, part=part, lost=first - wanted)
    if wanted > end:
        _log.error("the log was cut off", topic=held.channel.value, part=part, ends=end, was_read_to=wanted)
    return min(max(first, wanted), end)
