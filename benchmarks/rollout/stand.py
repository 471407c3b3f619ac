"""A machine on which versions roll out: broker, Envoy, model servers and control, each real and each to be killed.

What control asks its runner and registry for has no part in a rollout, and is only remembered. Labels of answers are
written as soon as those are given, all of them right: what a candidate is rejected for is not its answers.
"""

import os
import secrets
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from signal import SIGKILL
from typing import Any

from benchmarks.faults.outcome_worker import OutcomeWorker
from benchmarks.faults.site import Server, Site, open_site
from benchmarks.rollout.load import Load
from benchmarks.serving.asking import served_model

from tidemill.control.ask import ask
from tidemill.control.log import KafkaLog
from tidemill.control.provision import topics_of
from tidemill.control.state import LoopStatus, decode_status
from tidemill.control.store import LocalResourceStore
from tidemill.core.clock import SystemClock, to_ms
from tidemill.core.settings import environment
from tidemill.events.kafka import RecordReader, RecordWriter
from tidemill.events.records import Decision, Label, Outcome, Request
from tidemill.rollout.driver import TrafficSeen
from tidemill.rollout.local import LocalTrafficDriver
from tidemill.spec.model import ContinualModel
from tidemill.spec.paths import predict_path
from tidemill.stack import envoy as envoy_process
from tidemill.stack.launch import Process, signal_group, spawn
from tidemill.stack.ports import HOST, free_ports
from tidemill.stack.wanted import FileSupervisor
from tidemill.testing import eventually
from tidemill.testing.process import supervise
from tidemill.testing.serving import make_version

__all__ = ["FIRST_SHARE", "Stand", "open_stand", "the_rollout"]

ROOT = Path(__file__).parents[2]
FIRST_SHARE = 20
"""Percent of the requests that a candidate gets in its first step."""
READY_WITHIN_S = 90
"""Of a candidate; five minutes in the product."""
_CODEC = "benchmarks.rollout.codec:"


def the_rollout(**guards: Any) -> ContinualModel:
    """The model: three steps, a wide margin, outcomes after a second."""
    steps = [{"weight": FIRST_SHARE}, {"weight": 50}, {"weight": 100}]
    analysis = {"margin": 0.3, "risk": 0.1, "minOutcomes": 30, "timeout": "1h"}
    rollout = {"steps": steps, "analysis": analysis, "guards": guards}
    model = {"codec": f"{_CODEC}Good", "trainer": f"{_CODEC}Good"}
    labels = {
        "fields": [{"name": "defect", "type": "class"}],
        "control": 1.0,
        "maturity": {"after": "1s", "horizon": "1h"},
    }
    return served_model("rollout", rollout=rollout, model=model, labels=labels)


