"""The composition root: the one place that chooses implementations.

`local(settings)` is everything one machine needs. Each thing is built when it is first asked for, and its module
is imported then, so that a role loads only its own vendors. Roles, commands and pipeline steps get here what they
need, and hand it on as arguments; nothing below imports this module.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.core.clock import Clock, SystemClock
from tidemill.core.settings import Settings, load_settings

if TYPE_CHECKING:
    from tidemill.alerts.notifier import Notifier
    from tidemill.control.protocols import PipelineRunner, StoredModel
    from tidemill.control.store import LocalResourceStore
    from tidemill.control.tick import Loop
    from tidemill.events.records import Decision, Request
    from tidemill.registry import Registry
    from tidemill.rollout.local import LocalTrafficDriver
    from tidemill.spec.model import ContinualModel
    from tidemill.stack.supervisor import ProcessSupervisor

__all__ = ["Local", "local"]


def local(settings: Settings | None = None, *, clock: Clock | None = None) -> Local:
    """One machine, by its settings (default: those of the environment, the file and the running stack)."""
    return Local(settings=settings or load_settings()[0], clock=clock or SystemClock())


@dataclass(frozen=True)
class Local:
    """The parts of one machine."""

    settings: Settings
    clock: Clock = field(default_factory=SystemClock)

    @cached_property
    def store(self) -> LocalResourceStore:
        """Where resources and their status live."""
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

    def driver(self, stored: StoredModel) -> LocalTrafficDriver:
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
        return self.store.path(model)

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
        )

    def loop(self, stored: StoredModel) -> Loop:
        """The loop of a model."""
        from tidemill.control.labelled import LabelledCount, NewClassCount
        from tidemill.control.log import KafkaLog
        from tidemill.control.provision import topics_of
        from tidemill.control.tick import Loop, Parts

        model = stored.resource.id
        log, driver = KafkaLog(self.settings.require_kafka(), topics_of(stored.resource)), self.driver(stored)

        def close() -> None:
            log.close()
            driver.close()

        parts = Parts(
            log=log,
            runner=self.runner(stored),
            driver=driver,
            registry=self.registry,
            labelled=LabelledCount(self.settings.lake_uri, model, self.clock),
            new_classes=NewClassCount(self.settings.lake_uri, lambda: self.store.get(model).resource, self.clock),
            close=close,
        )
        return Loop(model, self.store, parts, self.clock)

    def control(self, stop: threading.Event) -> None:
        """Run the loops of all models until `stop`."""
        from tidemill.control.provision import Provisioner
        from tidemill.control.service import Service
        from tidemill.events.cluster import ensure_topics

        kafka = self.settings.require_kafka()
        provisioner = Provisioner(
            self.supervisor,
            ensure_topics=lambda topics, retention_ms: ensure_topics(kafka, topics, retention_ms=retention_ms),
            file=self.resource_file,
            feast=(sys.executable, "-m", "tidemill.features.apply"),
            partitions=self.settings.events_partitions,
        )
        service = Service(self.store, ids=self.store.ids, provisioner=provisioner, loop=self.loop, clock=self.clock)
        service.run(stop)
