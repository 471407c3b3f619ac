"""The answer of the offline store, as Feast's users take it: a DataFrame, an Arrow table, or a file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
from feast import FileSource
from feast.data_format import DeltaFormat
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView

from tidemill.core.errors import Unsupported
from tidemill.features.feast_sources import failures

__all__ = ["FrameJob"]


class FrameJob(RetrievalJob):
    """Reads when it is asked, each time anew; Feast computes on-demand features on top.

    Args:
        found: makes the table.
        repository: the folder that relative paths are below.
        full_feature_names: whether features are named with their view.
        on_demand_feature_views: what is computed on top.
        metadata: which features and rows were asked for.
    """

    def __init__(
        self,
        found: Callable[[], pa.Table],
        repository: Path | None,
        *,
        full_feature_names: bool = False,
        on_demand_feature_views: Sequence[OnDemandFeatureView] = (),
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._found, self._repository = found, repository
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = list(on_demand_feature_views)
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether features are named with their view."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """What is computed on top."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """Which features and rows were asked for."""
        return self._metadata

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result as a Parquet file (`….parquet`), a folder of them, or a Delta table.

        Raises `Unsupported` for a storage that is no file, Feast's `SavedDatasetLocationAlreadyExists` for one that
        is there unless it may be overwritten.
        """
        if not isinstance(storage, SavedDatasetFileStorage):
            kind = type(storage).__name__
            raise Unsupported(f"results are kept in files: name a SavedDatasetFileStorage, not a {kind}")
        uri = FileSource.get_uri_for_file_path(self._repository, storage.file_options.uri)
        if not allow_overwrite and "://" not in uri and Path(uri).exists():
            raise SavedDatasetLocationAlreadyExists(location=uri)
        frame = pl.DataFrame(self.to_arrow())
        with failures(f"writing {uri}"):
            if isinstance(storage.file_options.file_format, DeltaFormat):
                frame.write_delta(uri, mode="overwrite")
            else:
                file = uri if uri.endswith(".parquet") else f"{uri.rstrip('/')}/rows.parquet"
                frame.write_parquet(file, mkdir=True)

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return pd.DataFrame(self._found().to_pandas())

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._found()
