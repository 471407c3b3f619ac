"""A machine on which runs are killed: broker, control and supervisor, and one new model for each fault."""

import os
import secrets
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from signal import SIGKILL

import psutil
from benchmarks.faults.site import open_site, the_resource

from tidemill.artifacts import verify
from tidemill.control.ask import ask
from tidemill.control.log import KafkaLog
from tidemill.control.protocols import RunSeen
from tidemill.control.runs import read_run
from tidemill.control.state import LoopStatus, decode_status
from tidemill.control.store import LocalResourceStore
from tidemill.core.clock import SystemClock, to_ms
from tidemill.core.errors import TidemillError
from tidemill.events.kafka import RecordReader
from tidemill.events.records import Decision, Request
from tidemill.registry import RegisteredVersion
from tidemill.registry.mlflow import MlflowRegistry
from tidemill.stack.launch import Process, signal_group, spawn
from tidemill.stack.wanted import FileSupervisor
from tidemill.testing import eventually
from tidemill.testing.process import supervise
from tidemill.testing.retrain import Site
from tidemill.testing.training import events_frame, tiny_resource

__all__ = ["Model", "Plant", "open_plant"]

ROOT = Path(__file__).parents[2]
CODE = ROOT / "tests" / "training" / "code"
EVENTS = 400
LONGEST_S = 180.0
"""No run takes so long, whatever happens to it."""
_ENDS = frozenset({"run-failed", "run-finished", "start-rollout"})
_WARM = "tidemill.retrain.warm"


class Plant:
    """State folder, broker, supervisor and control."""

    def __init__(self, folder: Path, kafka: str) -> None:
        self.state, self.kafka, self.clock = folder / "state", kafka, SystemClock()
        self.state.mkdir()
        self.registry = MlflowRegistry(f"sqlite:///{self.state / 'mlflow.db'}")
        # Control and runs are told the same; nothing of the shell's own settings is left.
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
        self.env |= {"TIDEMILL_STATE": str(self.state), "TIDEMILL_KAFKA": kafka}
        self._control: Process | None = None
        self._stop = threading.Event()
        held = {"env": self.env, "folder": self.state}
        self._supervising = threading.Thread(target=supervise, args=(self.state, self._stop), kwargs=held)
        self._supervising.start()

    def start_control(self) -> None:
        """Start it, with nothing but store and log to go on from."""
        argv = [sys.executable, "-m", "benchmarks.faults.control_worker"]
        self._control = spawn(argv, log=self.state / "control.log", env=self.env, folder=ROOT)

    def kill_control(self) -> None:
        """SIGKILL."""
        if self._control is not None:
            signal_group(self._control.pid, SIGKILL)
            self._control.wait(10)
            self._control = None

    def model(self, name: str) -> "Model":
        """A new model with labelled events, which control has taken in."""
        site = Site(self.state, tiny_resource(name), CODE, kafka=self.kafka)
        site.fill(events_frame(EVENTS))
        made = Model(self, site)
        eventually(lambda: made.taken_in, 60)
        return made

    def close(self) -> None:
        """End all."""
        self.kill_control()
        self._stop.set()
        self._supervising.join()


