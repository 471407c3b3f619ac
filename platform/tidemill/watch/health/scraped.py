"""What a model's processes told at two moments: values now, and what was added between them. Pure."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tidemill.core.exposition import Metrics

__all__ = ["ENOUGH", "Look", "Process", "Scrape", "Share"]

ENOUGH = 20
"""Cases from which a share is of those between the two moments; of fewer, it is of all since the process began."""


@dataclass(frozen=True)
class Process:
    """One process: who it is, how its supervisor sees it, and what it told."""

    name: str
    role: str
    metrics: Metrics | None = None
    """None: it did not answer."""
    state: str = ""
    """As its supervisor has it; empty where there is none."""
    restarts: int = 0


@dataclass(frozen=True)
class Scrape:
    """All processes at one moment (seconds since 1970)."""

    at: float
    processes: Sequence[Process] = ()


@dataclass(frozen=True)
class Share:
    """A share, how many cases it is of, and of when they are."""

    value: float
    of: float
    when: str


class Look:
    """Reads two scrapes. Series of a role's processes are added up; what nobody told is None, never 0.

    A role may also be the name of one process.

    Args:
        now: the newer scrape.
        before: the older one, if there is one.
        model: id of the model; series with another model's label are left out.
    """

    def __init__(self, now: Scrape, before: Scrape | None, model: str) -> None:
        self.now, self._model = now, model
        self._before = {one.name: one for one in before.processes} if before is not None else {}
        self.seconds = now.at - before.at if before is not None else 0.0

    def value(self, role: str, name: str, **labels: str) -> float | None:
        """The sum of the series that have these labels, now."""
        return _sum(value for one in self._of(role) for _, value in self._series(one, name, labels))

    def most(self, role: str, name: str, **labels: str) -> float | None:
        """The largest of them."""
        values = [value for one in self._of(role) for _, value in self._series(one, name, labels)]
        return max(values) if values and not any(map(math.isnan, values)) else None

    def each(self, role: str, name: str, label: str) -> dict[str, float]:
        """The sum by a label's value, now."""
        found: dict[str, float] = {}
        for one in self._of(role):
            for labels, value in self._series(one, name, {}):
                found[labels.get(label, "")] = found.get(labels.get(label, ""), 0.0) + value
        return found

    def added(self, role: str, name: str, **labels: str) -> float | None:
        """What counters grew by between the scrapes; one that began anew has grown by what it holds."""
        return _sum(
            _growth(now, before)
            for one in self._of(role)
            for now, before in [self._both(one, name, labels)]
            if now is not None and before is not None
        )

    def rate(self, role: str, name: str, **labels: str) -> float | None:
        """That a second."""
        added = self.added(role, name, **labels)
        return None if added is None or self.seconds <= 0 else added / self.seconds

    def share(self, role: str, part: tuple[str, Mapping[str, str]], *whole: str) -> Share | None:
        """The part of a counter in others: between the scrapes where that are `ENOUGH` cases, else of all so far.

        A part that was never counted is 0. None where there are no cases at all.
        """
        name, labels = part
        recent = _sum(self.added(role, one) for one in whole)
        if recent is not None and recent >= ENOUGH:
            return Share((self.added(role, name, **labels) or 0.0) / recent, recent, f"in {self.seconds:.0f} s")
        total = _sum(self.value(role, one) for one in whole)
        if not total:
            return None
        return Share((self.value(role, name, **labels) or 0.0) / total, total, "since it began")

    def quantile(self, role: str, name: str, q: float) -> Share | None:
        """An upper bound of a histogram's quantile, likewise; infinite beyond its last bucket."""
        recent = self.added(role, f"{name}_count")
        is_recent = recent is not None and recent >= ENOUGH
        total = recent if is_recent else self.value(role, f"{name}_count")
        if not total:
            return None
        when = f"in {self.seconds:.0f} s" if is_recent else "since it began"
        bounds = sorted(self.each(role, f"{name}_bucket", "le"), key=float)
        read = self.added if is_recent else self.value
        for bound in bounds:
            if (read(role, f"{name}_bucket", le=bound) or 0.0) >= q * total:
                return Share(float(bound), total, when)
        return None

    def silent(self, role: str) -> str | None:
        """Why a role cannot have told anything; None where it answers."""
        found = self._of(role)
        if not found:
            return f"no process of the role {role} is there"
        return None if any(one.metrics is not None for one in found) else f"{role} does not answer"

    def _of(self, role: str) -> list[Process]:
        return [one for one in self.now.processes if role in {one.role, one.name}]

    def _series(
        self, process: Process, name: str, wanted: Mapping[str, str]
    ) -> Iterator[tuple[Mapping[str, str], float]]:
        for labels, value in (process.metrics or {}).get(name, ()):
            if labels.get("model", self._model) == self._model and wanted.items() <= labels.items():
                yield labels, value

    def _both(self, process: Process, name: str, wanted: Mapping[str, str]) -> tuple[float | None, float | None]:
        before = self._before.get(process.name)
        then = None if before is None else _sum(value for _, value in self._series(before, name, wanted))
        return _sum(value for _, value in self._series(process, name, wanted)), then


def _growth(now: float, before: float) -> float:
    return now - before if now >= before else now


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum; None of nothing, and where one of them is not known."""
    found = [math.nan if value is None else value for value in values]
    total = sum(found)
    return total if found and not math.isnan(total) else None
