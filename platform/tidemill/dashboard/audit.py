"""The record of what people did on the page: a line each in `<state>/dashboard/audit.jsonl`, and in the log."""

import threading
from pathlib import Path
from typing import Any

import msgspec

from tidemill.core.clock import Clock, to_ms
from tidemill.core.telemetry import get_logger
from tidemill.dashboard.viewers import Action, Viewer

__all__ = ["Audit", "Done"]

_READ_BYTES = 256 << 10
_log = get_logger(__name__)


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that somebody did, or was refused."""

    time: int
    """Milliseconds since the epoch."""
    by: str
    role: str
    action: Action
    model: str
    result: str
    """`done`, `undone` or `refused`, and why."""
    told: dict[str, Any] = {}


class Audit:
    """Appends to one file; thread-safe."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._file, self._clock = folder / "audit.jsonl", clock
        self._lock = threading.Lock()

    def note(self, viewer: Viewer, action: Action, model: str, result: str, **told: Any) -> None:
        """Record it before the viewer hears of it."""
        now = to_ms(self._clock.now())
        done = Done(time=now, by=viewer.name, role=viewer.role, action=action, model=model, result=result, told=told)
        with self._lock:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as file:
                file.write(msgspec.json.encode(done) + b"\n")
        _log.info("dashboard", by=viewer.name, action=action, model=model, result=result)

    def newest(self, model: str, most: int = 50) -> list[Done]:
        """The newest of a model, newest first; of the last quarter of a megabyte."""
        try:
            with self._file.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - _READ_BYTES))
                lines = file.read().splitlines()
        except FileNotFoundError:
            return []
        if size > _READ_BYTES:
            lines = lines[1:]  # begins in the middle
        found = (_done(line) for line in reversed(lines))
        return [one for one in found if one is not None and one.model == model][:most]


def _done(line: bytes) -> Done | None:
    """One record; None for a line that a full disk has torn."""
    try:
        return msgspec.json.decode(line, type=Done)
    except msgspec.MsgspecError:
        return None
