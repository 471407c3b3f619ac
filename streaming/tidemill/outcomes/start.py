"""Where a new life of the worker begins: what the log's commits and the lake say is done (DATAPLANE.md, rule 3)."""

from tidemill.core.errors import Conflict
from tidemill.core.telemetry import get_logger
from tidemill.events.lake import LakeTable
from tidemill.outcomes.gaps import Gaps
from tidemill.outcomes.log import Channel, Offsets, OutcomeLog, Position
from tidemill.outcomes.tables import Tables

__all__ = ["judged_positions", "known_gaps", "outcome_starts", "starts_of"]

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
    reads, writes = log.starts(Channel.RESOLVED), log.starts(Channel.PREDICTIONS)
    positions = {}
    for part in log.sources[Channel.PREDICTIONS]:
        known = judged.get(part)
        if known is None:
            positions[part] = Position(writes[part], reads[part])
        else:
            written = _at_least(writes[part], known.written, Channel.PREDICTIONS, part)
            read = _at_least(reads[part], known.read, Channel.RESOLVED, part)
            positions[part] = Position(written, read, known.through)
    return positions


def starts_of(log: OutcomeLog, channel: Channel, table: LakeTable) -> Offsets:
    """Where to take in predictions or labels from: after what both the commit and the lake say is done."""
    committed, first = log.committed(channel), log.starts(channel)
    starts = {}
    for part, source in log.sources[channel].items():
        upto = table.version_of(source)
        done = [] if upto is None else [upto + 1]
        if part in committed and (upto is not None or table.exists):
            done.append(committed[part])
        elif part in committed:
            _log.error("the lake's table is gone; it is filled again from the log's start", table=table.uri)
        starts[part] = _at_least(first[part], min(done), channel, part) if done else first[part]
    return starts


def outcome_starts(log: OutcomeLog, table: LakeTable) -> Offsets:
    """Where to follow the outcomes from: after what the lake has."""
    first = log.starts(Channel.OUTCOMES)
    starts = {}
    for part, source in log.sources[Channel.OUTCOMES].items():
        upto = table.version_of(source)
        starts[part] = first[part] if upto is None else _at_least(first[part], upto + 1, Channel.OUTCOMES, part)
    return starts


def known_gaps(log: OutcomeLog, tables: Tables) -> Gaps:
    """What is missing among the predictions that the lake has."""
    upto = {
        str(source): known
        for source in log.sources[Channel.PREDICTIONS].values()
        if (known := tables.predictions.table.version_of(source)) is not None
    }
    gaps = Gaps()
    for boot, first, last in tables.numbers(upto):
        gaps.see(boot, first, last)
    return gaps


def _at_least(first: int, wanted: int, channel: Channel, part: int) -> int:
    """`wanted`, or the log's start where it no longer holds that."""
    if wanted < first:
        _log.error("the log no longer holds what was not read", topic=channel.value, part=part, lost=first - wanted)
    return max(first, wanted)
