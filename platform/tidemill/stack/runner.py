"""The one holder of child processes: the loop of `tidemill up`. What to do is decided in `tidemill.stack.plan`."""

import os
import signal
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec

from tidemill.core.clock import Clock
from tidemill.core.errors import Corrupt, Unavailable
from tidemill.core.exposition import forget_metrics, write_targets
from tidemill.core.files import write_atomically
from tidemill.core.telemetry import get_logger
from tidemill.stack.guard import Guard
from tidemill.stack.launch import Process, signal_group, spawn
from tidemill.stack.logs import bound
from tidemill.stack.plan import Child, Forget, Signal, Start, after_end, after_signal, after_start, as_seen, reconcile
from tidemill.stack.readiness import is_ready
from tidemill.stack.supervisor import ProcessSeen, ProcessWanted
from tidemill.stack.wanted import WantedFiles

__all__ = ["OWNER", "Runner"]

STEP_S = 0.05
"""Pause between two steps: how soon a wanted file or the end of a process is noticed."""
LOGS_EVERY_S = 2.0
OWNER = "up"
"""The name under which the process that holds the children tells its own metrics."""

_log = get_logger(__name__)


class _TaskRecord(msgspec.Struct, frozen=True):
    """A task that was started once, and never will be again unless it changes. No status: it was running."""

    wanted: ProcessWanted
    exit_status: int | None = None


