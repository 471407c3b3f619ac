"""The loop on a bench: surroundings in memory, a clock that is turned by hand, and crashes where a test wants them."""

from collections.abc import Callable, Iterable
from typing import Any

from tidemill.control.protocols import RunSeen
from tidemill.control.state import LoopStatus, decode_status
from tidemill.control.tick import Loop, Parts
from tidemill.core.clock import to_ms
from tidemill.events.records import Decision, LabelAgreement, Outcome, Prediction, Request, Signal
from tidemill.spec.model import ContinualModel
from tidemill.testing.clock import ManualClock
from tidemill.testing.log import MemoryLog
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.runner import ScriptedRunner
from tidemill.testing.store import MemoryResourceStore
from tidemill.testing.traffic import MemoryTrafficDriver

__all__ = ["Crash", "Crashing", "LoopBench", "example_resource"]


def example_resource(name: str = "phone-inspection", **spec: Any) -> ContinualModel:
    """A small valid ContinualModel; `spec` replaces whole parts of its spec, written as in YAML (`triggers={…}`)."""
    content: dict[str, Any] = {
        "events": {
            "entity": {"name": "station"},
            "id": "event_id",
            "timestamp": "captured_at",
            "fields": [{"name": "image", "type": "image"}],
        },
        "features": {"image": ["brightness", "contrast"]},
        "prediction": {"type": "detection", "classes": ["ok", "scratch"]},
        "labels": {
            "fields": [{"name": "defect", "type": "class"}, {"name": "box", "type": "box"}],
            "control": 1.0,
            "maturity": {"after": "4s"},
        },
        "model": {"codec": "inspection.model:Codec", "trainer": "inspection.model:Trainer", "initial": "dataset"},
        "triggers": {"drift": {"tolerance": 0.2, "every": "1s"}, "volume": {"newLabels": 1000}, "cooldown": "5m"},
        "rollout": {"analysis": {"margin": 0.1, "minOutcomes": 20, "timeout": "1h"}},
    }
    return ContinualModel.model_validate(
        {
            "apiVersion": "tidemill.dev/v1alpha1",
            "kind": "ContinualModel",
            "metadata": {"name": name},
            "spec": content | spec,
        }
    )


class Crash(BaseException):
    """The process dies here."""


class Crashing:
    """Passes every call on to `inner`; when `fuse` calls have been made through any sharer of it, the process dies.

    `fuse` is a list with one number, so that several parts burn the same one. The call takes place before the
    crash: what was done is done, and whoever did it never hears of it.
    """

    def __init__(self, inner: object, fuse: list[int], names: Iterable[str]) -> None:
        self._inner, self._fuse, self._names = inner, fuse, frozenset(names)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._names:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            result = found(*args, **kwargs)
            self._fuse[0] -= 1
            if self._fuse[0] == 0:
                raise Crash(name)
            return result

        return call


