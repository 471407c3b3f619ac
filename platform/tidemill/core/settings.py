"""Settings of this installation: from the environment, a file, or the running stack, in this order.

    TIDEMILL_KAFKA=broker:9092        environment, first
    tidemill.toml   kafka = "…"       nearest file in this folder or one above it
    .tidemill/stack.json              what `tidemill up` started and where
    default

Relative paths are relative to where they were said: the working folder, or the file's.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tidemill.core.errors import InvalidInput, Unavailable
from tidemill.core.files import is_locked

__all__ = ["Settings", "environment", "load_settings", "masked"]

PREFIX = "TIDEMILL_"
FILE = "tidemill.toml"
_FOLDERS = ("state", "feast_repo")


class Settings(BaseModel):
    """Where everything is. None: not known, for instance because no stack runs."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    state: Path = Path(".tidemill")
    """Folder of everything this installation keeps on one machine."""
    kafka: str | None = None
    """Kafka bootstrap servers, `host:port[,host:port]`. Set it to use a broker of your own."""
    redis: str | None = None
    """Redis URL. Set it to use a server of your own."""
    lake: str | None = None
    """Folder or URI of the Delta tables; default `<state>/lake`."""
    artifacts: str | None = None
    """Folder or URI of versions where the resource names no artifactRoot; default `<state>/artifacts`."""
    mlflow: str | None = None
    """MLflow tracking URI; default SQLite in `<state>`."""
    feast_registry: str | None = None
    """Feast's SQL registry; default SQLite in `<state>`."""
    feast_repo: Path | None = None
    """Folder of your own feature_store.yaml, where a resource's `features.service` is found."""
    kfp: str | None = None
    """URL of the API of Kubeflow Pipelines, where runs are started then; without it they run on this machine."""
    endpoint: str | None = None
    """Base URL of predict requests."""
    gateway: str | None = None
    """Gateway (Gateway API) of predict requests on a cluster, `<namespace>/<name>`; the driver `gateway` needs it."""
    gateway_host: str | None = None
    """Host name that it answers predict requests for; none: every one."""
    bucket_header: str | None = None
    """Request header with the bucket (0 to 99) of a user's key, where what stands before the gateway writes one:
    cohorts can then be sticky on a cluster."""
    prometheus: str | None = None
    """URL of a Prometheus that scrapes the versions' servers on a cluster. Without it `rollout.guards` see nothing."""
    envoy_admin: str | None = None
    """Base URL of Envoy's admin interface (one machine)."""
    envoy_port: int = 0
    """Port of predict requests on one machine; 0: a free one is chosen."""
    feedback: str | None = None
    """Base URL of the service that takes in labels."""
    feedback_host: str = "127.0.0.1"
    """Interface that it listens on. It has no accounts: one beyond this machine belongs behind a proxy that has."""
    feedback_port: int = Field(default=0, ge=0, le=65535)
    """Its port; 0: a free one is chosen."""
    serve_host: str = "127.0.0.1"
    """Interface on which versions answer; in a pod, 0.0.0.0. They have no accounts either."""
    lake_retention_days: int | None = Field(default=None, ge=1)
    """Age at which the lake's events, quarantined records and pictures are deleted, a day at a time; none: never.
    Predictions, labels and outcomes stay."""
    lake_vacuum_hours: int = Field(default=24, ge=1)
    """How long the lake can show an older version of a table; files that only older ones need are removed."""
    versions_retention_days: int | None = Field(default=None, ge=1)
    """Age at which control deletes versions that do not serve, snapshots that no version needs, and folders of runs;
    none: never."""
    versions_keep: int = Field(default=10, ge=1)
    """So many of a model's newest versions stay whatever their age."""
    events_partitions: int = Field(default=1, ge=1, le=1000)
    """Partitions of a model's events topic where it is made here: so many `tidemill ingest` can share the work."""
    ingest_linger_ms: int = Field(default=150, ge=1, le=60_000)
    """How long a batch of events gathers before it is committed."""
    ingest_batch_records: int = Field(default=20_000, ge=1, le=1_000_000)
    """Most events of a batch."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | Literal["off"] = 0
    """Port on the loopback interface at which each role tells its metrics; 0: a free one is chosen (`tidemill status`
    shows it); `off`: none. Roles that share a machine need 0."""
    dashboard_host: str = "127.0.0.1"
    """Interface that the dashboard listens on. Beyond this machine it needs `dashboard_identity_header`."""
    dashboard_port: int = Field(default=8642, ge=0, le=65535)
    """Its port; 0: a free one is chosen."""
    dashboard_identity_header: str | None = None
    """Header in which a reverse proxy says who is there, such as `X-Forwarded-User`. Without it, whoever reaches the
    dashboard on this machine may do all."""
    dashboard_proxies: str = "127.0.0.1,::1"
    """Addresses and networks, with commas between, from which that header is believed; others are refused."""
    dashboard_roles: str = ""
    """Who may do what: `name=role`, with commas between; a role is `viewer`, `labeller` or `approver`, and `*` stands
    for everyone else that the proxy lets in. Who is not named is a viewer."""
    kfp_ui: str | None = None
    """URL of the page of Kubeflow Pipelines as a browser reaches it, to which the dashboard links; default `kfp`."""
    mlflow_ui: str | None = None
    """URL of MLflow's page as a browser reaches it, to which the dashboard links; default `mlflow`."""
    dashboard_undo_seconds: float = Field(default=6.0, ge=0, le=3600)
    """How long labels that are said there wait before they are sent: until then they are taken back without trace."""
    metrics_host: str = "127.0.0.1"
    """Interface of that port; in a pod, 0.0.0.0."""
    image: str = "tidemill-{role}:latest"
    """Image of the workers on a cluster; `{role}` stands for feast, ingest, outcomes, watch or alerts."""
    context: str | None = None
    """Context of the kubeconfig whose cluster has the models; `current`: the current one. None: this machine has."""
    namespace: str | None = None
    """Namespace of a cluster whose models are meant; none: all."""
    strimzi_cluster: str | None = None
    """Strimzi's Kafka whose KafkaTopics a cluster's topics are; without it they are made through the brokers."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is logged."""
    log_format: Literal["text", "json"] = "text"
    """Logs for people or for programs."""

    def image_of(self, role: str) -> str:
        """The image of a role on a cluster."""
        return self.image.replace("{role}", role)

    @property
    def lake_uri(self) -> str:
        """Where the Delta tables are."""
        return self.lake or str(self.state / "lake")

    @property
    def artifacts_uri(self) -> str:
        """Where versions are."""
        return self.artifacts or str(self.state / "artifacts")

    @property
    def mlflow_uri(self) -> str:
        """MLflow's tracking URI."""
        return self.mlflow or f"sqlite:///{self.state / 'mlflow.db'}"

    @property
    def feast_registry_uri(self) -> str:
        """Feast's registry."""
        return self.feast_registry or f"sqlite:///{self.state / 'feast.db'}"

    def require_kafka(self) -> str:
        """The bootstrap servers; raises `Unavailable` where none are known."""
        return self._required("kafka", self.kafka)

    def require_redis(self) -> str:
        """The Redis URL; raises `Unavailable` where none is known."""
        return self._required("redis", self.redis)

    def _required(self, name: str, value: str | None) -> str:
        if value is None:
            raise Unavailable(
                f"no {name} is known: no stack runs under {self.state}",
                hint=f"start one with `tidemill up`, or set {PREFIX}{name.upper()}",
            )
        return value


