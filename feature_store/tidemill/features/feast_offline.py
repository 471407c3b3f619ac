"""Feast's offline store over the lake and over a user's own files: plain `FeatureStore.get_historical_features`.

One ASOF pass for each feature view (`tidemill.features.point_in_time`). No row is dropped or repeated, and no value is
from the future: an event counts once it had arrived. Reading only: events have one writer, ingest, so whatever Feast
would write is refused. Importing this imports Feast, seconds and hundreds of MB.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import pandas as pd
import polars as pl
import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel

from tidemill.core.errors import InvalidInput, Unsupported
from tidemill.features.feast_job import FrameJob
from tidemill.features.feast_online import MODEL_TAG
from tidemill.features.feast_sources import Asked, failures, in_utc, join, scan, window_features
from tidemill.features.window_tag import windows_in

__all__ = ["TidemillOfflineStore", "TidemillOfflineStoreConfig"]


class TidemillOfflineStoreConfig(FeastConfigBaseModel):
    """What feature_store.yaml says under `offline_store`."""

    type: Literal["tidemill.features.feast_offline.TidemillOfflineStore"] = (
        "tidemill.features.feast_offline.TidemillOfflineStore"
    )
    """The class that reads."""
    created_is_arrival: bool = True
    """Of a user's own sources: whether a value counts only from its created timestamp on. Feast's own stores do so
    where `filter_by_created_timestamp` asks for it; false: so does this one. Events of ours always have an arrival."""


class TidemillOfflineStore(OfflineStore):
    """Reads Parquet and Delta files as of a time."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **_: Any,
    ) -> RetrievalJob:
        """The rows of `entity_df`, in their order, with the features as they were known at each row's time.

        Raises `Unsupported` for a query instead of rows and for sources that are no Parquet or Delta files,
        `InvalidInput` where a column is missing. What is read is read when the job is asked for its result.
        """
        if not isinstance(entity_df, pd.DataFrame):
            what = "an SQL query" if isinstance(entity_df, str) else "a range of dates"
            raise Unsupported(
                f"get_historical_features takes rows as a pandas DataFrame, not {what}",
                hint="give entity_df the rows that features are wanted for: join keys and a column event_timestamp",
            )
        time = infer_event_timestamp_from_entity_df(dict(zip(entity_df.columns, entity_df.dtypes, strict=True)))
        rows = _rows(entity_df, time)
        created_is_arrival = config.offline_store.created_is_arrival or filter_by_created_timestamp
        asked = [_asked(view, feature_refs, created_is_arrival, full_feature_names) for view in feature_views]
        _no_name_twice([*rows.columns, *(name for one in asked for name in one.features.values())])

        def found() -> pa.Table:
            table = rows.to_arrow()
            for one in asked:
                with failures(f"reading {one.view.name}"):
                    features = join(rows, pl.col(time), one, config.repo_path)
                for name in features.columns:
                    table = table.append_column(name, features[name].to_arrow())
            return table

        return FrameJob(
            found,
            config.repo_path,
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in rows.columns if name != time],
                min_event_timestamp=rows.select(pl.col(time).min()).item(),
                max_event_timestamp=rows.select(pl.col(time).max()).item(),
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Each entity's last row within the times, ends included: what `feast materialize` writes elsewhere.

        Windows are those at the end.
        """
        times = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]
        ties = [name for name in _ORDER if MODEL_TAG in data_source.tags]

        def latest(table: pl.LazyFrame) -> pl.LazyFrame:
            within = _between(table, timestamp_field, start_date, end_date)
            ordered = within.sort(timestamp_field, *ties, *times[1:], maintain_order=True)
            if join_key_columns:
                return ordered.unique(join_key_columns, keep="last", maintain_order=True)
            return ordered.tail(1).with_columns(pl.lit(DUMMY_ENTITY_VAL).alias(DUMMY_ENTITY_ID))

        at = pl.lit(_utc(end_date), _TIME)
        return _pulled(
            config, data_source, join_key_columns or [DUMMY_ENTITY_ID], feature_name_columns, times, latest, at
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All rows within the times, ends included; windows as they stood at each row's time."""
        times = [timestamp_field, *([created_timestamp_column] if created_timestamp_column else [])]

        def every(table: pl.LazyFrame) -> pl.LazyFrame:
            return _between(table, timestamp_field, start_date, end_date)

        at = pl.col(timestamp_field)
        return _pulled(config, data_source, join_key_columns, feature_name_columns, times, every, at)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Refused: ingest is the only writer. Raises `Unsupported`."""
        raise Unsupported(
            f"the offline store does not write {feature_view.name}: events are written by ingest alone",
            hint="send events to the model's topic; write a source of your own with what made it",
        )


_ORDER = ("source", "offset")
_TIME = pl.Datetime("us", "UTC")


def _pulled(
    config: RepoConfig,
    source: DataSource,
    keys: Sequence[str],
    features: Sequence[str],
    times: Sequence[str],
    rows_of: Callable[[pl.LazyFrame], pl.LazyFrame],
    at: pl.Expr,
) -> RetrievalJob:
    """Columns of those rows of a source that `rows_of` leaves, windows as they stood `at` a time."""
    windows = windows_in(source.tags)
    computed = windows.names & set(features)

    def found() -> pa.Table:
        with failures(f"reading {source.name}"):
            table = scan(source, config.repo_path)
            plain = [name for name in features if name not in computed]
            rows = rows_of(table).select(*keys, *plain, *times).collect(engine="streaming")
            if computed:
                asked = rows.select(pl.col(keys[0]).alias("entity"), at=at)
                rows = rows.hstack(window_features(asked, table, windows, computed))
            return rows.select(*keys, *features, *times).to_arrow()

    return FrameJob(found, config.repo_path)


def _asked(view: FeatureView, refs: Sequence[str], created_is_arrival: bool, full_names: bool) -> Asked:
    if view.batch_source is None:
        raise InvalidInput(f"feature view {view.name} has no batch source: it has no history")
    name = str(view.projection.name_to_use())  # type: ignore[no-untyped-call]
    prefix = f"{view.projection.name_alias or view.name}__" if full_names else ""
    features = [ref.partition(":")[2] for ref in refs if ref.partition(":")[0] == name]
    return Asked(
        view=view,
        source=view.batch_source,
        features={feature: prefix + feature for feature in features},
        is_ours=MODEL_TAG in view.tags,
        created_is_arrival=created_is_arrival,
    )


def _rows(frame: pd.DataFrame, time: str) -> pl.DataFrame:
    """The rows that are asked about, their time in UTC."""
    if not pd.api.types.is_datetime64_any_dtype(frame[time]):
        frame = frame.assign(**{time: pd.to_datetime(frame[time], utc=True)})
    try:
        rows = pl.from_pandas(frame)
    except (pa.ArrowException, pl.exceptions.PolarsError, TypeError) as error:
        raise InvalidInput(f"entity_df cannot be read: {error}", hint="give each column values of one type") from error
    return rows.with_columns(in_utc(pl.col(time), rows.schema[time], time))


def _no_name_twice(names: Sequence[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInput(
            f"{', '.join(twice)} would be there twice: a column of the rows, or features of two views",
            hint="rename the column, or ask with full_feature_names=True",
        )


def _between(table: pl.LazyFrame, time: str, first: datetime | None, last: datetime | None) -> pl.LazyFrame:
    moment = in_utc(pl.col(time), table.collect_schema()[time], time)
    if first is not None:
        table = table.filter(moment >= _utc(first))
    return table if last is None else table.filter(moment <= _utc(last))


def _utc(moment: datetime) -> datetime:
    """Feast's times without a zone are UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
