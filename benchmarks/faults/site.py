"""A broker and a Redis of the harness's own, to be ended and started again, and the folder they live in."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from subprocess import TimeoutExpired
from tempfile import TemporaryDirectory

import redis
import yaml

from tidemill.core.clock import SystemClock
from tidemill.core.settings import Settings
from tidemill.events.records import Topics
from tidemill.features.connection import Keys
from tidemill.features.layout import EVENTS
from tidemill.spec.model import ContinualModel
from tidemill.stack import kafka as kafka_process
from tidemill.stack import redis as redis_process
from tidemill.stack.launch import Process, signal_group, spawn
from tidemill.stack.ports import HOST, free_ports
from tidemill.stack.readiness import is_ready
from tidemill.stack.supervisor import ProcessWanted
from tidemill.testing import eventually

__all__ = ["SESSION_MS", "Server", "Site", "open_site", "the_resource"]

SESSION_MS = 3000
"""After so long without a heartbeat a worker is believed dead."""


class Server:
    """One server process on a port that stays the same."""

    def __init__(self, wanted: ProcessWanted, folder: Path) -> None:
        self._wanted = wanted
        self._log = folder / f"{wanted.name}.log"
        self._process: Process | None = None

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        process = self._process = spawn(self._wanted.argv, log=self._log)

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{self._wanted.name} ended: {self._log.read_text()[-2000:]}")
            return is_ready(self._wanted.ready or "")

        eventually(answers, 120)

    def end(self, number: Signals = SIGKILL) -> None:
        """Send the signal, and wait for the end; one that takes too long is killed."""
        if self._process is None:
            return
        signal_group(self._process.pid, number)
        try:
            self._process.wait(30)
        except TimeoutExpired:
            signal_group(self._process.pid, SIGKILL)
        self._process = None

    def restart(self, number: Signals = SIGTERM) -> None:
        """End it by the signal, and start it again."""
        self.end(number)
        self.start()


class Site:
    """Where one run takes place."""

    def __init__(self, folder: Path, resource: ContinualModel) -> None:
        self.folder, self.resource = folder, resource
        self.topics = Topics(resource.id, resource.events_topic, resource.labels_topic)
        port, controller_port, redis_port = free_ports(3)
        self.bootstrap, self.redis_url = f"{HOST}:{port}", f"redis://{HOST}:{redis_port}/0"
        self.lake = str(folder / "lake")
        wanted = kafka_process.prepare(folder / "kafka", port=port, controller_port=controller_port)
        with (folder / "kafka" / "server.properties").open("a") as properties:
            properties.write(f"group.min.session.timeout.ms={SESSION_MS}\n")
        self.kafka = Server(wanted, folder)
        self.redis = Server(redis_process.prepare(folder / "redis", port=redis_port), folder)
        self.resource_file = folder / "resource.yaml"
        self.resource_file.write_text(yaml.safe_dump(resource.model_dump(mode="json", by_alias=True)))

    @property
    def settings(self) -> Settings:
        """What the workers are told."""
        return Settings(
            state=self.folder / "state", kafka=self.bootstrap, redis=self.redis_url, lake=self.lake, log_level="info"
        )

    def wait_for_kafka(self) -> None:
        """Until the broker answers questions."""
        kafka_process.wait_until_ready(self.bootstrap, clock=SystemClock(), deadline_s=60)

    def restart_kafka(self, number: Signals) -> None:
        """End the broker by the signal, start it again, and wait until it answers questions."""
        self.kafka.restart(number)
        self.wait_for_kafka()

    @property
    def filling(self) -> bool:
        """Whether someone fills the online rows at this moment."""
        with redis.Redis.from_url(self.redis_url) as client:
            found = client.get(Keys(self.resource.id, EVENTS).generation)
        return isinstance(found, bytes) and found.startswith(b"rebuilding")

    def empty_redis(self) -> None:
        """Drop every key, while all go on."""
        with redis.Redis.from_url(self.redis_url) as client:
            client.flushall()


@contextmanager
def open_site(resource: ContinualModel) -> Iterator[Site]:
    """A site whose servers run until the block ends, however it ends; nothing is left of it."""
    with ExitStack() as stack:
        site = Site(Path(stack.enter_context(TemporaryDirectory(prefix="tidemill-faults-"))), resource)
        for server in (site.kafka, site.redis):
            stack.callback(server.end)
            server.start()
        site.wait_for_kafka()
        yield site


def the_resource() -> ContinualModel:
    """The model whose events are taken in: a required number, drift watched each second, windows."""
    return ContinualModel.model_validate(
        {
            "apiVersion": "tidemill.dev/v1alpha1",
            "kind": "ContinualModel",
            "metadata": {"name": "faults"},
            "spec": {
                "events": {
                    "entity": {"name": "station"},
                    "id": "event_id",
                    "timestamp": "captured_at",
                    "allowedLateness": "10m",
                    "fields": [{"name": "exposure_ms", "type": "float", "min": 0, "max": 1000}],
                },
                "features": {
                    "windows": [
                        {"name": "seen", "agg": "count", "over": ["10h"]},
                        {"name": "exposed", "of": "exposure_ms", "agg": "sum", "over": ["10h"]},
                        {"name": "longest", "of": "exposure_ms", "agg": "max", "over": ["10h"]},
                    ]
                },
                "prediction": {"type": "classification", "classes": ["ok", "scratch"]},
                "labels": {"fields": [{"name": "defect", "type": "class"}]},
                "model": {"codec": "a:Codec", "trainer": "a:Trainer"},
                "triggers": {"drift": {"every": "10s"}},
            },
        }
    )
