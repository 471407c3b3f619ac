"""A served version as a process, and clients that ask it: what each was answered, and how long that took."""

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import httpx
from benchmarks.serving.server import VERSION

from tidemill.core.clock import Clock
from tidemill.spec.model import ContinualModel
from tidemill.stack.launch import Process, signal_group, spawn
from tidemill.stack.ports import HOST, free_ports
from tidemill.testing import eventually
from tidemill.testing.loop import example_resource
from tidemill.testing.serving import make_version

__all__ = ["Answer", "Clients", "Served", "served_model"]

_ROOT = Path(__file__).parents[2]


def served_model(name: str, **spec: Any) -> ContinualModel:
    """A classification of one number, without windows."""
    parts: dict[str, Any] = {
        "events": {
            "entity": {"name": "station"},
            "id": "event_id",
            "timestamp": "captured_at",
            "fields": [{"name": "exposure_ms", "type": "float", "min": 0, "max": 1000}],
        },
        "features": {},
        "prediction": {"type": "classification", "classes": ["ok", "scratch"]},
        "labels": {
            "fields": [{"name": "defect", "type": "class"}],
            "maturity": {"after": "500ms", "horizon": "1h"},
        },
        "model": {"codec": "benchmarks.serving.codec:Codec", "trainer": "benchmarks.serving.codec:Codec"},
        "triggers": {},
        "rollout": {},
    }
    return example_resource(name, **(parts | spec))


class Served:
    """One version of a model, served by one process at a time, always at the same address."""

    def __init__(self, folder: Path, resource: ContinualModel, resource_file: Path, *, kafka: str) -> None:
        self.resource = resource
        (self.port,) = free_ports(1)
        self.url = f"http://{HOST}:{self.port}"
        artifact = make_version(folder / "versions", resource, VERSION)
        self._argv = [sys.executable, "-m", "benchmarks.serving.server", str(resource_file), str(artifact)]
        self._argv += [str(self.port), "--kafka", kafka]
        self._log = folder / "serve.log"
        self._process: Process | None = None

    def start(self, *options: str) -> None:
        """Start a process, and wait until it answers."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
        kept["PYTHONPATH"] = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
        process = self._process = spawn([*self._argv, *options], log=self._log, env=kept, folder=_ROOT)

        def is_ready() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended: {self._log.read_text()[-2000:]}")
            try:
                return httpx.get(f"{self.url}/v2/health/ready", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        eventually(is_ready, 120, every_s=0.1)

    def end(self, number: Any = SIGTERM) -> None:
        """Send the signal, and wait for the end."""
        if self._process is not None:
            signal_group(self._process.pid, number)
            self._process.wait(30)
        self._process = None

    def processor_s(self) -> float:
        """Processor time that the process has used, in seconds; 0 where the system does not tell (Linux does)."""
        stat = Path(f"/proc/{self._process.pid if self._process else 0}/stat")
        if not stat.exists():
            return 0.0
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """SIGKILL."""
        self.end(SIGKILL)


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: when it was sent and how long it took, in seconds, and its predictions' ids (none: it failed)."""

    at: float
    took_s: float
    ids: tuple[str, ...]


@dataclass
class Clients:
    """Some clients, each with its own connection, that together ask so many requests a second."""

    served: Served
    clock: Clock
    per_second: float = 40.0
    count: int = 4
    rows: int = 2
    answers: list[Answer] = field(default_factory=list)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask until the block ends."""
        stopped = threading.Event()
        threads = [threading.Thread(target=self._ask, args=(stopped, n), daemon=True) for n in range(self.count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopped.set()
            for thread in threads:
                thread.join(30)

    def ids(self) -> set[str]:
        """Of all rows that were answered."""
        return {one for answer in self.answers for one in answer.ids}

    def between(self, begin: float, end: float) -> Sequence[Answer]:
        """The requests sent in [begin, end)."""
        return [answer for answer in self.answers if begin <= answer.at < end]

    def _ask(self, stopped: threading.Event, number: int) -> None:
        every_s = self.count / self.per_second
        due = self.clock.monotonic() + number * every_s / self.count
        with httpx.Client(base_url=self.served.url, trust_env=False, timeout=10) as http:
            while not stopped.wait(max(0.0, due - self.clock.monotonic())):
                due = max(due + every_s, self.clock.monotonic() - every_s)
                self.answers.append(self._one(http, number))

    def _one(self, http: httpx.Client, number: int) -> Answer:
        rows = [{"station": f"s{number}", "exposure_ms": 100.0 * row} for row in range(self.rows)]
        at = self.clock.monotonic()
        try:
            answer = http.post(f"/v1/models/{self.served.resource.metadata.name}:predict", json={"instances": rows})
            ids = tuple(one["prediction_id"] for one in answer.json()["predictions"]) if answer.is_success else ()
        except httpx.TransportError:
            ids = ()
        return Answer(at, self.clock.monotonic() - at, ids)
