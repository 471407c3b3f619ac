"""The pipeline runner of a cluster: runs of the compiled pipeline, by the API of Kubeflow Pipelines.

A run is named by its id, and looked for under that name before it is started: KFP itself has no idempotency key. Runs
that others start, in the KFP UI for instance, are shown too, as far as they are of our pipeline and our model; so their
ends are seen, whatever ended them. One that is to be forgotten is archived, and KFP itself leaves these out, and older
ones of others, so that a turn reads few runs, however many there ever were.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import kfp
import urllib3
from kfp_server_api.exceptions import ApiException

from tidemill.control.protocols import RunSeen
from tidemill.control.runs import run_of
from tidemill.core.errors import NotFound, Unavailable

__all__ = ["PIPELINE", "KfpRunner"]

PIPELINE = "tidemill-retrain"
"""Its name in Kubeflow; its versions are named by the digest of the compiled pipeline."""
_PAGE = 100
_TIMEOUT_S = (5, 30)
"""To connect, and to wait for an answer: one that never comes must not hold up every other model."""
_NOT_FOUND = 404
_SKEW = timedelta(hours=1)
"""By so much the clocks of two API servers differ at most."""

State = Literal["pending", "running", "succeeded", "failed"]
_STATES: Mapping[str, State] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "PAUSED": "running",
    "CANCELING": "running",
    "SUCCEEDED": "succeeded",
    "SKIPPED": "succeeded",
    "FAILED": "failed",
    "CANCELED": "failed",
}
_OVER = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})

Predicate = dict[str, str]

T = TypeVar("T")


class KfpRunner:
    """Runs of one model on Kubeflow Pipelines; implements `PipelineRunner`. One thread.

    Args:
        host: URL of the KFP API.
        model: the model's id; its runs are in the experiment of this name.
        compiled: the compiled pipeline, uploaded once for each content.
        namespace: KFP's, where it has several users.
    """

    def __init__(self, host: str, *, model: str, compiled: Path, namespace: str | None = None) -> None:
        self._host, self._model, self._compiled, self._namespace = host, model, compiled, namespace
        self._known: kfp.Client | None = None
        self._version: tuple[str, str] | None = None
        """Pipeline and version that runs are started with."""
        self._since: datetime | None = None
        """What KFP created before is none of ours, or is archived; None: not looked yet."""

    def start(self, run: str, parameters: Mapping[str, str | bool]) -> None:
        """Start the run unless it exists; returns at once."""
        with self._failures(f"starting {run}"):
            if any(self._is_ours(one) for one in self._read([_predicate("EQUALS", "display_name", run)])):
                return
            pipeline, version = self._uploaded()
            experiment = self._client.create_experiment(self._model, namespace=self._namespace)
            self._client.run_pipeline(
                experiment.experiment_id,
                run,
                params=dict(parameters),
                pipeline_id=pipeline,
                version_id=version,
                enable_caching=False,
            )

    def observe(self) -> Sequence[RunSeen]:
        """The runs that are not forgotten yet, ordered by name, those of others too."""
        with self._failures("reading the runs"):
            return sorted((_seen(one) for one in self._kept()), key=lambda seen: seen.run)

    def stop(self, run: str) -> None:
        """End a run and forget it; ending one that is over or unknown is no error."""
        with self._failures(f"stopping {run}"):
            for one in self._kept():
                if run_of(one.display_name, one.run_id) != run:
                    continue
                if one.state not in _OVER:
                    self._client.terminate_run(one.run_id)
                self._client.archive_run(one.run_id)

    @property
    def _client(self) -> kfp.Client:
        if self._known is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns that servers before 2.0 will not do
                self._known = kfp.Client(host=self._host, namespace=self._namespace or "kubeflow")
            _bounded(self._known)
        return self._known

    def _uploaded(self) -> tuple[str, str]:
        """Pipeline and version of the compiled file, uploaded where they are not there yet."""
        if self._version is None:
            name = hashlib.sha256(self._compiled.read_bytes()).hexdigest()[:12]
            pipeline = self._client.get_pipeline_id(PIPELINE)
            if pipeline is None:
                made = self._client.upload_pipeline(
                    str(self._compiled), PIPELINE, "Train a new version of a model", self._namespace
                )
                pipeline = made.pipeline_id
            found = self._version_named(pipeline, name)
            if found is None:
                made = self._client.upload_pipeline_version(str(self._compiled), name, pipeline_id=pipeline)
                found = made.pipeline_version_id
            self._version = pipeline, found
        return self._version

    def _version_named(self, pipeline: str, name: str) -> str | None:
        def page(token: str) -> tuple[Sequence[Any], str]:
            found = self._client.list_pipeline_versions(pipeline, page_token=token, page_size=_PAGE)
            return found.pipeline_versions or (), found.next_page_token or ""

        return next((one.pipeline_version_id for one in _pages(page) if one.display_name == name), None)

    def _kept(self) -> list[Any]:
        """Our runs that are not archived.

        KFP does not filter by pipeline. What was there at the last look and is none of ours never becomes ours, so that
        only runs are read that are as new as the oldest of ours, or nearly as new as the newest of all.
        """
        newer = [] if self._since is None else [_predicate("GREATER_THAN_EQUALS", "created_at", _text(self._since))]
        found = list(self._read([_predicate("NOT_EQUALS", "storage_state", "ARCHIVED"), *newer]))
        ours = [one for one in found if self._is_ours(one)]
        at = [one.created_at for one in ours] or [max(one.created_at for one in found) - _SKEW] if found else []
        self._since = min(at, default=self._since)
        return ours

    def _read(self, predicates: Sequence[Predicate]) -> Iterator[Any]:
        """The runs for which all predicates hold."""
        wanted = json.dumps({"predicates": list(predicates)})

        def page(token: str) -> tuple[Sequence[Any], str]:
            found = self._client.list_runs(page_token=token, page_size=_PAGE, namespace=self._namespace, filter=wanted)
            return found.runs or (), found.next_page_token or ""

        return _pages(page)

    def _is_ours(self, run: Any) -> bool:
        """Whether it is of our pipeline and of the model."""
        reference, config = run.pipeline_version_reference, run.runtime_config
        if reference is None or config is None or (config.parameters or {}).get("model") != self._model:
            return False
        return bool(reference.pipeline_id == self._client.get_pipeline_id(PIPELINE))

    @contextmanager
    def _failures(self, doing: str) -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            said = f"{doing} of {self._model} in KFP at {self._host}: {error.status} {error.reason}"
            if error.status == _NOT_FOUND:
                raise NotFound(said) from error
            raise Unavailable(said) from error
        except ValueError as error:  # its client, of two pipelines of one name
            raise Unavailable(f"{doing} of {self._model} in KFP at {self._host}: {error}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"{doing} of {self._model}: KFP at {self._host} does not answer: {error}") from error


def _predicate(operation: str, key: str, value: str) -> Predicate:
    """One condition of KFP's filters (`filter.proto` of its API v2beta1), which looks at no capital letters."""
    kind = "timestamp_value" if key == "created_at" else "string_value"
    return {"operation": operation, "key": key, kind: value}


