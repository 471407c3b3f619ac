"""A FeatureService of your own Feast repository, used as it is: online values to serve, historical ones to train.

    spec:  features: {service: inspection}          setting: feast_repo, the folder of feature_store.yaml

Feast reads the views, each on its own terms; what follows is done here by one function for both sides: values past
their view's ttl are absent, on-demand views are computed, types are the declared ones. So training sees what
serving gives. Opening a service imports Feast (seconds, hundreds of MB), so only a model that names one pays for it.
Feast's registry holds the code of on-demand views: use only one that you would run code from.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from tidemill.core.clock import from_ms
from tidemill.core.errors import InvalidInput, NotFound, TidemillError, Unavailable, UserCodeError
from tidemill.features.rows import Value
from tidemill.features.service_views import OnDemand, Plan, View, plan
from tidemill.spec.model import ContinualModel

__all__ = ["PRESENT", "RepositoryService", "ServiceRow", "open_service"]

PRESENT = "PRESENT"
"""Feast's status of a value that is there; the others say why it is None."""
NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE = "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"
_STATUSES = {1: PRESENT, 2: NULL_VALUE, 3: NOT_FOUND, 4: OUTSIDE_MAX_AGE}
_ROW, _TIME = "tidemill_row", "event_timestamp"


class ServiceRow(msgspec.Struct, frozen=True):
    """A service's features of one row."""

    values: dict[str, Value]
    """By name, in the service's order; None where the status is not `PRESENT`."""
    statuses: dict[str, str]
    """Feast's status of each value."""


def open_service(resource: ContinualModel, repository: Path | None) -> "RepositoryService":
    """The service that the resource names, checked against its events. Imports Feast.

    Raises:
        InvalidInput: no repository is known, a join key or request-time input is not in the events, or a name is taken.
        NotFound: there is no such repository or service.
        Unavailable: Feast cannot read the repository's registry.
    """
    name = resource.spec.features.service
    if name is None:
        raise InvalidInput(f"{resource.id} names no FeatureService")
    if repository is None:
        raise InvalidInput(
            f"spec.features.service is {name}, and no Feast repository is known",
            hint="set TIDEMILL_FEAST_REPO to the folder of your feature_store.yaml",
        )
    if not (repository / "feature_store.yaml").is_file():
        raise NotFound(f"there is no feature_store.yaml in {repository}", hint="the setting is feast_repo")
    with _without_torch():
        from feast import FeatureStore
    with _failures(f"Feast cannot read the repository {repository}"):
        store = FeatureStore(repo_path=str(repository))
        known = {service.name: service for service in store.list_feature_services()}
    if name not in known:
        raise NotFound(
            f"{repository} has no FeatureService {name}; it has {', '.join(sorted(known)) or 'none'}",
            hint=f"spell spec.features.service as it is registered, or run `feast -c {repository} apply`",
        )
    with _failures(f"Feast cannot resolve the service {name}"):
        planned = plan(resource, store, known[name])
    return RepositoryService(store, planned)