class Runner:
    """Holds the children. Call `step` again and again, from one thread; `close` at the end.

    Args:
        state: the state folder; processes are told under `processes/`, logs are under `logs/`.
        env: the environment that each child gets besides its own.
        folder: the working folder of each child.
    """

    def __init__(self, state: Path, *, env: Mapping[str, str], folder: Path, clock: Clock) -> None:
        self.fixed: dict[str, ProcessWanted] = {}
        """Processes wanted by the owner of this runner, besides those wanted by files."""
        self._follow = False
        self._env, self._folder, self._clock = dict(env), folder, clock
        self._state, self._logs = state, state / "logs"
        self._seen, self._tasks = state / "processes" / "seen", state / "processes" / "tasks"
        wanted = state / "processes" / "wanted"
        for one in (self._logs, self._seen, self._tasks, wanted):
            one.mkdir(parents=True, exist_ok=True)
        for stale in self._seen.iterdir():
            stale.unlink()
        self._files = WantedFiles(wanted)
        self._children: dict[str, Child] = {}
        self._processes: dict[str, Process] = {}
        self._probes: dict[tuple[str, int], Future[bool]] = {}
        self._told: dict[str, ProcessSeen] = {}
        self._complained: dict[str, str] = {}
        self._logs_at = 0.0
        self._pool = ThreadPoolExecutor(2, "probe")
        self._guard = Guard()

    def set_env(self, env: Mapping[str, str]) -> None:
        """The environment of children that are started from now on."""
        self._env = dict(env)

    def follow_files(self, follow: bool) -> None:
        """Whether processes wanted by files are to run as well."""
        if follow and not self._follow:
            self._remember_tasks()
        self._follow = follow

    def observe(self) -> dict[str, ProcessSeen]:
        """All children, by name."""
        return {name: as_seen(child, str(self.log(name))) for name, child in sorted(self._children.items())}

    def told(self) -> Mapping[str, ProcessSeen]:
        """All children as they were told last: for other threads, too."""
        return self._told

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self._logs / f"{name}.log"

    def step(self) -> None:
        """Notice what ended and what is ready, do what is to be done, and tell. Takes milliseconds."""
        now = self._clock.monotonic()
        self._reap(now)
        self._collect_probes()
        wanted = {**(self._files.read() if self._follow else {}), **self.fixed}
        for action in reconcile(wanted, self._children, now):
            match action:
                case Start():
                    self._start(action, now)
                case Signal():
                    self._signal(action, now)
                case Forget():
                    self._forget(action.name)
        self._start_probes()
        self._tell()
        self._complain()
        if now >= self._logs_at:
            self._logs_at = now + LOGS_EVERY_S
            for name in self._children:
                bound(self.log(name))
            write_targets(self._state, {OWNER, *self._children})

    def sleep(self) -> None:
        """The pause between two steps."""
        self._clock.sleep(STEP_S)

    def close(self) -> None:
        """Kill what is left, at once, and wait for it to be gone."""
        for name, child in self._children.items():
            if child.pid is not None:
                signal_group(child.pid, signal.SIGKILL)
                self._processes[name].wait()
        self._children.clear()
        self._tell()
        write_targets(self._state, ())
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._guard.close()

    def _start(self, action: Start, now: float) -> None:
        wanted = action.wanted
        env = {**os.environ, **self._env, **wanted.env}
        if wanted.kind == "task":
            self._record_task(_TaskRecord(wanted))
        try:
            process = spawn(wanted.argv, log=self.log(wanted.name), env=env, folder=self._folder)
        except Unavailable as error:
            _log.error("cannot start", process=wanted.name, reason=str(error))
            self._children[wanted.name] = after_end(after_start(action, None, now), 1, now)
            return
        self._guard.watch(process.pid)
        self._processes[wanted.name] = process
        self._children[wanted.name] = after_start(action, process.pid, now)
        _log.info("started", process=wanted.name, pid=process.pid, again=action.after is not None)

    def _signal(self, action: Signal, now: float) -> None:
        child = self._children[action.name]
        if child.pid is not None:
            signal_group(child.pid, action.number)
            _log.info("ending", process=action.name, pid=child.pid, signal=action.number.name)
        self._children[action.name] = after_signal(child, action.number, now)

    def _forget(self, name: str) -> None:
        child = self._children.pop(name)
        forget_metrics(self._state, name)
        if child.wanted.kind == "task" and self._follow:
            (self._tasks / f"{name}.json").unlink(missing_ok=True)

    def _reap(self, now: float) -> None:
        for name, child in list(self._children.items()):
            if child.pid is None:
                continue
            status = self._processes[name].poll()
            if status is None:
                continue
            signal_group(child.pid, signal.SIGKILL)  # what it started does not outlive it
            self._guard.forget(child.pid)
            del self._processes[name]
            self._children[name] = after_end(child, status, now)
            expected = child.ending_since is not None or child.wanted.kind == "task"
            (_log.info if expected else _log.warning)("ended", process=name, pid=child.pid, status=status)
            if child.wanted.kind == "task":
                self._record_task(_TaskRecord(child.wanted, status))

    def _start_probes(self) -> None:
        for name, child in self._children.items():
            url, pid = child.wanted.ready, child.pid
            if pid is not None and url is not None and not child.ready and (name, pid) not in self._probes:
                self._probes[name, pid] = self._pool.submit(is_ready, url)

    def _collect_probes(self) -> None:
        for (name, pid), probe in list(self._probes.items()):
            if not probe.done():
                continue
            del self._probes[name, pid]
            child = self._children.get(name)
            if probe.result() and child is not None and child.pid == pid:
                self._children[name] = replace(child, ready=True)

    def _tell(self) -> None:
        seen = self.observe()
        for name in self._told.keys() - seen.keys():
            (self._seen / f"{name}.json").unlink(missing_ok=True)
        for name, one in seen.items():
            if self._told.get(name) != one:
                write_atomically(self._seen / f"{name}.json", msgspec.json.encode(one))
        self._told = seen

    def _complain(self) -> None:
        for name, why in self._files.broken.items():
            if self._complained.get(name) != why:
                _log.error("a wanted process is not readable; what ran goes on", process=name, reason=why)
        self._complained = dict(self._files.broken)

    def _record_task(self, record: _TaskRecord) -> None:
        write_atomically(self._tasks / f"{record.wanted.name}.json", msgspec.json.encode(record), durable=True)

    def _remember_tasks(self) -> None:
        for file in self._tasks.glob("[!.]*.json"):
            try:
                record = msgspec.json.decode(file.read_bytes(), type=_TaskRecord)
            except msgspec.DecodeError as error:
                raise Corrupt(f"{file} is not what was written: {error}", hint="remove the file") from error
            status = -signal.SIGKILL if record.exit_status is None else record.exit_status
            self._children[file.stem] = Child(record.wanted, None, 0.0, exit_status=status)