def _text(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _pages(page: Callable[[str], tuple[Sequence[T], str]]) -> Iterator[T]:
    token = ""
    while True:
        found, token = page(token)
        yield from found
        if not token:
            return


def _seen(run: Any) -> RunSeen:
    state = _STATES.get(run.state or "", "pending")
    tasks = (run.run_details.task_details or ()) if run.run_details else ()
    wanted = {"failed": "FAILED", "running": "RUNNING"}.get(state)
    # A run and its groups of tasks are tasks of their own; the last that is at work, or has failed, is the step.
    step = next((task.display_name for task in reversed(tasks) if task.state == wanted), None)
    told = [run.error, *(task.error for task in reversed(tasks) if task.state == "FAILED")]
    error = next((one.message for one in told if one is not None and one.message), None)
    if state == "failed" and error is None:
        error = "it was terminated" if run.state == "CANCELED" else "KFP gives no reason"
    return RunSeen(run=run_of(run.display_name, run.run_id), state=state, step=step, error=error)


def _bounded(client: kfp.Client) -> None:
    """Give every call a time-out: the client's methods take none, and without one they wait for ever."""
    rest = client._run_api.api_client.rest_client
    send = rest.request

    def request(*args: Any, **kwargs: Any) -> Any:
        return send(*args, **{**kwargs, "_request_timeout": kwargs.get("_request_timeout") or _TIMEOUT_S})

    rest.request = request
