"""The stack of one machine as a whole: brought up in order, watched, and taken down in order.

    1. Kafka, Redis, Envoy   unless the settings name a broker or a server of one's own
    2. stack.json            once they answer: from then on every command finds them
    3. control, and what it asks for through `<state>/processes/wanted`; feedback, which takes in labels

It goes down the other way round.
"""

import os
import sys
from collections.abc import Callable, Mapping

import msgspec

from tidemill.core.clock import Clock
from tidemill.core.errors import DeadlineExceeded, Unavailable
from tidemill.core.files import write_atomically
from tidemill.core.settings import Settings, environment
from tidemill.stack import envoy, kafka, redis
from tidemill.stack.lock import hold
from tidemill.stack.logs import last_lines
from tidemill.stack.ports import HOST, kept_ports
from tidemill.stack.runner import Runner
from tidemill.stack.running import FILE, READY_S, StackFile, make_folder
from tidemill.stack.supervisor import ProcessSeen, ProcessWanted

__all__ = ["Machine"]

PARTS = ("kafka", "redis", "envoy")
CONTROL = ProcessWanted(name="control", argv=(sys.executable, "-m", "tidemill.cli", "control"), grace_s=15.0)
FEEDBACK = "feedback"

Report = Callable[[str], None]
"""Tells a person what is being done."""


class Machine:
    """The stack of one state folder, held by this process until it ends: make one a process.

    Creating it raises `Conflict` if another process holds the folder.

    Args:
        settings: `kafka` and `redis` name servers of one's own, or are None for ones that are started here.
        control: whether the service `control` is to run.
        report: is told what is being done.
        stopping: asked between steps; true ends the wait for readiness and `run`.
    """

    def __init__(
        self, settings: Settings, *, control: bool, clock: Clock, report: Report, stopping: Callable[[], bool]
    ) -> None:
        make_folder(settings.state)
        hold(settings.state, clock)
        self._file = settings.state / FILE
        self._file.unlink(missing_ok=True)  # of one that was killed
        self._settings, self._control, self._clock = settings, control, clock
        self._report, self._stopping = report, stopping
        folder = settings.state.parent
        self._runner = Runner(settings.state, env=environment(settings), folder=folder, clock=clock)

    def children(self) -> Mapping[str, ProcessSeen]:
        """The processes by name, as they were a moment ago; for any thread."""
        return self._runner.told()

    def start(self) -> StackFile | None:
        """Bring everything up; returns once it answers, or None if asked to stop before.

        Raises `Conflict` (a taken port), `NotFound` (a missing program), `Unavailable` (a part that fails, with
        the last lines of its log) or `DeadlineExceeded`.
        """
        parts, found = self._prepare()
        self._runner.fixed = parts
        self._report(f"starting {', '.join(parts)}")
        if not self._wait_for_parts():
            return None
        kafka.wait_until_ready(found["kafka"], clock=self._clock, deadline_s=READY_S if "kafka" in parts else 10.0)
        redis.check(found["redis"])
        settings = self._settings.model_copy(update=found)
        self._runner.set_env(environment(settings))
        stack = StackFile(pid=os.getpid(), started=self._clock.now().isoformat(), settings=found)
        write_atomically(self._file, msgspec.json.format(msgspec.json.encode(stack)), durable=True)
        self._runner.fixed = parts | (self._loop(found) if self._control else {})
        self._runner.follow_files(True)
        self._runner.step()
        return stack

    def run(self) -> None:
        """Keep everything running until asked to stop."""
        while not self._stopping():
            self._runner.step()
            self._runner.sleep()

    def end(self, hurry: Callable[[], bool]) -> None:
        """Take everything down, what uses a part before the part. `hurry`: kill what is left at once."""
        self._file.unlink(missing_ok=True)
        parts = {name: one for name, one in self._runner.fixed.items() if name in PARTS}
        self._runner.follow_files(False)
        for left in (parts, {}):
            self._runner.fixed = left
            while not hurry() and self._runner.observe().keys() - left.keys():
                self._runner.step()
                self._runner.sleep()
        self._runner.close()

    def _prepare(self) -> tuple[dict[str, ProcessWanted], dict[str, str]]:
        state, settings = self._settings.state, self._settings
        names = ["envoy", "envoy-admin"]
        names += [] if settings.kafka else ["kafka", "kafka-controller"]
        names += [] if settings.redis else ["redis"]
        names += [FEEDBACK] if self._control else []
        wished = {"envoy": settings.envoy_port, FEEDBACK: settings.feedback_port if self._control else 0}
        fixed = {name: port for name, port in wished.items() if port}
        ports = kept_ports(state / "ports.json", names, fixed=fixed)
        parts: dict[str, ProcessWanted] = {}
        found = {"kafka": settings.kafka or f"{HOST}:{ports['kafka']}"}
        found["redis"] = settings.redis or redis.url(state / "redis", port=ports["redis"])
        found["endpoint"] = f"http://{HOST}:{ports['envoy']}"
        found["envoy_admin"] = f"http://{HOST}:{ports['envoy-admin']}"
        if self._control:
            found[FEEDBACK] = f"http://{_reachable(settings.feedback_host)}:{ports[FEEDBACK]}"
        if not settings.kafka:
            if kafka.stored_classpath() is None:
                self._report("fetching Kafka (43 MB, once)")
            controller = ports["kafka-controller"]
            parts["kafka"] = kafka.prepare(state / "kafka", port=ports["kafka"], controller_port=controller)
        if not settings.redis:
            parts["redis"] = redis.prepare(state / "redis", port=ports["redis"])
        parts["envoy"] = envoy.prepare(state / "envoy", port=ports["envoy"], admin_port=ports["envoy-admin"])
        return parts, found

    def _loop(self, found: Mapping[str, str]) -> dict[str, ProcessWanted]:
        url = found[FEEDBACK]
        port = url.rpartition(":")[2]
        argv = (sys.executable, "-m", "tidemill.cli", FEEDBACK, "--port", port)
        feedback = ProcessWanted(name=FEEDBACK, argv=argv, ready=f"{url}/healthz", grace_s=15.0)
        return {CONTROL.name: CONTROL, FEEDBACK: feedback}

    def _wait_for_parts(self) -> bool:
        end = self._clock.monotonic() + READY_S
        while not self._stopping():
            self._runner.step()
            seen = self._runner.observe()
            for name, one in seen.items():
                if one.state == "failing":
                    raise Unavailable(f"{name} ended with status {one.exit_status}\n{self._said(name)}")
            waiting = [name for name, one in seen.items() if one.state != "ready"]
            if not waiting:
                return True
            if self._clock.monotonic() > end:
                names = ", ".join(waiting)
                said = "\n".join(self._said(name) for name in waiting)
                raise DeadlineExceeded(f"not ready after {READY_S:g} s: {names}\n{said}")
            self._runner.sleep()
        return False

    def _said(self, name: str) -> str:
        log = self._runner.log(name)
        return f"{last_lines(log) or '(it said nothing)'}\n({log})"


def _reachable(host: str) -> str:
    """An address of an interface, as a URL has it; all interfaces are reached by the loopback."""
    host = {"0.0.0.0": HOST, "::": "::1"}.get(host, host)  # noqa: S104 -- nothing is bound here
    return f"[{host}]" if ":" in host else host
