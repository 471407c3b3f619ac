"""The operator on a bench: any API server, in memory or real; logs and runs in memory, a clock turned by hand."""

from collections.abc import Callable
from typing import Any

from tidemill.cluster import Cluster, Manifest
from tidemill.control.cluster_kinds import MODEL
from tidemill.control.cluster_store import ClusterResourceStore
from tidemill.control.operator import Operator
from tidemill.control.protocols import StoredModel
from tidemill.control.tick import Loop, Parts
from tidemill.core.settings import Settings
from tidemill.events.records import Request
from tidemill.rollout.driver import TrafficDriver
from tidemill.spec.model import ContinualModel
from tidemill.testing.clock import ManualClock
from tidemill.testing.log import MemoryLog
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.runner import ScriptedRunner
from tidemill.testing.traffic import MemoryTrafficDriver

__all__ = ["OperatorBench"]


class OperatorBench:
    """The service of an operator that a test turns round by round.

    Args:
        cluster: the API server.
        settings: the operator's.
        driver: makes the traffic driver of a model; default: one in memory, whose versions are ready at once.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings | None = None,
        *,
        driver: Callable[[StoredModel], TrafficDriver] | None = None,
        clock: ManualClock | None = None,
        namespace: str | None = None,
        login: Callable[[], Any] = lambda: None,
    ) -> None:
        self.cluster = cluster
        self.settings = settings or Settings(kafka="kafka.example:9092", redis="redis://redis.example:6379/0")
        self.clock = clock or ManualClock()
        self.topics: dict[str, int] = {}
        self.logs: dict[str, MemoryLog] = {}
        self.runners: dict[str, ScriptedRunner] = {}
        self.drivers: dict[str, TrafficDriver] = {}
        self.registry = MemoryRegistry(self.clock)
        self._driver = driver or (lambda stored: MemoryTrafficDriver(ready_at_once=True))
        self.operator = Operator(
            cluster,
            self.settings,
            self.clock,
            send=self._send,
            ensure_topics=lambda topics, retention_ms: self.topics.update(topics),
            loop=self._loop,
            login=login,
            namespace=namespace,
        )
        self.restart()

    def restart(self) -> None:
        """The operator dies and is started again: what it remembered is lost."""
        self.service = self.operator.service(self.cluster)

    def apply(self, resource: ContinualModel, **metadata: Any) -> Manifest:
        """Declare a model, as a person with kubectl would."""
        said = resource.model_dump(mode="json", by_alias=True, exclude_unset=True)
        said["metadata"] |= {"namespace": resource.metadata.namespace, **metadata}
        return self.cluster.apply(said, MODEL)

    def rounds(self, count: int = 1) -> None:
        """Let time pass, and let every model have a turn as if a watch had shown something, so many times."""
        for _ in range(count):
            self.clock.advance(6.0)
            for one in self.cluster.list(MODEL):
                self.service.wake(f"{one['metadata']['namespace']}.{one['metadata']['name']}")
            self.service.round()

    def model(self, resource: ContinualModel) -> Manifest:
        """The object of a model as it is now."""
        found = self.cluster.get(MODEL, resource.metadata.namespace, resource.metadata.name)
        if found is None:
            raise AssertionError(f"there is no {resource.id}")
        return found

    def condition(self, resource: ContinualModel, kind: str) -> dict[str, Any]:
        """One condition of a model's status."""
        return next(one for one in self.model(resource)["status"]["conditions"] if one["type"] == kind)

    def _send(self, resource: ContinualModel, request: Request) -> None:
        self._log(resource.id).asked.append(request)

    def _log(self, model: str) -> MemoryLog:
        return self.logs.setdefault(model, MemoryLog())

    def _loop(self, stored: StoredModel, store: ClusterResourceStore, cluster: Cluster) -> Loop:
        model = stored.resource.id
        driver = self.drivers.get(model) or self._driver(stored)
        self.drivers[model] = driver
        parts = Parts(
            log=self._log(model),
            runner=self.runners.setdefault(model, ScriptedRunner()),
            driver=driver,
            registry=self.registry,
            labelled=lambda since: 0,
        )
        return Loop(model, store, parts, self.clock, quiet=True)
