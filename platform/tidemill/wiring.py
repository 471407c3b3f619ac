"""The composition root: the one place that chooses implementations.

`local(settings)` is everything one machine needs, or a command that speaks to a cluster where the settings name one;
`cluster(settings)` is what the operator needs. Each thing is built when it is first asked for, and its module
is imported then, so that a role loads only its own vendors. Roles, commands and pipeline steps get here what they
need, and hand it on as arguments; nothing below imports this module.
"""

from __future__ import annotations

import sys
import threading
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.core.clock import Clock, SystemClock
from tidemill.core.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tidemill.alerts.notifier import Notifier
    from tidemill.cluster import Cluster as Api
    from tidemill.cluster.kubernetes_api import KubernetesCluster
    from tidemill.control.protocols import PipelineRunner, ResourceStore, StoredModel
    from tidemill.control.store import LocalResourceStore
    from tidemill.control.tick import Loop, Parts
    from tidemill.events.records import Decision, Request
    from tidemill.events.shared import SharedKafka
    from tidemill.registry import Registry
    from tidemill.rollout.driver import TrafficDriver
    from tidemill.rollout.prometheus import RevisionMetrics
    from tidemill.spec.model import ContinualModel
    from tidemill.stack.doctor import Check
    from tidemill.stack.supervisor import ProcessSupervisor

__all__ = ["Cluster", "Local", "cluster", "local"]


def local(settings: Settings | None = None, *, clock: Clock | None = None) -> Local:
    """What the settings name (default: those of the environment, the file and the running stack).

    One machine; or with the setting `context`, the models of that cluster.
    """
    settings = settings or load_settings()[0]
    kind = Local if settings.context is None else Cluster
    return kind(settings=settings, clock=clock or SystemClock())


def cluster(settings: Settings | None = None, *, clock: Clock | None = None) -> Cluster:
    """The cluster that this process runs in, or that the settings name."""
    return Cluster(settings=settings or load_settings()[0], clock=clock or SystemClock())


