"""The operator on a bench: any API server, in memory or real; logs and runs in memory, a clock turned by hand."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tidemill.cluster import Cluster, Manifest
from tidemill.control.cluster_kinds import MODEL
from tidemill.control.cluster_store import ClusterResourceStore
from tidemill.control.operator import Operator
from tidemill.control.protocols import StoredModel
from tidemill.control.state import LoopStatus, decode_status
from tidemill.control.tick import Loop, Parts
from tidemill.core.clock import SystemClock
from tidemill.core.errors import Unavailable
from tidemill.core.settings import Settings
from tidemill.events.records import Decision, Request
from tidemill.rollout.driver import TrafficDriver
from tidemill.spec.model import ContinualModel
from tidemill.testing.clock import ManualClock
from tidemill.testing.log import MemoryLog
from tidemill.testing.loop import Crash, LoopBench
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.runner import ScriptedRunner
from tidemill.testing.traffic import MemoryTrafficDriver
from tidemill.testing.waiting import eventually

__all__ = ["OperatorBench", "OperatorLoopBench"]


class OperatorBench:
    """The service of an operator that a test turns round by round.

    Args:
        cluster: the API server.
        settings: the operator's.
        driver: makes the traffic driver of a model; default: one in memory, whose versions are ready at once.
        memory: what an operator that starts reads the API server through; default: the API server itself.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings | None = None,
        *,
        memory: Callable[[Cluster], Cluster] = lambda cluster: cluster,
        driver: Callable[[StoredModel, Cluster], TrafficDriver] | None = None,
        clock: Any = None,
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
        self.labelled = 0
        self._driver = driver or (lambda stored, cluster: self._in_memory.setdefault(stored.resource.id, _ready()))
        self._in_memory: dict[str, MemoryTrafficDriver] = {}
        self._memory = memory
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
        self.service = self.operator.service(self._memory(self.cluster))

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
        driver = self._driver(stored, cluster)
        self.drivers[model] = driver
        parts = Parts(
            log=self._log(model),
            runner=self.runners.setdefault(model, ScriptedRunner()),
            driver=driver,
            registry=self.registry,
            labelled=lambda since: self.labelled,
        )
        return Loop(model, store, parts, self.clock, quiet=True)


def _ready() -> MemoryTrafficDriver:
    return MemoryTrafficDriver(ready_at_once=True)


class OperatorLoopBench(LoopBench):
    """One model's loop as the operator of an API server runs it: the same stories as on one machine are told of it.

    Args:
        people: the API server, as an administrator sees it; the status is read from it.
        operator: the API server, as the operator sees it.
        resource: the model.
        driver: makes its traffic driver.
        play: lets those who are not there have a turn: KServe, a gateway.
        memory: as of `OperatorBench`.
        deadline_s: seconds in which whatever is waited for must come, where real controllers take part; None: all is in
            memory, and time is what the ticks make it.
    """

    def __init__(
        self,
        people: Cluster,
        operator: Cluster,
        resource: ContinualModel,
        *,
        driver: Callable[[StoredModel, Cluster], TrafficDriver],
        play: Callable[[], None],
        memory: Callable[[Cluster], Cluster] = lambda cluster: cluster,
        deadline_s: float | None = None,
    ) -> None:
        self._play, self._deadline_s = play, deadline_s
        self._aged: dict[str, int] = {}
        self.bench = OperatorBench(operator, driver=driver, memory=memory, namespace=resource.metadata.namespace)
        super().__init__(resource)
        self.clock = self.bench.clock
        self.registry = self.bench.registry
        self.bench.logs[resource.id] = self.log
        self.bench.runners[resource.id] = self.runner
        self.store = ClusterResourceStore(people, self.clock)  # type: ignore[assignment]
        self.store.put(resource)

    def restart(self) -> None:
        """Start the operator anew: all that it held in memory is gone."""
        self.bench.restart()

    def tick(self, times: int = 1, *, every_s: float = 0.25) -> LoopStatus:
        """So many rounds of the operator, and of those who play a part."""
        for _ in range(times):
            self.turn(every_s)
        found = self.store.get(self.resource.id).status
        return LoopStatus(created_at=0) if found is None else decode_status(found)

    def turn(self, passed_s: float = 0.25) -> None:
        """One round, after so much time; an operator that dies in it is started again, and goes round again."""
        self.clock.advance(passed_s)
        self.bench.labelled = self.labelled
        self.bench.service.wake(self.resource.id)
        try:
            self.bench.service.round()
        except Crash:
            self.restart()
            self.bench.service.round()
        with suppress(Unavailable):  # a busy API server; they try again, as the operator does
            self._play()
        if self.resource.id in self.bench.drivers:
            self.driver = self.bench.drivers[self.resource.id]  # type: ignore[assignment]

    def ask(self, kind: str, *, request_id: str | None = None, by: str = "ada", **arguments: Any) -> Decision:
        """Write a request, wait for its answer (a turn may fail, and be tried again), and return it."""
        name = self.write(kind, request_id=request_id, by=by, **arguments)
        self.until(lambda status: any(one.answers == name for one in self.log.decisions()))
        return self.answer(name)

    def propose(self, grant: Decision, **arguments: Any) -> Decision:
        """The run's last step; its version is where KServe can fetch it."""
        return super().propose(grant, **{"artifact": f"s3://models/{grant.subject}"} | arguments)

    def judge(self, errors: dict[str, float], *, per_second: int = 20, seconds: int = 1) -> None:
        """As on one machine; but a real server that is away for a moment is waited for.

        Else that moment would last for ten times as long by the clock of the bench, which is no fault of the server.
        """
        if self._deadline_s is not None and not self._all_ready():
            self.until(lambda status: self._all_ready())
        self._let_shares_age()
        super().judge(errors, per_second=per_second, seconds=seconds)

    def until(self, condition: Callable[[LoopStatus], bool], *, ticks: int = 400) -> LoopStatus:
        """Rounds until the status is as wished.

        Where real controllers take part it is as long as the deadline, and time passes as it does for them.
        """
        if self._deadline_s is None:
            return super().until(condition, ticks=ticks)
        real = SystemClock()
        last = real.monotonic()

        def reached() -> LoopStatus | None:
            nonlocal last
            passed, last = real.monotonic() - last, real.monotonic()
            with suppress(Unavailable):
                status = self.tick(every_s=passed)
                return status if condition(status) else None
            return None

        try:
            return eventually(reached, self._deadline_s, every_s=0.05)  # type: ignore[return-value]
        except AssertionError as error:
            raise AssertionError(f"{error}; the status: {self.store.get(self.resource.id).status!r}") from error

    def _let_shares_age(self) -> None:
        """What is judged now was predicted a while ago: the shares of now must have been those of then.

        Else a step has outcomes of another step's share, and a rollout is held for ever: its sample ratio is wrong.
        """
        age_s = self.resource.spec.labels.maturity.after.total_seconds()
        while (shares := {one.version: one.share for one in self.driver.observe().revisions}) != self._aged:
            self._aged = shares
            self.tick(1 + round(4 * age_s))

    def _all_ready(self) -> bool:
        return all(one.ready for one in self.driver.observe().revisions if one.share)
