"""The process seam: which processes are to run. On one machine they are children of `tidemill up`.

Wanted processes are files, one JSON each, in `<state>/processes/wanted/`; what runs is told in
`<state>/processes/seen/`. So control, its drivers and a person at the shell ask in the same way, nobody
holds a child but the one supervisor, and a restart of any of them loses nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

__all__ = ["ProcessSeen", "ProcessState", "ProcessSupervisor", "ProcessWanted"]

ProcessState = Literal["starting", "ready", "ended", "failing", "ending"]
"""`failing`: a service that ended and waits to be started again. `ending`: no longer wanted, not gone yet.
`ended`: a task that is over."""


class ProcessWanted(msgspec.Struct, frozen=True, kw_only=True):
    """One process to run.

    `kind` `service` is started again, with a growing pause, whenever it ends; `task` runs once and its exit
    status is kept. A change of any field replaces the process. `ready` is a URL that answers 200 once the
    process is ready, or `tcp://host:port` or `unix://path` that accepts a connection (None: ready as soon as
    it runs).
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = {}
    kind: Literal["service", "task"] = "service"
    ready: str | None = None
    grace_s: float = 10.0
    """Seconds between SIGTERM and SIGKILL."""


class ProcessSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One process as it stands. `exit_status` is that of the last end; negative is a signal."""

    name: str
    state: ProcessState
    pid: int | None = None
    restarts: int = 0
    exit_status: int | None = None
    log: str = ""
    """Path of its log file."""


class ProcessSupervisor(Protocol):
    """Asks for processes and tells how they are."""

    def want(self, process: ProcessWanted) -> None:
        """State that a process is to run; the same call twice changes nothing the second time."""
        ...

    def unwant(self, name: str) -> None:
        """State that it is no longer to run; it is ended gracefully. Unknown names are no error."""
        ...

    def observe(self) -> Sequence[ProcessSeen]:
        """All processes wanted or still ending, ordered by name."""
        ...
