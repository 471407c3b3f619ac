"""Delta tables that take each record once, whatever crashes, is repeated or wakes up late.

The rule (and why): a table's transaction versions say how far it has each source. deltalake accepts an append whose
version is the same or lower, which would double rows; what it refuses is a commit through a handle that has not seen
another commit of the same transaction id. So everything goes through one handle: read v from it, keep rows with
offset > v, append through it with version = last offset read, bad rows included. After a failed or unknown commit:
reload, read v again, filter, try again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Schema,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake import exceptions as delta_errors

from tidemill.core.errors import Conflict, InvalidInput, NotFound, TidemillError, Unavailable
from tidemill.core.telemetry import get_logger
from tidemill.events.sources import Source

__all__ = ["COMPACT_EVERY", "LakeTable", "Snapshot", "Span", "table_uri", "with_missing"]

_T = TypeVar("_T")
_log = get_logger(__name__)

_ATTEMPTS = 8
"""Each lost race means that someone else got on, so a handful is plenty; more points to a broken store."""

COMPACT_EVERY = 64
"""Commits between compactions: a commit of many small files gets slower with their number (3 ms at 1, 30 at 300)."""
_FULL_BYTES = 64 << 20
"""Files of this size are left alone by compaction."""

_DAYS_AT_ONCE = 32
"""Partitions that one commit of a compaction covers."""

_FOREIGN = (delta_errors.DeltaError, delta_errors.TableNotFoundError, OSError, pl.exceptions.PolarsError)


@dataclass(frozen=True, slots=True)
class Span:
    """The offsets of one source that one commit took: `after` < offset <= `upto`; `after` is -1 before the first."""

    after: int
    upto: int

    def of(self, source: Source) -> pl.Expr:
        """Which rows of a table lie in it; `source` is whose offsets they are."""
        return (pl.col("source") == str(source)) & pl.col("offset").is_between(self.after, self.upto, closed="right")


@dataclass(frozen=True)
class Snapshot:
    """One version of a table: its rows, and how far they go."""

    version: int
    rows: pl.LazyFrame
    upto: Mapping[str, int]
    """Last offset taken, by source; sources without rows are left out."""


class LakeTable:
    """One Delta table. One thread; any number of processes.

    Args:
        uri: folder or URI of the table (`table_uri`).
        schema: columns with their Polars types, made on first use; None to read only.
        pipeline: who appends; with the source it makes the transaction id, so that two pipelines never meet.
        partition_by: columns that split the files.
        compacts: whether it merges small files itself, every 64 commits and before the append returns; False for a
            table that has someone to do so beside the appends (`tidemill.events.upkeep`).

    Columns that an existing table lacks are added; a column of another type raises `InvalidInput`.
    """

    def __init__(
        self,
        uri: str,
        schema: Mapping[str, pl.DataType] | None = None,
        *,
        pipeline: str = "",
        partition_by: Sequence[str] = (),
        compacts: bool = True,
    ) -> None:
        self.uri = uri
        self._schema = pl.Schema(schema) if schema is not None else None
        self._pipeline = pipeline
        self._partition_by = list(partition_by)
        self._table: DeltaTable | None = None
        self._versions: dict[str, int | None] = {}
        self._compacts = compacts
        self.commits = 0
        """How many this handle made."""

    @property
    def exists(self) -> bool:
        """Whether there is such a table."""
        with self._failures("looking for"):
            return DeltaTable.is_deltatable(self.uri)

    @property
    def delta_version(self) -> int:
        """The newest version; raises `NotFound` where there is no table."""
        with self._failures("reading"):
            return DeltaTable(self.uri).version()

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """The rows of a version (default: the newest), lazily; raises `NotFound` where there is no table."""
        with self._failures("reading"):
            return pl.scan_delta(DeltaTable(self.uri, version=version))

    def collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """What was asked of a scan: only now files are read. Raises `Unavailable` where the store does not answer."""
        with self._failures("reading"):
            return rows.collect()

    def snapshot(self) -> Snapshot:
        """The newest version as a whole; raises `NotFound` where there is no table."""
        with self._failures("reading"):
            table = DeltaTable(self.uri)
            rows = pl.scan_delta(table)
            sources = rows.select(pl.col("source").unique()).collect()["source"].to_list()
            upto = {name: table.transaction_version(self._app(name)) for name in sources}
        return Snapshot(table.version(), rows, {name: last for name, last in upto.items() if last is not None})

    def sources(self) -> list[Source]:
        """The sources of the rows in the newest version."""
        return [Source.parse(name) for name in self.snapshot().upto]

    def refresh(self) -> None:
        """Forget the handle, so that the next question is answered from the store."""
        self._table = None
        self._versions.clear()

    def version_of(self, source: Source | str) -> int | None:
        """The last offset that the table has of a source, as its handle knows it (None: nothing yet)."""
        if self._table is None and not self.exists:
            return None
        return self._transaction(self._app(source))

    def last_span(self, source: Source | str) -> Span | None:
        """What the newest commit of this pipeline took of a source, whoever made it."""
        upto = self.version_of(source)
        if upto is None:
            return None
        after = self._transaction(self._before(source))
        return Span(-1 if after is None else after, upto)

    def append(
        self,
        rows: pl.DataFrame,
        upto: Mapping[Source, int],
        *,
        before_commit: Callable[[], None] | None = None,
    ) -> dict[Source, Span]:
        """Append those rows that the table does not have yet, and note how far each source was read.

        Args:
            rows: frame with the table's columns, among them `source` and `offset`; may be empty.
            upto: last offset read of each source in `rows` (and of sources whose records all were bad).
            before_commit: called before each attempt, when `version_of` tells what the attempt builds on.

        Returns:
            What this call added by source; a source that the table had already is not in it.

        Raises:
            Unavailable: the store does not take it; calling again with the same rows is safe.
        """

        def attempt() -> dict[Source, Span]:
            spans = {
                source: Span(after, last)
                for source, last in upto.items()
                if (after := self._at(source)) < last  # a lower version would be accepted, and go down
            }
            if spans:
                self._commit(_newer(rows, spans), spans)
            return spans

        return self._retrying(attempt, before_commit)

    def append_if(self, rows: pl.DataFrame, moved: Mapping[Source, Span]) -> None:
        """Append all rows if each source still stands at its span's `after` (-1: at nothing); move it to `upto`.

        For state that is derived from the records rather than being them. A repeated call is recognised. Raises
        `Conflict` where a source stands elsewhere (someone else went on), `Unavailable` where the store does not
        take it.
        """
        if not moved:
            raise ValueError("without a source a repeated call cannot be recognised")

        def attempt() -> None:
            at = {source: self._at(source) for source in moved}
            if all(at[source] == span.upto for source, span in moved.items()):
                return
            astray = [source for source, span in moved.items() if at[source] != span.after]
            if astray:
                source = astray[0]
                raise Conflict(f"{self.uri} has {source} up to {at[source]}, not {moved[source].after}")
            self._commit(rows, moved)

        self._retrying(attempt)

    def compact(self, *, at_least: int = 2) -> int:
        """Merge small files of each partition that has `at_least` so many; returns how many there were.

        Readers and appends go on meanwhile. Raises `Unavailable`.
        """
        with self.opened("compacting") as table:
            files = pl.DataFrame(table.get_add_actions(flatten=True))
            day = next((name for name in files.columns if name.startswith("partition.")), None)
            small = files.filter(pl.col("size_bytes") < _FULL_BYTES)
            counts = (small.group_by(day) if day else small.group_by(pl.lit(None))).len("count")
            found = counts.filter(pl.col("count") >= at_least)
            for part in found.iter_slices(_DAYS_AT_ONCE):
                days = [str(value) for value in part[:, 0]]
                table.optimize.compact(
                    partition_filters=[(day.removeprefix("partition."), "in", days)] if day else None,
                    target_size=_FULL_BYTES,
                    max_concurrent_tasks=1,  # the appends beside it need a core, too
                )
        return int(found["count"].sum())

    @contextmanager
    def opened(self, doing: str) -> Iterator[DeltaTable]:
        """The newest version, for what is no append; raises `NotFound` where there is no table, or `Unavailable`."""
        with self._failures(doing):
            yield DeltaTable(self.uri)

    def _retrying(self, attempt: Callable[[], _T], before: Callable[[], None] | None = None) -> _T:
        for last in range(_ATTEMPTS - 1, -1, -1):
            if before is not None:
                before()
            try:
                with self._failures("appending to"):
                    result = attempt()
            except Unavailable:
                self.refresh()  # whether it was committed is read from the store, never guessed
                if not last:
                    raise
            else:
                return result
        raise AssertionError

    def _commit(self, rows: pl.DataFrame, spans: Mapping[Source, Span]) -> None:
        versions = {self._app(source): span.upto for source, span in spans.items()}
        versions |= {self._before(source): span.after for source, span in spans.items()}
        write_deltalake(
            self._handle(),
            rows,
            mode="append",
            schema_mode="merge",
            writer_properties=_writing(rows.schema),
            commit_properties=CommitProperties(
                app_transactions=[Transaction(name, version) for name, version in versions.items()]
            ),
        )
        # The handle has now seen what others committed of other sources: of those nothing may be remembered.
        self._versions = dict(versions)
        self.commits += 1
        if self._compacts and self.commits % COMPACT_EVERY == 0:
            try:
                self.compact()
            except TidemillError as error:  # the rows are in; the files are merged another time
                _log.info("compaction was put off", table=self.uri, reason=str(error))

    def _handle(self) -> DeltaTable:
        if self._table is None:
            with self._failures("opening"):
                self._table = self._open()
        return self._table

    def _open(self) -> DeltaTable:
        if self._schema is None:
            return DeltaTable(self.uri)
        wanted = Schema.from_arrow(pl.DataFrame(schema=self._schema).to_arrow().schema)
        try:
            table = DeltaTable(self.uri)
        except delta_errors.TableNotFoundError:
            try:
                DeltaTable.create(self.uri, schema=wanted, partition_by=self._partition_by, mode="ignore")
            except delta_errors.DeltaError:
                _log.debug("someone else made the table first", table=self.uri)
            table = DeltaTable(self.uri)
        self._fit(table, wanted)
        return table

    def _fit(self, table: DeltaTable, wanted: Schema) -> None:
        present = {field.name: field for field in table.schema().fields}
        for field in wanted.fields:
            if field.name in present and present[field.name].type != field.type:
                raise InvalidInput(
                    f"column {field.name} of {self.uri} is {present[field.name].type}, now wanted as {field.type}",
                    hint="give the field another name, or move the old table away",
                )
        missing = [field for field in wanted.fields if field.name not in present]
        if missing:
            table.alter.add_columns(missing)

    def _at(self, source: Source) -> int:
        found = self._transaction(self._app(source))
        return -1 if found is None else found

    def _transaction(self, name: str) -> int | None:
        """A transaction's version in the handle; a look-up takes a millisecond, a handle is asked several times."""
        if name not in self._versions:
            handle = self._handle()
            try:
                with self._failures("reading"):
                    self._versions[name] = handle.transaction_version(name)
            except Unavailable:  # the handle may be older than what is kept of the log
                self.refresh()
                raise
        return self._versions[name]

    def _app(self, source: Source | str) -> str:
        return f"{self._pipeline}/{source}"

    def _before(self, source: Source | str) -> str:
        return f"{self._pipeline}/{source}#before"

    @contextmanager
    def _failures(self, doing: str) -> Iterator[None]:
        try:
            yield
        except delta_errors.SchemaMismatchError as error:
            raise InvalidInput(f"{doing} {self.uri}: {error}") from error
        except delta_errors.TableNotFoundError as error:
            raise NotFound(f"there is no table {self.uri} yet") from error
        except _FOREIGN as error:
            raise Unavailable(f"{doing} {self.uri}: {error}") from error


