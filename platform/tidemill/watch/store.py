"""The watch's table in the lake: state, offsets and signals of one step are one Delta transaction.

Rows of a commit share a `sequence`:

    kind        what
    state       the reducer's state and the offsets it stands at; only the newest counts, older ones are pruned
    evidence    each feature's part of M at `time` (JSON), for people to look at; kept for a day
    signal      one signal (JSON); kept

The transaction is conditional: it goes in only where the table stands at the offsets that this process started from,
so that of two reducers one gets `Conflict` and nothing twice.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec
import polars as pl
from deltalake import DeltaTable
from deltalake import exceptions as delta_errors

from tidemill.core.clock import from_ms, to_ms
from tidemill.core.telemetry import get_logger
from tidemill.events.lake import LakeTable, Span, table_uri
from tidemill.events.records import Signal, decode
from tidemill.events.sources import Source
from tidemill.watch.state import WatchState, decode_state, encode_state

__all__ = ["Committed", "WatchStore"]

_log = get_logger(__name__)

SCHEMA: dict[str, pl.DataType] = {
    "sequence": pl.Int64(),
    "kind": pl.String(),
    "time": pl.Datetime("us", "UTC"),
    "version": pl.String(),
    "state": pl.Binary(),
    "offsets": pl.String(),
    "evidence": pl.String(),
    "signal_id": pl.String(),
    "signal": pl.String(),
}
PRUNE_EVERY = 500
"""Commits between prunings: a few minutes at two a second; a large state is written less often."""
EVIDENCE_KEPT = timedelta(days=1)
_RETENTION = {
    "delta.logRetentionDuration": "interval 1 hours",
    "delta.deletedFileRetentionDuration": "interval 1 hours",
}
"""Nobody reads an old version of this table; an hour lets a reader finish."""


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """One commit, as it was read back or is about to be written."""

    sequence: int
    state: WatchState | None
    """None: an earlier release wrote it, and evidence starts anew at the offsets."""
    offsets: Mapping[str, int]
    """Next offset to read by source."""
    signals: tuple[Signal, ...] = ()
    version: str | None = None
    """The version that served."""
    time: int = 0
    """Event time up to which ticks were over."""


class WatchStore:
    """Reads and writes the watch's commits. One thread; raises `Unavailable` where the store does not answer."""

    def __init__(self, lake: str, model: str) -> None:
        self._table = LakeTable(table_uri(lake, model, "watch"), SCHEMA, pipeline="watch")

    def last(self) -> Committed | None:
        """The newest commit, whoever made it; raises `Corrupt` where it is none."""
        self._table.refresh()
        if not self._table.exists:
            return None
        rows = self._table.scan()
        newest = rows.filter(pl.col("kind") == "state").sort("sequence", descending=True).head(1).collect()
        if newest.is_empty():
            return None
        row = newest.row(0, named=True)
        signals = rows.filter((pl.col("kind") == "signal") & (pl.col("sequence") == row["sequence"])).collect()
        return Committed(
            sequence=row["sequence"],
            state=decode_state(row["state"], self._table.uri),
            offsets=msgspec.json.decode(row["offsets"], type=dict[str, int]),
            signals=tuple(decode(Signal, text.encode()) for text in signals["signal"]),
            version=row["version"],
            time=to_ms(row["time"]),
        )

    def commit(self, new: Committed, before: Mapping[str, int], evidence: Mapping[str, float]) -> int:
        """Write `new` if the table stands at the offsets `before`; how many bytes its state has.

        Raises `Conflict` where it does not: another reducer went on, and this one must start again from `last`.
        """
        moved = {
            Source.parse(source): Span(before.get(source, 0) - 1, offset - 1)
            for source, offset in new.offsets.items()
            if offset > before.get(source, 0)
        }
        rows = _rows(new, evidence)
        self._table.append_if(rows, moved)
        if new.sequence % PRUNE_EVERY == 0:
            self._prune(new.sequence, from_ms(new.time) - EVIDENCE_KEPT)
        return int(rows["state"].bin.size().sum())

    def _prune(self, sequence: int, since: datetime) -> None:
        """Drop states that are superseded and evidence of long ago; the log and the files behind them, too."""
        old_state = f"kind = 'state' AND sequence < {sequence}"
        old_evidence = f"kind = 'evidence' AND time < '{since.isoformat()}'"
        try:
            table = DeltaTable(self._table.uri)
            if not _RETENTION.items() <= table.metadata().configuration.items():
                table.alter.set_table_properties(_RETENTION)
            table.delete(f"({old_state}) OR ({old_evidence})")
            table.vacuum(retention_hours=1, dry_run=False)
            table.create_checkpoint()
            table.cleanup_metadata()
        except (delta_errors.DeltaError, OSError) as error:  # what was committed is safe; it is pruned another time
            _log.info("pruning was put off", table=self._table.uri, reason=str(error))


def _rows(new: Committed, evidence: Mapping[str, float]) -> pl.DataFrame:
    if new.state is None:
        raise ValueError("a commit has a state")
    base = {"sequence": new.sequence, "time": from_ms(new.time), "version": new.version}
    offsets = msgspec.json.encode(new.offsets).decode()
    rows: list[dict[str, object]] = [{**base, "kind": "state", "state": encode_state(new.state), "offsets": offsets}]
    if evidence:
        rows.append({**base, "kind": "evidence", "evidence": msgspec.json.encode(evidence).decode()})
    rows += [_signal_row(signal, new.sequence) for signal in new.signals]
    return pl.DataFrame(rows, schema=SCHEMA)


def _signal_row(signal: Signal, sequence: int) -> dict[str, object]:
    return {
        "sequence": sequence,
        "kind": "signal",
        "time": from_ms(signal.time),
        "version": signal.version,
        "signal_id": signal.signal_id,
        "signal": msgspec.json.encode(signal).decode(),
    }