class LoopBench:
    """One model's loop with doubles around it. Tests play the pipeline, the watch and the people.

    `fuse` set to [n] lets the process die after its n-th effect; `restart` starts another one.
    """

    def __init__(self, resource: ContinualModel | None = None, *, ready_at_once: bool = True) -> None:
        self.resource = resource or example_resource()
        self.clock = ManualClock()
        self.store = MemoryResourceStore()
        self.store.put(self.resource)
        self.log = MemoryLog()
        self.runner = ScriptedRunner()
        self.driver = MemoryTrafficDriver(ready_at_once=ready_at_once)
        self.registry = MemoryRegistry(self.clock)
        self.labelled = 0
        self.new_classes: dict[str, int] = {}
        self.clearing: Callable[[LoopStatus], None] = lambda status: None
        self.fuse = [0]
        self._asked = 0
        self.restart()

    def restart(self) -> None:
        """Start the process anew: all that it held in memory is gone."""

        def crashing(inner: object, *names: str) -> Any:
            return Crashing(inner, self.fuse, names)

        self.loop = Loop(
            self.resource.id,
            crashing(self.store, "put_status"),
            Parts(
                log=crashing(self.log, "publish"),
                runner=crashing(self.runner, "start", "stop"),
                driver=crashing(self.driver, "apply"),
                registry=crashing(self.registry, "set_alias"),
                labelled=lambda since: self.labelled,
                new_classes=lambda champion: self.new_classes,
                clearing=lambda status: self.clearing(status),
            ),
            self.clock,
        )

    def tick(self, times: int = 1, *, every_s: float = 0.25) -> LoopStatus:
        """So many ticks; returns the last status. A process that dies in one is started again, and ticks again."""
        for _ in range(times):
            self.clock.advance(every_s)
            try:
                status = self.loop.tick()
            except Crash:
                self.restart()
                status = self.loop.tick()
        return status

    @property
    def status(self) -> LoopStatus:
        """The stored status."""
        stored = self.store.get(self.resource.id).status
        if stored is None:
            raise AssertionError("there is no status")
        return decode_status(stored)

    def declare(self, resource: ContinualModel) -> None:
        """Apply a changed resource."""
        self.resource = resource
        self.store.put(resource)

    def kinds(self) -> list[str]:
        """The kinds of all decisions so far, in order, each decision once."""
        return [one.kind for one in self.log.decisions()]

    def write(self, kind: str, *, request_id: str | None = None, by: str = "ada", **arguments: Any) -> str:
        """Write a request; returns its id."""
        self._asked += 1
        name = request_id or f"request-{self._asked}"
        record = Request(
            request_id=name,
            kind=kind,  # type: ignore[arg-type]
            model=self.resource.id,
            time=to_ms(self.clock.now()),
            by=by,
            arguments=arguments,
        )
        self.log.asked.append(record)
        return name

    def ask(self, kind: str, *, request_id: str | None = None, by: str = "ada", **arguments: Any) -> Decision:
        """Write a request, tick, and return its answer."""
        name = self.write(kind, request_id=request_id, by=by, **arguments)
        self.tick()
        return self.answer(name)

    def answer(self, request_id: str) -> Decision:
        """The decision that answers a request."""
        found = [one for one in self.log.decisions() if one.answers == request_id]
        if len(found) != 1:
            raise AssertionError(f"{len(found)} answers to {request_id}")
        return found[0]

    def claim(self, run: str) -> Decision:
        """The run's first step."""
        self.runner.show(RunSeen(run=run, state="running", step="claim"))
        return self.ask("claim", request_id=f"{run}-claim", by="pipeline", run=run, reason="a test's")

    def propose(self, grant: Decision, **arguments: Any) -> Decision:
        """The run's last step: its version is registered and proposed."""
        run = grant.subject
        artifact = f"/artifacts/{run}"
        self.registry.register(self.resource.id, run, artifact)
        given = {"run": run, "token": grant.figures["token"], "version": run, "artifact": artifact} | arguments
        answer = self.ask("propose", request_id=f"{run}-propose", by="pipeline", **given)
        self.runner.show(RunSeen(run=run, state="succeeded"))
        return answer

    def bootstrap(self) -> str:
        """Until the first version serves; returns it."""
        self.labelled = 1000
        self.until(lambda status: status.run is not None)
        run = self.started()
        self.propose(self.claim(run))
        self.until(lambda status: status.phase == "Serving")
        self.labelled = 0
        return run

    def started(self) -> str:
        """The run in flight."""
        run = self.status.run
        if run is None:
            raise AssertionError("no run was started")
        return run.run

    def signal(self, feature: str = "brightness", *, version: str | None = None, **changes: Any) -> Signal:
        """The watch says that a feature has moved (of the champion, unless told otherwise)."""
        if version is None:
            champion = self.status.champion
            version = champion.version if champion else ""
        now = to_ms(self.clock.now())
        given: dict[str, Any] = {
            "signal_id": f"signal-{len(self.log.signalled)}",
            "kind": "drift",
            "feature": feature,
            "time": now,
            "since": now - 5000,
            "version": version,
            "evidence": 1.5,
            "message": f"{feature} fell from 0.62 to 0.41",
        }
        record = Signal(**given | changes)
        self.log.signalled.append(record)
        return record

    def agree(self, alpha: float | None, *, least: float = 0.8) -> LabelAgreement:
        """Outcomes tells how far labellers agree."""
        now = to_ms(self.clock.now())
        record = LabelAgreement(
            agreement_id=f"{self.resource.id}/agreement/defect/{now}",
            model=self.resource.id,
            since=now - 7 * 86_400_000,
            through=now,
            field="defect",
            alpha=alpha,
            labels=100,
            compared=100,
            min_agreement=least,
            trusted=None if alpha is None else alpha >= least,
            verdict="only one value was said" if alpha is None else f"alpha {alpha:.2f}",
        )
        self.log.judged.append(record)
        return record

    def judge(self, errors: dict[str, float], *, per_second: int = 20, seconds: int = 1) -> None:
        """Requests answered and labelled for so long: each version errs in its share of them, evenly spread.

        They go to the versions by the shares that are seen; each second ends with ticks.
        """
        age = to_ms(self.resource.spec.labels.maturity.after)
        for _ in range(seconds):
            observed = self.driver.observe()
            for seen in observed.revisions:
                count = round(per_second * seen.share / 100)
                for number in range(count):
                    judged = self._judge_one(seen.version, number, count, errors[seen.version], age)
                    if observed.mirror is not None:
                        self._copy(judged, observed.mirror, errors[observed.mirror])
            self.tick(4)

    def _copy(self, judged: Outcome, version: str, error: float) -> None:
        """What another version answered to a copy of that request: it errs in its share of them, too."""
        total = len(self.log.copied)
        truth = (judged.label or {})["defect"]
        wrong = int((total + 1) * error) > int(total * error)
        answer = (
            {"class": "ok" if wrong else "scratch"} if truth == "scratch" else {"class": "scratch" if wrong else "ok"}
        )
        box = {"box": [0, 0, 8, 8]}
        self.log.copied.append(
            Prediction(
                prediction_id=f"{version}-copy-{total}",
                version=version,
                entity=judged.entity,
                time=judged.predicted_at,
                output=answer | box,
                request_id=judged.request_id,
                boot="b",
                seq=total,
            )
        )

    def _judge_one(self, version: str, number: int, count: int, error: float, age: int) -> Outcome:
        total = sum(1 for one in self.log.judged if isinstance(one, Outcome) and one.version == version)
        wrong = int((total + 1) * error) > int(total * error)
        made = to_ms(self.clock.now()) - age + round(1000 * number / count)
        name = f"{version}-{total}"
        outcome = Outcome(
            prediction_id=name,
            version=version,
            entity="station-1",
            request_id=f"request-{name}",
            predicted_at=made,
            eligible_at=made + age,
            output={"class": "ok"},
            label={"defect": "scratch", "box": [0, 0, 8, 8]} if wrong else {"defect": "ok"},
            label_age_ms=1000,
            loss=1.0 if wrong else 0.0,
        )
        self.log.judged.append(outcome)
        return outcome

    def until(self, condition: Callable[[LoopStatus], bool], *, ticks: int = 400) -> LoopStatus:
        """Tick until the status is as wished."""
        for _ in range(ticks):
            status = self.tick()
            if condition(status):
                return status
        raise AssertionError(f"it did not come to that in {ticks} ticks; the phase is {status.phase}")

    def judged_until(
        self,
        condition: Callable[[LoopStatus], bool],
        errors: dict[str, float],
        *,
        seconds: int = 600,
        per_second: int = 20,
    ) -> LoopStatus:
        """Requests are answered and labelled until the status is as wished."""
        for _ in range(seconds):
            self.judge(errors, per_second=per_second)
            if condition(self.status):
                return self.status
        raise AssertionError(f"it did not come to that in {seconds} s; {self.status.seen.rollout}")