@dataclass(frozen=True)
class Local:
    """The parts of one machine."""

    settings: Settings
    clock: Clock = field(default_factory=SystemClock)

    @cached_property
    def store(self) -> ResourceStore:
        """Where resources and their status live."""
        return self._files

    @cached_property
    def _files(self) -> LocalResourceStore:
        from tidemill.control.store import LocalResourceStore

        return LocalResourceStore(self.settings.state / "resources")

    @cached_property
    def supervisor(self) -> ProcessSupervisor:
        """Who holds the processes."""
        from tidemill.stack.wanted import FileSupervisor

        return FileSupervisor(self.settings.state / "processes")

    @cached_property
    def registry(self) -> Registry:
        """Versions and their aliases."""
        from tidemill.registry.mlflow import MlflowRegistry

        return MlflowRegistry(self.settings.mlflow_uri)

    @cached_property
    def notifier(self) -> Notifier:
        """Who carries messages to people."""
        from tidemill.alerts.apprise_process import AppriseNotifier

        return AppriseNotifier(self.clock)

    def runner(self, stored: StoredModel) -> PipelineRunner:
        """Who runs the pipeline of a model."""
        if self.settings.kfp is not None:
            from tidemill.control.kfp_runner import KfpRunner
            from tidemill.control.runs import COMPILED

            return KfpRunner(self.settings.kfp, model=stored.resource.id, compiled=COMPILED)
        from tidemill.control.local_runner import LocalRunner

        return LocalRunner(self.supervisor, state=self.settings.state, model=stored.resource.id, code=stored.code)

    def driver(self, stored: StoredModel) -> TrafficDriver:
        """Who moves the traffic of a model: here Envoy, whatever driver the resource names for a cluster."""
        from tidemill.core.telemetry import get_logger
        from tidemill.rollout.auto import choose
        from tidemill.rollout.local import LocalTrafficDriver

        if (asked := stored.resource.spec.serving.driver) not in {"auto", "local"}:
            get_logger(__name__).info(choose(asked, None).reason, model=stored.resource.id)
        return LocalTrafficDriver(
            self.supervisor,
            self.settings,
            resource=stored.resource,
            file=self.resource_file(stored.resource.id),
            code=stored.code,
            clock=self.clock,
        )

    def resource_file(self, model: str) -> Path:
        """The file of a model's resource, which its processes are started with."""
        return self._files.path(model)

    def ask(self, resource: ContinualModel, request: Request, *, deadline_s: float = 30.0) -> Decision:
        """Ask control, and wait for its decision; raises `DeadlineExceeded` where it does not answer."""
        from tidemill.control.ask import ask
        from tidemill.control.provision import topics_of

        kafka = self.settings.require_kafka()
        return ask(kafka, topics_of(resource), request, clock=self.clock, deadline_s=deadline_s)

    def ingest(self, resource: ContinualModel, stop: threading.Event) -> None:
        """Run the ingest worker until `stop`."""
        from tidemill.events.upkeep import Policy
        from tidemill.ingest.worker import run

        days = self.settings.lake_retention_days
        run(
            resource,
            kafka=self.settings.require_kafka(),
            redis=self.settings.require_redis(),
            lake=self.settings.lake_uri,
            clock=self.clock,
            stop=stop,
            linger_s=self.settings.ingest_linger_ms / 1000,
            batch_records=self.settings.ingest_batch_records,
            policy=Policy(
                keep=None if days is None else timedelta(days=days),
                vacuum=timedelta(hours=self.settings.lake_vacuum_hours),
            ),
        )

    def outcomes(self, resource: ContinualModel, stop: threading.Event) -> None:
        """Run the outcomes worker until `stop`."""
        from tidemill.events.upkeep import Policy
        from tidemill.outcomes.worker import run

        run(
            resource,
            kafka=self.settings.require_kafka(),
            redis=self.settings.require_redis(),
            lake=self.settings.lake_uri,
            clock=self.clock,
            stop=stop,
            # What was predicted and came true is small, and what reports and training refer to: it stays.
            policy=Policy(vacuum=timedelta(hours=self.settings.lake_vacuum_hours)),
        )

    def watch(self, resource: ContinualModel, stop: threading.Event) -> None:
        """Run the watch until `stop`."""
        from tidemill.watch.worker import run

        run(
            resource,
            kafka=self.settings.require_kafka(),
            lake=self.settings.lake_uri,
            clock=self.clock,
            stop=stop,
        )

    def alerts(self, resource: ContinualModel, stop: threading.Event) -> None:
        """Tell people of a model until `stop`."""
        from tidemill.alerts.worker import run

        run(
            resource,
            kafka=self.settings.require_kafka(),
            notifier=self.notifier,
            clock=self.clock,
            stop=stop,
        )

    def feedback(self, port: int) -> None:
        """Take in labels over HTTP until told to end."""
        from tidemill.control.known import known_resource
        from tidemill.core.errors import InvalidInput, NotFound
        from tidemill.labels.feedback import run

        def find(name: str) -> ContinualModel:
            try:
                return known_resource(self.store.get(name if "." in name else f"default.{name}"))
            except (NotFound, InvalidInput) as error:
                raise NotFound(f"there is no model {name[:200]!r}") from error

        run(
            find,
            host=self.settings.feedback_host,
            port=port,
            kafka=self.settings.require_kafka(),
            clock=self.clock,
        )

    def serve(self, resource: ContinualModel, *, version: str, artifact: str, port: int) -> None:
        """Run a model server until it is told to end."""
        from tidemill.serving.server import run

        run(
            resource,
            version=version,
            artifact=artifact,
            port=port,
            kafka=self.settings.require_kafka(),
            redis=self.settings.require_redis(),
            clock=self.clock,
            feast_repo=self.settings.feast_repo,
            counts=self.settings.state / "serving" / resource.id,
            host=self.settings.serve_host,
        )

    def loop(self, stored: StoredModel) -> Loop:
        """The loop of a model."""
        from tidemill.control.tick import Loop

        parts = self._parts(stored, self.driver(stored), self.store)
        return Loop(stored.resource.id, self.store, parts, self.clock)

    def _parts(self, stored: StoredModel, driver: TrafficDriver, store: ResourceStore) -> Parts:
        from tidemill.control.labelled import LabelledCount, NewClassCount
        from tidemill.control.log import KafkaLog
        from tidemill.control.provision import topics_of
        from tidemill.control.tick import Parts

        model = stored.resource.id
        log = KafkaLog(self._kafka, topics_of(stored.resource))

        def resource() -> ContinualModel:
            return store.get(model).resource

        def close() -> None:
            log.close()
            driver.close()

        return Parts(
            log=log,
            clearing=self.clearing(stored.resource),
            runner=self.runner(stored),
            driver=driver,
            registry=self.registry,
            labelled=LabelledCount(self.settings.lake_uri, resource, self.clock),
            new_classes=NewClassCount(self.settings.lake_uri, resource, self.clock),
            close=close,
        )

    def clearing(self, resource: ContinualModel) -> Callable[..., None]:
        """Who clears away, by the loop's status, what runs have left and nothing needs; nobody where all is kept."""
        days = self.settings.versions_retention_days
        if days is None:
            return lambda status: None
        from tidemill.control.clearing import Clearing, places_of
        from tidemill.control.retention import Rule

        rule = Rule(timedelta(days=days), self.settings.versions_keep)
        return Clearing(lambda: places_of(resource, self.settings), self.registry, rule, self.clock)

    def control(self, stop: threading.Event) -> None:
        """Run the loops of all models until `stop`."""
        from tidemill.control.provision import Provisioner
        from tidemill.control.service import Service

        provisioner = Provisioner(
            self.supervisor,
            ensure_topics=self._ensure_topics,
            file=self.resource_file,
            feast=(sys.executable, "-m", "tidemill.features.apply"),
            partitions=self.settings.events_partitions,
        )
        service = Service(self.store, ids=self._files.ids, provisioner=provisioner, loop=self.loop, clock=self.clock)
        with closing(self._kafka):
            service.run(stop)

    @cached_property
    def _kafka(self) -> SharedKafka:
        """What the loops of this process read and write through."""
        from tidemill.events.shared import SharedKafka

        return SharedKafka(self.settings.require_kafka(), clock=self.clock)

    def _ensure_topics(self, topics: Mapping[str, int], retention_ms: int | None) -> None:
        self._kafka.ask(lambda cluster: cluster.ensure(topics, retention_ms=retention_ms))


