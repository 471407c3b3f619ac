"""A process supervisor without processes: tests say when one is ready and how it ends."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from tidemill.core.errors import InvalidInput
from tidemill.stack.plan import Child, Start, after_end, after_start, as_seen
from tidemill.stack.supervisor import ProcessSeen, ProcessWanted

__all__ = ["SupervisorDouble"]


class SupervisorDouble:
    """Implements `ProcessSupervisor` in memory. What is wanted starts at once; what is unwanted is gone at once.

    Args:
        ready: whether a process with a `ready` URL is ready as soon as it starts; otherwise `become_ready` says so.
    """

    def __init__(self, *, ready: bool = True) -> None:
        self._ready = ready
        self._pids = count(1000)
        self._children: dict[str, Child] = {}

    @property
    def wanted(self) -> dict[str, ProcessWanted]:
        """What is wanted now, by name."""
        return {name: child.wanted for name, child in self._children.items()}

    def want(self, process: ProcessWanted) -> None:
        """Start it, or replace it where it differs."""
        if not process.name or "/" in process.name or process.name[0] == ".":
            raise InvalidInput(f"{process.name!r} cannot name a process")
        found = self._children.get(process.name)
        if found is None or found.wanted != process:
            self._start(Start(process))

    def unwant(self, name: str) -> None:
        """Forget it."""
        self._children.pop(name, None)

    def observe(self) -> Sequence[ProcessSeen]:
        """All processes, ordered by name."""
        return [as_seen(self._children[name], f"{name}.log") for name in sorted(self._children)]

    def become_ready(self, name: str) -> None:
        """Its `ready` URL answers."""
        self._children[name] = replace(self._children[name], ready=True)

    def end(self, name: str, exit_status: int = 0) -> None:
        """It ends by itself. A service is started again at once, a task stays ended."""
        child = after_end(self._children[name], exit_status, now=0.0)
        self._children[name] = child
        if child.wanted.kind == "service":
            self._start(Start(child.wanted, child))

    def _start(self, action: Start) -> None:
        child = after_start(action, next(self._pids), now=0.0)
        self._children[action.wanted.name] = replace(child, ready=child.ready or self._ready)
