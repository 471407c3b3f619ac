"""The registry in MLflow: a registered model per model id, its versions named by the tag `tidemill.version`.

A version's source is its immutable artifact prefix. MLflow is used in process on its tracking URI (SQLite on one
machine, no server); its telemetry is off. Importing it takes seconds, so it is imported on first use.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import Conflict, NotFound, Unavailable
from tidemill.registry.protocol import CLEARED_TAG, Alias, RegisteredVersion

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

__all__ = ["VERSION_TAG", "MlflowRegistry"]

VERSION_TAG = "tidemill.version"
_ALIASES: tuple[Alias, ...] = ("champion", "candidate", "previous")
_MISSING = "RESOURCE_DOES_NOT_EXIST"
_PRESENT = "RESOURCE_ALREADY_EXISTS"
_LONGEST_PARAMETER = 6000
_LONGEST_DESCRIPTION = 5000
"""Characters that MLflow keeps."""
_REST = "\n\n… the rest stands in `card.md` of the version's artifact."


class MlflowRegistry:
    """Implements `Registry`.

    Args:
        uri: MLflow's tracking URI, for instance `sqlite:////folder/mlflow.db`. The first use of a new SQLite file
            makes its tables, which takes some seconds.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._known: MlflowClient | None = None

    def register(
        self,
        model: str,
        version: str,
        artifact: str,
        *,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        parameters: Mapping[str, str] | None = None,
        description: str = "",
    ) -> None:
        """Add a version, and a run that shows its figures; the same again changes nothing.

        The version is MLflow's last call, with all its tags: a crash before it leaves a run that the next try finds.
        """
        known = next((found for found in self.versions(model) if found.version == version), None)
        if known is not None:
            if known.artifact != artifact:
                raise Conflict(f"version {version} of {model} is registered with {known.artifact}, not {artifact}")
            return
        tags = {VERSION_TAG: version, **(tags or {})}
        with self._failures(f"registering {version} of {model}"):
            self._ensure_model(model)
            run = self._log_run(model, version, artifact, tags, metrics or {}, parameters or {})
            self._client.create_model_version(
                model, source=artifact, run_id=run, tags=tags, description=_cut(description) or None
            )

    def set_alias(self, model: str, alias: Alias, version: str | None) -> None:
        """Point an alias at a version, or at none."""
        with self._failures(f"setting alias {alias} of {model}"):
            if version is None:
                if alias in self.aliases(model):
                    self._client.delete_registered_model_alias(model, alias)
                return
            self._client.set_registered_model_alias(model, alias, self._number(model, version))

    def aliases(self, model: str) -> dict[Alias, str]:
        """The version of each alias that is set."""
        found: dict[Alias, str] = {}
        for alias in _ALIASES:
            # Asked one by one: a search returns versions without their aliases.
            with self._failures(f"reading alias {alias} of {model}"):
                version = self._by_alias(model, alias)
            if version is not None and VERSION_TAG in version.tags:
                found[alias] = version.tags[VERSION_TAG]
        return found

    def versions(self, model: str) -> Sequence[RegisteredVersion]:
        """All versions, oldest first; versions that others registered under this model's name are left out."""
        with self._failures(f"reading the versions of {model}"):
            return [
                RegisteredVersion(
                    version=found.tags[VERSION_TAG],
                    artifact=found.source,
                    created_at=found.creation_timestamp,
                    tags={key: text for key, text in found.tags.items() if key != VERSION_TAG},
                    description=found.description or "",
                )
                for found in self._found(model)
                if VERSION_TAG in found.tags
            ]

    def mark_cleared(self, model: str, version: str, at: datetime) -> None:
        """Say that the version's files go now: a tag of it, which MLflow's UI shows."""
        if version in self.aliases(model).values():
            raise Conflict(f"version {version} of {model} has an alias: its files stay")
        with self._failures(f"marking {version} of {model}"):
            number = self._number(model, version)
            self._client.set_model_version_tag(model, number, CLEARED_TAG, at.isoformat(timespec="seconds"))

    @property
    def _client(self) -> "MlflowClient":
        if self._known is None:
            from tidemill.registry.mlflow_client import MlflowClient

            self._known = MlflowClient(self._uri, self._uri)
        return self._known

    def _found(self, model: str) -> list[Any]:
        """MLflow's versions of a model, oldest first, page by page."""
        versions: list[Any] = []
        token = None
        while True:
            page = self._client.search_model_versions(f"name = '{model}'", page_token=token)
            versions.extend(page)
            if not (token := page.token):
                return sorted(versions, key=lambda found: int(found.version))

    def _number(self, model: str, version: str) -> str:
        """MLflow's own number of a version; raises `NotFound`."""
        for found in self._found(model):
            if found.tags.get(VERSION_TAG) == version:
                return str(found.version)
        raise NotFound(f"{model} has no version {version}")

    def _by_alias(self, model: str, alias: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version_by_alias(model, alias)
        except MlflowException as error:
            if error.error_code in {_MISSING, "INVALID_PARAMETER_VALUE"}:
                return None
            raise

    def _ensure_model(self, model: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != _PRESENT:
                raise

    def _log_run(
        self,
        model: str,
        version: str,
        artifact: str,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
        parameters: Mapping[str, str],
    ) -> str:
        """An MLflow run with the version's figures, for its UI and for comparing; its id. An earlier try's is used."""
        from mlflow.entities import Metric, Param

        experiment = self._client.get_experiment_by_name(model)
        # Without a location of its own the experiment would put files into the working folder.
        home = artifact.rsplit("/", 1)[0]
        number = experiment.experiment_id if experiment else self._client.create_experiment(model, home)
        started = self._client.search_runs([number], f"tags.`{VERSION_TAG}` = '{version}'", max_results=1)
        run = started[0] if started else self._client.create_run(number, run_name=version, tags=dict(tags))
        # With the run's own time: the same figure again is the same row.
        at = run.info.start_time
        said = [Param(name, text[:_LONGEST_PARAMETER]) for name, text in parameters.items()]
        self._client.log_batch(run.info.run_id, [Metric(name, value, at, 0) for name, value in metrics.items()], said)
        self._client.set_terminated(run.info.run_id)
        return str(run.info.run_id)

    @contextmanager
    def _failures(self, doing: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise Unavailable(f"{doing} in MLflow at {self._uri}: {error}") from error


def _cut(description: str) -> str:
    """What MLflow keeps of a description, cut at a line's end."""
    if len(description) <= _LONGEST_DESCRIPTION:
        return description
    head = description[: _LONGEST_DESCRIPTION - len(_REST)]
    return head[: head.rfind("\n")] + _REST if "\n" in head else head + _REST
