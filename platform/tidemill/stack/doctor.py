"""What this machine has of what one-machine use needs, and the command that helps where it has not."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import msgspec

from tidemill.core.errors import TidemillError
from tidemill.core.settings import Settings, masked
from tidemill.stack import envoy, kafka, redis
from tidemill.stack.lock import holder
from tidemill.stack.ports import is_taken

__all__ = ["Check", "examine"]

GIB = 2**30
MEMORY_GIB = 6
DISK_GIB = 4
_PACKAGES = ("torch", "onnxruntime", "kserve", "feast", "kfp", "mlflow", "kafka", "redis", "deltalake", "polars")


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "warning", "missing"]
    found: str
    hint: str | None = None
    """What helps; None where all is well."""


def examine(settings: Settings) -> list[Check]:
    """Look at everything; takes well under a second and changes nothing."""
    return [_python(), _cores(), _memory(), _disk(settings.state), _packages(), *_programs(settings), *_stack(settings)]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] in {(3, 11), (3, 12)}:
        return Check(name="Python", state="ok", found=version)
    return Check(name="Python", state="missing", found=version, hint="make setup PYTHON=python3.12")


def _cores() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores >= 2:
        return Check(name="CPU cores", state="ok", found=str(cores))
    return Check(name="CPU cores", state="warning", found=str(cores), hint="works, but slower than the README says")


def _memory() -> Check:
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024 / GIB
    except (OSError, KeyError, ValueError):
        return Check(name="memory", state="warning", found="unknown", hint=f"the demo needs {MEMORY_GIB} GiB")
    found = f"{free:.1f} GiB available"
    if free >= MEMORY_GIB:
        return Check(name="memory", state="ok", found=found)
    return Check(
        name="memory", state="warning", found=found, hint=f"the demo needs {MEMORY_GIB} GiB: end other programs"
    )


def _disk(state: Path) -> Check:
    there = next(folder for folder in (state, *state.parents) if folder.exists())
    free = shutil.disk_usage(there).free / GIB
    found = f"{free:.1f} GiB free in {there}"
    if free >= DISK_GIB:
        return Check(name="disk", state="ok", found=found)
    return Check(name="disk", state="warning", found=found, hint="TIDEMILL_STATE=<folder on another disk>")


def _packages() -> Check:
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if not missing:
        return Check(name="Python packages", state="ok", found=f"{len(_PACKAGES)} of {len(_PACKAGES)}")
    found = f"without {', '.join(missing)}"
    return Check(name="Python packages", state="missing", found=found, hint="make setup")


def _programs(settings: Settings) -> Iterator[Check]:
    if settings.kafka:
        yield Check(name="Kafka", state="ok", found=f"your own: {settings.kafka}")
    else:
        yield _program("Java", kafka.java)
        jars = kafka.stored_classpath()
        if jars:
            yield Check(name="Kafka", state="ok", found=f"{len(jars)} jars")
        else:
            hint = "tidemill up fetches them once (43 MB), or TIDEMILL_KAFKA=<your broker>"
            yield Check(name="Kafka", state="warning", found="not fetched yet", hint=hint)
    if settings.redis:
        yield Check(name="Redis", state="ok", found=f"your own: {masked(settings.redis)}")
    else:
        yield _program("Redis", redis.server)
    yield _program("Envoy", envoy.server)


def _program(name: str, find: Callable[[], str]) -> Check:
    try:
        return Check(name=name, state="ok", found=find())
    except TidemillError as error:
        return Check(name=name, state="missing", found=error.message, hint=error.hint)


def _stack(settings: Settings) -> Iterator[Check]:
    pid = holder(settings.state)
    left_over = pid is None and (settings.state / "stack.json").exists()
    if left_over:
        hint = "nothing to do: tidemill up cleans up"
        yield Check(name="stack", state="warning", found="it was killed", hint=hint)
    else:
        yield Check(name="stack", state="ok", found="does not run" if pid is None else f"runs (pid {pid})")
    port = settings.envoy_port
    if port and pid is None and is_taken(port):
        hint = f"ss -ltnp 'sport = :{port}' shows by whom; or set another TIDEMILL_ENVOY_PORT"
        yield Check(name="port", state="missing", found=f"{port} is taken", hint=hint)
