"""How fast a version answers in the server that it will serve in: `tidemill serve`, started for this and ended again.

It runs as in service, with the same code and online store, on a port of its own. Its answers are no predictions of the
model's, so that nothing may reach the log: its brokers are nowhere (it answers without them, too, and its queue holds
more than is asked here), and its state, with the counts by which gaps are found, is a folder that goes with it.
"""

import base64
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from tidemill.core.clock import Clock
from tidemill.core.errors import Unavailable
from tidemill.evaluation.scoring import Timing
from tidemill.retrain.place import Place
from tidemill.spec.model import ContinualModel
from tidemill.spec.paths import predict_path
from tidemill.stack.logs import last_lines
from tidemill.stack.ports import HOST, free_ports
from tidemill.stack.readiness import is_ready

__all__ = ["REQUESTS", "requests_of", "time_server"]

COMMAND = (sys.executable, "-m", "tidemill.cli", "serve")
REQUESTS = 1000
"""Their fifth slowest bounds the 99th percentile."""
_FEWEST, _LONG_S = 300, 30.0
"""A slow version is asked less: no more than so many requests once so long has passed."""
_FIRST = 20
"""Requests that are sent before and not counted: a process is slow while it is new."""
_READY_S, _ANSWER_S, _END_S = 120.0, 10.0, 15.0
_LOOK_S = 0.1
_OVER_S = 1.0
_NOWHERE = f"{HOST}:1"


def requests_of(frame: pl.DataFrame, resource: ContinualModel) -> list[bytes]:
    """A V1 request for each row of a snapshot: the event as it came, a picture as the base64 of its file."""
    events = resource.spec.events
    columns = ["entity", "event_id", *(field.name for field in events.fields)]
    found = []
    for row in frame.select(columns).iter_rows(named=True):
        entity = int(row["entity"]) if events.entity.type == "int" else row["entity"]
        sent = {events.entity.name: entity} | {field.name: _sent(row[field.name]) for field in events.fields}
        if events.id is not None:
            sent[events.id] = row["event_id"]
        known = {name: value for name, value in sent.items() if value is not None}
        found.append(json.dumps({"instances": [known]}).encode())
    return found


def time_server(place: Place, version: str, artifact: Path, requests: Sequence[bytes]) -> Timing:
    """Send the requests in turn to a server of the version, one after the other, and end it.

    What goes wrong there is told in `problem`, and raises nothing.
    """
    seconds: list[float] = []
    ready_after: float | None = None
    problem = ""
    try:
        with _server(place, version, artifact) as (process, port, log):
            ready_after = _until_ready(process, port, log, place.clock)
            for second in _asked(predict_path(place.resource), requests, process, port, log, place.clock):
                seconds.append(second)
    except Unavailable as error:
        problem = error.message
    return Timing(version=version, seconds=tuple(seconds[_FIRST:]), ready_after_s=ready_after, problem=problem)


@contextmanager
def _server(place: Place, version: str, artifact: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int, Path]]:
    """A server's process, its port and its log; the process is over when this is."""
    with TemporaryDirectory() as scratch:
        file, log, (port,) = Path(scratch) / "model.yaml", Path(scratch) / "serve.log", free_ports(1)
        file.write_text(place.resource.model_dump_json(by_alias=True, exclude_unset=True))  # JSON is YAML
        arguments = ["--resource", str(file), "--version", version, "--artifact", str(artifact), "--port", str(port)]
        with log.open("wb") as output:
            # In this process's group: a run that is stopped ends all of it.
            process = subprocess.Popen(
                [*COMMAND, *arguments], env=_environment(place, scratch), stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield process, port, log
        finally:
            _end(process)


def _environment(place: Place, scratch: str) -> dict[str, str]:
    found = {**os.environ, **place.settings, "TIDEMILL_STATE": scratch, "TIDEMILL_KAFKA": _NOWHERE}
    if not place.resource.spec.features.windows:  # nobody asks the store anything then
        found.setdefault("TIDEMILL_REDIS", f"redis://{_NOWHERE}/0")
    return found


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _until_ready(process: "subprocess.Popen[bytes]", port: int, log: Path, clock: Clock) -> float:
    begun = clock.monotonic()
    while not is_ready(f"http://{HOST}:{port}/v2/health/ready"):
        if process.poll() is not None:
            raise Unavailable(f"the server ended before it was ready: {_last_words(log)}")
        if clock.monotonic() - begun > _READY_S:
            raise Unavailable(f"the server was not ready within {_READY_S:g} s: {_last_words(log)}")
        clock.sleep(_LOOK_S)
    return clock.monotonic() - begun


def _asked(
    path: str, requests: Sequence[bytes], process: "subprocess.Popen[bytes]", port: int, log: Path, clock: Clock
) -> Iterator[float]:
    """Seconds of each request; raises `Unavailable` for one that is not answered as it should be."""
    begun = clock.monotonic()
    with closing(http.client.HTTPConnection(HOST, port, timeout=_ANSWER_S)) as connection:
        for number, body in enumerate(islice(cycle(requests), _FIRST + REQUESTS), start=1):
            sent = clock.monotonic()
            if number > _FIRST + _FEWEST and sent - begun > _LONG_S:
                return
            try:
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                text = response.read()
            except TimeoutError as error:
                raise Unavailable(f"request {number} had no answer within {_ANSWER_S:g} s") from error
            except (OSError, http.client.HTTPException) as error:
                ended = _is_over(process)
                why = f"the server ended: {_last_words(log)}" if ended else f"{type(error).__name__}: {error}"
                raise Unavailable(f"request {number} had no answer: {why}") from error
            if response.status != http.client.OK:
                said = text[:200].decode(errors="replace")
                raise Unavailable(f"request {number} was answered with status {response.status}: {said}")
            yield clock.monotonic() - sent


def _is_over(process: "subprocess.Popen[bytes]") -> bool:
    """Whether it ends now: its connections are closed a moment before."""
    try:
        process.wait(_OVER_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _sent(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _last_words(log: Path) -> str:
    """What `tidemill` shows after `error:`, else the last line."""
    text = last_lines(log)
    _, is_told, error = text.rpartition("error: ")
    if is_told:
        return " ".join(error.partition("hint: ")[0].split())
    return text.rpartition("\n")[2] or "without a word"