class Model:
    """One model on a plant: its runs, what control says of them, and what is left of them."""

    def __init__(self, plant: Plant, site: Site) -> None:
        self.site, self._plant = site, plant
        self._store = LocalResourceStore(plant.state / "resources")

    @property
    def taken_in(self) -> bool:
        """Whether control has begun with it."""
        return self._store.get(self.site.resource.id).status is not None

    @property
    def status(self) -> LoopStatus:
        """Control's."""
        stored = self._store.get(self.site.resource.id).status
        if stored is None:
            raise AssertionError("the status is lost")
        return decode_status(stored)

    def decisions(self) -> Sequence[Decision]:
        """All so far."""
        with closing(KafkaLog(self._plant.kafka, self.site.topics)) as log:
            return log.decisions()

    def requests(self) -> Sequence[Request]:
        """All so far."""
        with RecordReader(self._plant.kafka, self.site.topics.requests, Request) as reader:
            return [stamped.record for stamped in reader.rest()]

    def ask(self, kind: str, **arguments: str | bool) -> Decision:
        """Ask control, as a person or a step does."""
        request = Request(
            request_id=secrets.token_hex(8),
            kind=kind,  # type: ignore[arg-type]
            model=self.site.resource.id,
            time=to_ms(self._plant.clock.now()),
            by="faults",
            arguments={**arguments},
        )
        return ask(self._plant.kafka, self.site.topics, request, clock=self._plant.clock, deadline_s=60)

    def start(self) -> str:
        """Ask for a run; its id. An equal version may not pass its gates, and they are not what is tried here."""
        decision = self.ask("retrain", reason="a fault", force=True, skip_gates=True)
        if decision.kind != "start-run":
            raise AssertionError(f"{decision.kind}: {decision.reason}")
        return decision.subject

    def end_of(self, run: str) -> Decision:
        """Wait until control says that the run is over."""

        def end() -> Decision | None:
            if (now := self.status.run) is not None and now.run == run:
                return None
            return next((one for one in self.decisions() if one.kind in _ENDS and _run_of(one) == run), None)

        found = eventually(end, LONGEST_S, every_s=0.1)
        if found is None:  # `eventually` gives true values alone
            raise AssertionError(f"{run} has no end")
        return found

    def seen(self, run: str) -> RunSeen | None:
        """The run's own last word."""
        return read_run(self.site.folder(run))

    def leader(self, run: str) -> int:
        """The process that leads the run's group."""
        name = f"{self.site.resource.id}.{run}"
        found = FileSupervisor(self._plant.state / "processes").observe()
        return next((seen.pid for seen in found if seen.name == name and seen.pid), 0)

    def at_work(self, leader: int) -> list[int]:
        """The processes that run a step's own code: forks of the warm ones, whose output goes to a component."""
        return [one for one in group(leader) if _is_step(one)]

    def half(self, run: str) -> list[str]:
        """What is there of the run's version and is not whole."""
        folder = self.site.version(run)
        found = _broken(folder) if folder.exists() else []
        for version in self.registered(run):
            found += [f"registered: {problem}" for problem in _broken(Path(version.artifact))]
            if not version.tags.get("tidemill.snapshot") or not version.description:
                found.append("registered without its lineage")
        return found

    def registered(self, run: str) -> list[RegisteredVersion]:
        """The run's version in the registry."""
        return [one for one in self._plant.registry.versions(self.site.resource.id) if one.version == run]

    def stale_refused(self, run: str) -> bool | None:
        """Whether control refuses a proposal by the token of a run that is over; None where none was granted."""
        tokens = [one.figures["token"] for one in self.decisions() if one.kind == "grant" and one.subject == run]
        if not tokens:
            return None
        artifact = str(self.site.version(run))
        said = self.ask("propose", run=run, token=tokens[-1], version=run, artifact=artifact, gates="[]")
        return said.kind == "refuse"


def _run_of(decision: Decision) -> str:
    return str(decision.figures.get("run", decision.subject))


def group(leader: int) -> list[int]:
    """The processes of a group that are alive."""
    found = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getpgid(pid) == leader and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def _is_step(pid: int) -> bool:
    try:
        output = Path(f"/proc/{pid}/fd/1").readlink()
        return output.name.startswith("pipe:") and _WARM in psutil.Process(pid).cmdline()
    except (OSError, psutil.Error):
        return False


def _broken(folder: Path) -> list[str]:
    try:
        verify(folder)
    except TidemillError as error:
        return [error.message]
    return []


@contextmanager
def open_plant() -> Iterator[Plant]:
    """A plant that runs until the block ends; nothing is left of it."""
    with ExitStack() as stack:
        site = stack.enter_context(open_site(the_resource()))
        plant = Plant(site.folder, site.bootstrap)
        stack.callback(plant.close)
        plant.start_control()
        yield plant