def load_settings(
    environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> tuple[Settings, dict[str, str]]:
    """The settings, and for each the place it came from. Raises `InvalidInput` naming that place."""
    environ = os.environ if environ is None else environ
    folder = Path.cwd() if folder is None else folder
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")

    def take(found: Mapping[str, Any], origin: str, relative_to: Path) -> None:
        for name, value in found.items():
            values[name] = relative_to / str(value) if name in _FOLDERS else value
            origins[name] = origin

    path = next((p / FILE for p in (folder, *folder.parents) if (p / FILE).is_file()), None)
    from_file = _read_file(path) if path else {}
    from_env = {
        name: environ[PREFIX + name.upper()] for name in Settings.model_fields if PREFIX + name.upper() in environ
    }
    state = folder / from_env["state"] if "state" in from_env else None
    if state is None:
        state = path.parent / str(from_file["state"]) if path and "state" in from_file else folder / ".tidemill"
    values["state"] = state.resolve()
    stack = values["state"] / "stack.json"
    if stack.is_file():
        take(_read_stack(stack), str(stack), folder)
    if path:
        take(from_file, str(path), path.parent)
    take(from_env, "environment", folder)
    values["state"] = Path(values["state"]).resolve()
    try:
        return Settings.model_validate(values), origins
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        origin = origins.get(name, str(path))
        raise InvalidInput(f"setting {name} from {origin}: {first['msg']}", hint="see `tidemill config`") from error


def environment(settings: Settings) -> dict[str, str]:
    """The settings as the environment of a child process, which then finds them wherever it runs."""
    return {PREFIX + name.upper(): str(value) for name, value in settings if value is not None}


def masked(value: object) -> str:
    """The value as text, with the passwords of URLs hidden: before the host, and in a query."""
    text = re.sub(r"(://[^:/@\s]*:)\S+@", r"\1***@", str(value))
    return re.sub(r"(?i)([?&](?:password|passwd|token|secret)=)[^&\s]+", r"\1***", text)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not valid TOML: {error}") from error


def _read_stack(path: Path) -> dict[str, Any]:
    known = set(Settings.model_fields) - {"state"}
    try:
        stack = json.loads(path.read_text())
        lock = path.with_name("up.lock")
        if lock.exists() and not is_locked(lock):  # left over from a stack that was killed
            return {}
        return {name: value for name, value in stack["settings"].items() if name in known}
    except FileNotFoundError:  # it was stopped just now
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", hint="run `tidemill down`, then `tidemill up`") from error
