"""What to do about processes: purely, from what is wanted, what runs, and the time."""

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tidemill.stack.supervisor import ProcessSeen, ProcessState, ProcessWanted

__all__ = [
    "Action",
    "Child",
    "Forget",
    "Signal",
    "Start",
    "after_end",
    "after_signal",
    "after_start",
    "as_seen",
    "reconcile",
]

FIRST_PAUSE_S = 0.25
"""Pause before a service that has ended is started again; it doubles with each end in a row."""
LONGEST_PAUSE_S = 30.0
SETTLED_S = 60.0
"""A service that ran this long was well: its next end is the first of a new row."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process that was started at least once, as its supervisor knows it. Times are monotonic seconds."""

    wanted: ProcessWanted
    pid: int | None
    started_at: float
    ready: bool = False
    restarts: int = 0
    ends_in_a_row: int = 0
    exit_status: int | None = None
    again_at: float = 0.0
    ending_since: float | None = None
    killed: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Start the process; `after` is the ended child of the same process that it follows, if this is a restart."""

    wanted: ProcessWanted
    after: Child | None = None


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to the process and all that it started."""

    name: str
    number: signal.Signals


@dataclass(frozen=True, slots=True)
class Forget:
    """The process is neither wanted nor there."""

    name: str


Action = Start | Signal | Forget


def reconcile(wanted: Mapping[str, ProcessWanted], children: Mapping[str, Child], now: float) -> tuple[Action, ...]:
    """The actions that bring `children` one step closer to `wanted`. Applying them and asking again is safe."""
    return tuple(_reconcile(wanted, children, now))


def after_start(action: Start, pid: int | None, now: float) -> Child:
    """The child once its process runs; without a `ready` URL it is ready at once."""
    wanted, before = action.wanted, action.after
    if before is None:
        return Child(wanted, pid, now, ready=wanted.ready is None)
    return replace(before, pid=pid, started_at=now, ready=wanted.ready is None, restarts=before.restarts + 1)


def after_end(child: Child, exit_status: int, now: float) -> Child:
    """The child once its process has ended."""
    in_a_row = 1 if now - child.started_at >= SETTLED_S else child.ends_in_a_row + 1
    pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(in_a_row - 1, 16))
    return replace(
        child,
        pid=None,
        ready=False,
        exit_status=exit_status,
        ends_in_a_row=in_a_row,
        again_at=now + pause,
        ending_since=None,
        killed=False,
    )


def after_signal(child: Child, number: signal.Signals, now: float) -> Child:
    """The child once it was sent a signal to end."""
    if number == signal.SIGKILL:
        return replace(child, killed=True)
    return replace(child, ending_since=now)


def as_seen(child: Child, log: str) -> ProcessSeen:
    """The child as others see it."""
    return ProcessSeen(
        name=child.wanted.name,
        state=_state(child),
        pid=child.pid,
        restarts=child.restarts,
        exit_status=child.exit_status,
        log=log,
    )


def _state(child: Child) -> ProcessState:
    if child.ending_since is not None:
        return "ending"
    if child.pid is not None:
        return "ready" if child.ready else "starting"
    return "ended" if child.wanted.kind == "task" else "failing"


def _reconcile(wanted: Mapping[str, ProcessWanted], children: Mapping[str, Child], now: float) -> Iterator[Action]:
    for name, child in children.items():
        if child.pid is not None:
            yield from _running(wanted.get(name), child, now)
        elif name not in wanted:
            yield Forget(name)
    for name, process in wanted.items():
        found = children.get(name)
        if found is None or (found.pid is None and found.wanted != process):
            yield Start(process)
        elif found.pid is None and process.kind == "service" and now >= found.again_at:
            yield Start(process, found)


def _running(wanted: ProcessWanted | None, child: Child, now: float) -> Iterator[Action]:
    if child.ending_since is None:
        if wanted != child.wanted:
            yield Signal(child.wanted.name, signal.SIGTERM)
    elif not child.killed and now - child.ending_since >= child.wanted.grace_s:
        yield Signal(child.wanted.name, signal.SIGKILL)
