"""Feast's online store over the rows that ingest writes: plain `FeatureStore.get_online_features` reads them.

Reading only. The rows have one writer, which fences its writes; whatever Feast would write (`write_to_online_store`,
`push`, `materialize`) is refused, because it would go round the fence. Importing this imports Feast, seconds and
hundreds of MB: serving reads with `tidemill.features.online.OnlineReader` instead.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal

from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.repo_config import FeastConfigBaseModel
from feast.types import Bool, Float64, Int64, String

from tidemill.core.clock import SystemClock, from_ms, to_ms
from tidemill.core.errors import InvalidInput, Unavailable, Unsupported
from tidemill.features.layout import Kind, Layout
from tidemill.features.reader import OnlineReader, OnlineRow, Status
from tidemill.features.rows import Value
from tidemill.features.tiles import tiled
from tidemill.features.window_tag import WINDOWS_TAG, windows_in

__all__ = ["MODEL_TAG", "VIEW_TAG", "TidemillOnlineStore", "TidemillOnlineStoreConfig"]

MODEL_TAG = "tidemill.model"
"""Tag of a feature view: the id of the model whose rows it shows."""
VIEW_TAG = "tidemill.view"
"""Tag of a feature view: the view's name in the rows' keys."""

_KINDS: dict[Any, Kind] = {Float64: "float", Int64: "int", String: "string", Bool: "bool"}

_Read = list[tuple[datetime | None, dict[str, ValueProto] | None]]


class TidemillOnlineStoreConfig(FeastConfigBaseModel):
    """What feature_store.yaml says under `online_store`."""

    type: Literal["tidemill.features.feast_online.TidemillOnlineStore"] = (
        "tidemill.features.feast_online.TidemillOnlineStore"
    )
    """The class that reads the rows."""
    redis_url: str
    """URL of the rows' Redis; `rediss://USER:PASSWORD@HOST:PORT/0?ssl_ca_certs=FILE` for TLS and ACL."""


class TidemillOnlineStore(OnlineStore):
    """Reads online rows for Feast. While they are being rebuilt a read raises `Unavailable`, never a part."""

    def __init__(self) -> None:
        self._readers: dict[tuple[str, str, str, int | None, str | None], OnlineReader] = {}

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> _Read:
        """Event time and values of each entity, in order; of one without events no time, and the windows alone.

        So Feast says NOT_FOUND of last values that never were, and a count is 0. Windows are evaluated now. Where the
        last event is older than the view's ttl, its values are null.
        """
        names = requested_features or [feature.name for feature in table.features]
        now_ms = to_ms(SystemClock().now())  # Feast's interface has no time
        rows = self._reader(config, table).read([_entity(key) for key in entity_keys], now_ms)
        return [_read(row, names) for row in rows]

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, ValueProto], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Refused: ingest is the rows' only writer. Raises `Unsupported`."""
        raise Unsupported(
            f"rows of {table.name} are written by ingest alone", hint="send events to the model's topic instead"
        )

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Nothing to do: rows come with the first event, and only ingest removes them."""

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Drop the connections; the rows stay, as long as ingest keeps them."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def _reader(self, config: RepoConfig, table: FeatureView) -> OnlineReader:
        model, view = table.tags.get(MODEL_TAG), table.tags.get(VIEW_TAG)
        if model is None or view is None:
            raise InvalidInput(f"feature view {table.name} is not one of Tidemill's: it has no tag {MODEL_TAG}")
        ttl_ms = to_ms(table.ttl) if table.ttl else None
        key = (config.online_store.redis_url, model, view, ttl_ms, table.tags.get(WINDOWS_TAG))
        if key not in self._readers:
            self._readers[key] = OnlineReader(*key[:3], layout=_layout(table), ttl_ms=ttl_ms)
        return self._readers[key]


def _layout(table: FeatureView) -> Layout:
    """The view's windows, and the kinds of the fields that they are of."""
    known = windows_in(table.tags)
    fields = [(field.name, _KINDS[field.dtype]) for field in table.features if field.name not in known.names]
    return Layout((*fields, *known.label_fields), tiled(known.windows, known.allowed_lateness))


def _entity(key: EntityKey) -> str:
    """An entity's key as the rows have it; one field, a string or a whole number."""
    (value,) = key.entity_values
    return str(getattr(value, value.WhichOneof("val")))


def _read(row: OnlineRow, names: Sequence[str]) -> tuple[datetime | None, dict[str, ValueProto] | None]:
    if row.status is Status.REBUILDING:
        raise Unavailable("the online rows are being rebuilt from the lake", hint="ask again in a moment")
    if row.event_time is None:
        # What is not in the answer has the status NOT_FOUND.
        return None, {name: _proto(row.values[name]) for name in names if name in row.values} or None
    return from_ms(row.event_time), {name: _proto(row.values.get(name)) for name in names}


def _proto(value: Value) -> ValueProto:
    if value is None:
        return ValueProto()
    if isinstance(value, bool):  # before int, which it is too
        return ValueProto(bool_val=value)
    if isinstance(value, int):
        return ValueProto(int64_val=value)
    return ValueProto(string_val=value) if isinstance(value, str) else ValueProto(double_val=value)
