"""The adapter of `tidemill health`: asks the processes of a model for their metrics, all at once."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import Unavailable
from tidemill.core.exposition import Metrics, Told, metrics_told, read_metrics
from tidemill.stack.supervisor import ProcessSeen
from tidemill.watch.health import Process, Scrape

__all__ = ["scrape"]

_SHARED = ("up", "control", "feedback")
_WORKERS = ("ingest", "outcomes", "watch", "alerts")


def scrape(state: Path, model: str, seen: Sequence[ProcessSeen], clock: Clock) -> Scrape:
    """What the processes of a model, and those that serve all models, tell now.

    Each has its own deadline, so a process that hangs delays the others by two seconds at most; it is among the
    result all the same.

    Args:
        state: the state folder, where processes note their addresses.
        model: id of the model.
        seen: the processes as their supervisor has them; without one, those count that noted an address.
        clock: the time.
    """
    told = {one.process: one for one in metrics_told(state) if one.model in {"", model}}
    children = {one.name: one for one in seen}
    names = told if not children else {name for name in children if name in told or _role(name, model)} | {"up"}
    found = sorted(name for name in names if name != "up" or name in told)
    asked = {name: told[name] for name in found if name in told and _is_of(told[name], children.get(name))}
    answers = _ask(asked)
    return Scrape(
        to_ms(clock.now()) / 1000,
        tuple(_process(name, model, told.get(name), children.get(name), answers.get(name)) for name in found),
    )


def _process(name: str, model: str, told: Told | None, seen: ProcessSeen | None, metrics: Metrics | None) -> Process:
    role = (told.role if told is not None else "") or _role(name, model)
    return Process(name, role, metrics, seen.state if seen else "", seen.restarts if seen else 0)


def _is_of(told: Told, seen: ProcessSeen | None) -> bool:
    """Whether the address is that of the process that runs now, and not of the one before it."""
    return seen is None or seen.pid == told.pid


def _role(name: str, model: str) -> str:
    """The role of a process that has not told it yet; "" of one that has none, or is another model's."""
    if name in _SHARED:
        return name
    role = name.removeprefix(f"{model}-") if name.startswith(f"{model}-") else ""
    if role.startswith("serve-"):
        return "serve"
    return role if role in _WORKERS else ""


def _ask(processes: Mapping[str, Told]) -> dict[str, Metrics | None]:
    if not processes:
        return {}
    with ThreadPoolExecutor(len(processes), "scrape") as pool:
        return dict(zip(processes, pool.map(_read, _addresses(processes.values())), strict=True))


def _addresses(told: Iterable[Told]) -> list[str]:
    return [one.address for one in told]


def _read(address: str) -> Metrics | None:
    try:
        return read_metrics(address)
    except (Unavailable, ValueError):  # it has ended, or what answers there now is something else
        return None