def table_uri(lake: str, model_id: str, name: str) -> str:
    """Where a model's table is: `<lake>/<model id>.<name>`."""
    if "://" in lake:
        return f"{lake.rstrip('/')}/{model_id}.{name}"
    return str(Path(lake) / f"{model_id}.{name}")


def with_missing(rows: pl.LazyFrame, schema: Mapping[str, Any]) -> pl.LazyFrame:
    """The rows with every column of a schema: a table that an earlier release wrote lacks some, which are null."""
    known = rows.collect_schema().names()
    return rows.with_columns(pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in known)


def _writing(schema: pl.Schema) -> WriterProperties:
    """No dictionaries of what hardly repeats: looking for repetitions took two thirds of the time of a commit."""
    rare = [name for name, kind in schema.items() if kind in {pl.Float64(), pl.Binary()} or name == "offset"]
    return WriterProperties(column_properties={name: ColumnProperties(dictionary_enabled=False) for name in rare})


def _newer(rows: pl.DataFrame, spans: Mapping[Source, Span]) -> pl.DataFrame:
    if rows.is_empty():
        return rows
    keep = [
        (pl.col("source") == str(source)) & pl.col("offset").is_between(span.after, span.upto, closed="right")
        for source, span in spans.items()
    ]
    return rows.filter(reduce(pl.Expr.or_, keep))