@dataclass(frozen=True)
class Cluster(Local):
    """The parts of a cluster: what differs from one machine. Commands get the same methods, over its API server."""

    @cached_property
    def api(self) -> KubernetesCluster:
        """The API server; raises `Unavailable` where none is known."""
        from tidemill.cluster.kubernetes_api import connect

        context = self.settings.context
        return connect(context=None if context == "current" else context)

    @cached_property
    def store(self) -> ResourceStore:
        """The ContinualModels, as a person reads and writes them: by a field manager of its own."""
        from tidemill.control.cluster_store import ClusterResourceStore

        people = self.api.as_manager("tidemill-cli")
        return ClusterResourceStore(people, self.clock, namespace=self.settings.namespace)

    def runner(self, stored: StoredModel) -> PipelineRunner:
        """Kubeflow Pipelines; raises `Unavailable` where none is known."""
        from tidemill.core.errors import Unavailable

        if self.settings.kfp is None:
            raise Unavailable("no Kubeflow Pipelines is known, which runs are started in", hint="set TIDEMILL_KFP")
        return super().runner(stored)

    def driver(self, stored: StoredModel) -> TrafficDriver:
        """Who moves the traffic of a model, by `spec.serving.driver` and what is installed."""
        return self._driver(stored, self.api)

    def ask(self, resource: ContinualModel, request: Request, *, deadline_s: float = 30.0) -> Decision:
        """Ask the operator by annotation, and wait for its decision in the status."""
        from tidemill.control.cluster_ask import ask

        people = self.api.as_manager(f"tidemill-{request.kind}")
        return ask(people, resource, request, clock=self.clock, deadline_s=deadline_s)

    def operator(self, stop: threading.Event) -> None:
        """Run the loops of all models of the cluster, or of one namespace, until `stop`."""
        from tidemill.control.operator import Operator
        from tidemill.control.provision import topics_of
        from tidemill.control.tick import Loop

        def send(resource: ContinualModel, request: Request) -> None:
            self._kafka.write(topics_of(resource).requests, [(request.request_id, request)])

        def loop(stored: StoredModel, store: ResourceStore, api: Api) -> Loop:
            parts = self._parts(stored, self._driver(stored, api), store)
            return Loop(stored.resource.id, store, parts, self.clock, quiet=True)

        operator = Operator(
            self.api,
            self.settings,
            self.clock,
            send=send,
            ensure_topics=self._ensure_topics,
            loop=loop,
            login=self.api.access,
            namespace=self.settings.namespace,
        )
        with closing(self._kafka):
            operator.run(stop)

    def examine(self) -> list[Check]:
        """What the cluster has of what the operator joins there."""
        from tidemill.control.cluster_doctor import examine

        return examine(self.api, self.settings, namespace=self.settings.namespace)

    def _driver(self, stored: StoredModel, api: Api) -> TrafficDriver:
        from tidemill.control.cluster_provision import owner_of
        from tidemill.rollout.auto import choose, installed
        from tidemill.rollout.gateway import GatewayTrafficDriver
        from tidemill.rollout.http_route import Gateway
        from tidemill.rollout.knative import KnativeTrafficDriver, driver_of

        resource, settings = stored.resource, self.settings
        choice = choose(driver_of(resource, api), installed(api, settings.gateway))
        owner = owner_of(resource, api)
        if choice.driver == "knative" or settings.gateway is None:
            return KnativeTrafficDriver(
                api, resource=resource, endpoint=settings.endpoint, metrics=self._metrics, owner=owner
            )
        hosts = () if settings.gateway_host is None else (settings.gateway_host,)
        return GatewayTrafficDriver(
            api,
            resource=resource,
            gateway=Gateway.parse(settings.gateway, hosts),
            clock=self.clock,
            endpoint=settings.endpoint,
            metrics=self._metrics,
            owner=owner,
            bucket_header=settings.bucket_header,
        )

    @cached_property
    def _metrics(self) -> RevisionMetrics | None:
        """Who counts requests; shared by all models, so that a silent one costs one wait."""
        from tidemill.rollout.prometheus import RevisionMetrics

        url = self.settings.prometheus
        return None if url is None else RevisionMetrics(url, clock=self.clock)