class Stand:
    """One model on one machine."""

    def __init__(self, site: Site) -> None:
        self.site, self.resource, self.clock = site, site.resource, SystemClock()
        port, admin_port = free_ports(2)
        self.endpoint = f"http://{HOST}:{port}"
        self.settings = site.settings.model_copy(
            update={"endpoint": self.endpoint, "envoy_admin": f"http://{HOST}:{admin_port}", "log_level": "warning"}
        )
        self.state = self.settings.state
        self.state.mkdir()
        self.envoy = Server(envoy_process.prepare(self.state / "envoy", port=port, admin_port=admin_port), site.folder)
        self.store = LocalResourceStore(self.state / "resources")
        self._code = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.put(self.resource)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
        self.env = kept | environment(self.settings) | {"PYTHONPATH": self._code}
        self._control: Process | None = None
        self._stop, self._labels = threading.Event(), SimpleQueue[Label | None]()
        held = {"env": self.env, "folder": self.state}
        self._threads = [
            threading.Thread(target=supervise, args=(self.state, self._stop), kwargs=held),
            threading.Thread(target=self._label),
        ]
        for thread in self._threads:
            thread.start()
        self._log = KafkaLog(site.bootstrap, topics_of(self.resource))
        self.driver = LocalTrafficDriver(
            FileSupervisor(self.state / "processes"),
            self.settings,
            resource=self.resource,
            file=self.store.path(self.resource.id),
            clock=self.clock,
        )
        """To look at the traffic; control's own one moves it."""

    def put(self, resource: ContinualModel) -> None:
        """Store the resource, as `tidemill apply` does."""
        self.resource = resource
        self.store.put(resource, code=self._code)

    def start_control(self) -> None:
        """Start it, with nothing but store and log to go on from."""
        argv = [sys.executable, "-m", "benchmarks.rollout.control", str(READY_WITHIN_S)]
        self._control = spawn(argv, log=self.state / "control.log", env=self.env, folder=ROOT)

    def kill_control(self) -> None:
        """SIGKILL."""
        if self._control is not None:
            signal_group(self._control.pid, SIGKILL)
            self._control.wait(10)
            self._control = None

    def load(self, per_second: float) -> Load:
        """A client through Envoy, whose answers are labelled."""

        def label(prediction_id: str, found: str) -> None:
            self._labels.put(Label(value={"defect": found}, prediction_id=prediction_id))

        return Load(self.endpoint, predict_path(self.resource), per_second, self.clock, label)

    @property
    def status(self) -> LoopStatus:
        """Control's."""
        stored = self.store.get(self.resource.id).status
        return LoopStatus(created_at=0) if stored is None else decode_status(stored)

    def traffic(self) -> TrafficSeen:
        """What Envoy really works with."""
        return self.driver.observe()

    def decisions(self, version: str) -> Sequence[Decision]:
        """All about a version so far."""
        return [one for one in self._log.decisions() if one.subject == version]

    def decided(self, version: str, kind: str, *, since: int = 0) -> Decision:
        """Wait for the first decision of a kind about a version since a time."""

        def found() -> Decision | None:
            return next((one for one in self.decisions(version) if one.kind == kind and one.time >= since), None)

        decision = eventually(found, 120, every_s=0.1)
        if decision is None:  # `eventually` gives true values alone
            raise AssertionError(f"no {kind} of {version}")
        return decision

    def ask(self, kind: str, **arguments: str | bool) -> Decision:
        """Ask control, as a person or a step does."""
        request = Request(
            request_id=secrets.token_hex(8),
            kind=kind,  # type: ignore[arg-type]
            model=self.resource.id,
            time=to_ms(self.clock.now()),
            by="rollout",
            arguments={**arguments},
        )
        topics = topics_of(self.resource)
        return ask(self.site.bootstrap, topics, request, clock=self.clock, deadline_s=60)

    def propose(self, version: str, kind: str = "Good") -> None:
        """Make a version whose code is of a kind, and propose it as a run does."""
        spec = self.resource.spec
        model = spec.model.model_copy(update={"codec": f"{_CODEC}{kind}"})
        resource = self.resource.model_copy(update={"spec": spec.model_copy(update={"model": model})})
        artifact = make_version(self.site.folder / "versions", resource, version)
        granted = self.ask("claim", run=version, reason="a rollout", force=True, skip_gates=True)
        token = str(granted.figures["token"])
        said = self.ask("propose", run=version, token=token, version=version, artifact=str(artifact), gates="[]")
        if said.kind != "start-rollout":
            raise AssertionError(f"{said.kind}: {said.reason}")

    def serve_first(self, kind: str = "Good") -> None:
        """The first version, v1, with all requests."""
        self.propose("v1", kind)
        self.decided("v1", "promote")

    def known(self, outcomes: int) -> None:
        """Wait until so many outcomes are there: how often requests come, the plan of a rollout reads from them."""
        topics, seen = topics_of(self.resource), 0
        with RecordReader(self.site.bootstrap, topics.outcomes, Outcome, on_bad=lambda *_: None) as reader:

            def enough() -> bool:
                nonlocal seen
                seen += len(reader.poll(timeout_s=0.2))
                return seen >= outcomes

            eventually(enough, 120)

    def over(self, deadline_s: float = 120.0) -> None:
        """Wait until no rollout is under way."""
        eventually(lambda: self.status.rollout is None, deadline_s, every_s=0.1)

    def close(self) -> None:
        """End all."""
        self.kill_control()
        self._stop.set()
        self._labels.put(None)
        for thread in self._threads:
            thread.join(60)
        self.envoy.end()
        self.driver.close()
        self._log.close()

    def _label(self) -> None:
        with RecordWriter(self.site.bootstrap, give_up_s=120.0) as writer:
            while (label := self._labels.get()) is not None:
                writer.send(topics_of(self.resource).labels, label, key=label.prediction_id or "")
            writer.flush(30)


@contextmanager
def open_stand(resource: ContinualModel | None = None) -> Iterator[Stand]:
    """A stand that runs until the block ends; nothing is left of it."""
    with ExitStack() as stack:
        site = stack.enter_context(open_site(resource or the_rollout()))
        stand = Stand(site)
        stack.callback(stand.close)
        stand.envoy.start()
        stand.start_control()
        eventually(lambda: stand.store.get(stand.resource.id).status, 60)  # the topics are there
        worker = OutcomeWorker(site, 0)
        stack.callback(worker.kill)
        yield stand