@dataclass(frozen=True)
class RepositoryService:
    """A service that is open. One thread."""

    store: Any
    """The repository's `feast.FeatureStore`."""
    plan: Plan

    @property
    def names(self) -> tuple[str, ...]:
        """The features, in the service's order."""
        return self.plan.names

    @property
    def types(self) -> Mapping[str, Any]:
        """Polars type of each feature, by name."""
        return self.plan.types

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that a row must have: join keys and request-time inputs."""
        return self.plan.inputs

    def online(self, rows: Sequence[Mapping[str, Any]], now: datetime) -> list[ServiceRow]:
        """A row of features for each of `rows` (which have `inputs`), by Feast's own `get_online_features`.

        Raises `Unavailable` where the store does not answer, `UserCodeError` where an on-demand view fails.
        """
        table = pl.DataFrame([{name: row.get(name) for name in self.inputs} for row in rows], schema=self.plan.schema)
        columns, statuses = self._read(table.select(self.plan.keys).to_dicts(), now) if self.plan.views else ({}, {})
        values = self._finished(table.with_columns(**columns)).to_dicts()
        return [
            ServiceRow(found, {name: _status(found[name], statuses.get(name), row) for name in self.names})
            for row, found in enumerate(values)
        ]

    def historical(self, rows: pl.DataFrame, time: str) -> pl.DataFrame:
        """The features as of each row's `time`, by Feast's own `get_historical_features`; one row each, in order.

        Each view is asked for by itself: Feast's default store drops a row of which any view has nothing, and
        repeats are asked for once, because it drops those, too.

        Args:
            rows: have the columns `inputs` and `time` (a UTC datetime).
            time: name of that column.
        """
        table = rows.select(*(pl.col(name).cast(self.plan.schema[name]) for name in self.inputs), _time(time))
        asked = table.select(*self.plan.keys, _TIME).unique(maintain_order=True).with_row_index(_ROW)
        found = asked
        for view in self.plan.views:
            found = found.join(self._history(view, asked), on=_ROW, how="left", maintain_order="left")
        on = [*self.plan.keys, _TIME]
        return self._finished(table.join(found, on=on, how="left", nulls_equal=True, maintain_order="left"))

    def _read(self, keys: list[dict[str, Any]], now: datetime) -> tuple[dict[str, pl.Series], dict[str, list[str]]]:
        """Columns by full name, and for each feature of the service that is in a view, the rows' statuses."""
        refs = [ref for view in self.plan.views for ref in view.refs]
        with _failures("the online store of your Feast repository does not answer"):
            response = self.store.get_online_features(features=refs, entity_rows=keys, full_feature_names=True).proto
        vectors = dict(zip(response.metadata.feature_names.val, response.results, strict=True))
        columns, statuses = {}, {}
        for view in self.plan.views:
            for feature, kind in view.features.items():
                full = view.full(feature)
                states = [_state(vectors[full], row, view.ttl, now) for row in range(len(keys))]
                read = [
                    _value(value) if state == PRESENT else None
                    for value, state in zip(vectors[full].values, states, strict=True)
                ]
                columns[full] = pl.Series(full, read, dtype=kind)
                if self.plan.sources.get(feature) == full:
                    statuses[feature] = states
        return columns, statuses

    def _history(self, view: View, asked: pl.DataFrame) -> pl.DataFrame:
        """What a view had as of each row, by the row's number; rows of which it had nothing may be missing."""
        entities = asked.select(_ROW, *view.keys, _TIME).to_pandas()
        with _failures(f"Feast cannot read the history of {view.name}"):
            job = self.store.get_historical_features(entity_df=entities, features=view.refs, full_feature_names=True)
            found = pl.DataFrame(job.to_arrow())
        wanted = [pl.col(view.full(name)).cast(kind) for name, kind in view.features.items()]
        found = found.select(pl.col(_ROW).cast(pl.UInt32), *wanted)
        if found[_ROW].n_unique() != found.height:
            raise InvalidInput(f"the offline store of your Feast repository answers with rows of {view.name} twice")
        return found

    def _finished(self, table: pl.DataFrame) -> pl.DataFrame:
        """The service's features, given the inputs and what the views have: one function for both sides."""
        for view in self.plan.on_demand:
            table = table.with_columns(**_computed(view, table))
        return table.select(
            pl.col(source).cast(self.plan.types[name]).fill_nan(None).alias(name)
            if self.plan.types[name].is_float()
            else pl.col(source).cast(self.plan.types[name]).alias(name)
            for name, source in self.plan.sources.items()
        )


def _computed(view: OnDemand, table: pl.DataFrame) -> dict[str, pl.Series]:
    """An on-demand view's features by full name. Raises `UserCodeError` where its function fails."""
    try:
        answer = view.feast.transform_arrow(table.to_arrow(compat_level=pl.CompatLevel.oldest()), False)
        made = {name: pl.Series(answer[name].to_pylist(), dtype=kind) for name, kind in view.features.items()}
    except Exception as error:  # whatever the user's function raises
        raise UserCodeError(f"the on-demand feature view {view.name} failed: {error}") from error
    if any(len(column) != table.height for column in made.values()):
        raise UserCodeError(f"the on-demand feature view {view.name} does not answer with one value for each row")
    return {view.full(name): column for name, column in made.items()}


def _state(vector: Any, row: int, ttl: timedelta | None, now: datetime) -> str:
    """Feast's status, with what its stores leave out: ttl (most ignore it on read) and values that are null."""
    state = _STATUSES.get(vector.statuses[row], NOT_FOUND)
    if state != PRESENT:
        return state
    at_ms, has_value = vector.event_timestamps[row].ToMilliseconds(), vector.values[row].WhichOneof("val") is not None
    if not at_ms and not has_value:
        return NOT_FOUND  # Feast's Redis store says PRESENT of an entity that it does not have
    if ttl is not None and from_ms(at_ms) < now - ttl:
        return OUTSIDE_MAX_AGE
    return PRESENT if has_value else NULL_VALUE


def _status(value: Value, states: list[str] | None, row: int) -> str:
    """A value's status; of an on-demand view's (which Feast gives none) whether there is one."""
    known = PRESENT if states is None else states[row]
    return NULL_VALUE if known == PRESENT and value is None else known


def _value(proto: Any) -> Value:
    value: Value = getattr(proto, proto.WhichOneof("val"))
    return value


def _time(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Datetime("us", "UTC")).alias(_TIME)


@contextmanager
def _without_torch() -> Iterator[None]:
    """Feast imports torch where there is one and does without where there is not: 470 MB for nothing here."""
    absent = "torch" not in sys.modules
    if absent:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules["torch"]


@contextmanager
def _failures(what: str) -> Iterator[None]:
    try:
        yield
    except TidemillError:
        raise
    except Exception as error:  # Feast's own, and those of whatever store it talks to
        raise Unavailable(f"{what}: {str(error) or type(error).__name__}") from error
