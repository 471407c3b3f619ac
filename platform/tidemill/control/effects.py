"""What follows from the status: runs, aliases and traffic are made so, as often as it takes.

Every effect is level-triggered: it compares what is wanted with what is there and may be repeated after a crash
at any line. One that fails does not keep the others from taking place; the next tick tries it again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from tidemill.control.protocols import PipelineRunner
from tidemill.control.state import LoopStatus, Run
from tidemill.control.turn import Observed
from tidemill.core.errors import TidemillError
from tidemill.core.telemetry import get_logger
from tidemill.registry import Alias, Registry
from tidemill.rollout.driver import TrafficDriver

__all__ = ["Effects", "run_parameters"]

_log = get_logger(__name__)


def run_parameters(model: str, run: Run) -> dict[str, str | bool]:
    """The pipeline's parameters for this run."""
    asked: dict[str, str | bool] = {"model": model, "reason": run.reason}
    asked |= {"force": run.force, "skip_gates": run.skip_gates}
    # What is empty is left to the pipeline's defaults.
    return asked | {name: text for name, text in (("snapshot", run.snapshot), ("image", run.image)) if text}


@dataclass
class Effects:
    """Brings one model's surroundings in line with its status."""

    model: str
    runner: PipelineRunner
    driver: TrafficDriver
    registry: Registry
    _aliases: dict[Alias, str] | None = field(default=None, init=False)
    """The aliases as they are known to stand; None: not read yet."""

    def apply(self, status: LoopStatus, observed: Observed) -> tuple[str, ...]:
        """Do what is to be done; returns what could not be, in words."""
        effects: dict[str, Callable[[LoopStatus, Observed], None]] = {
            "traffic": self._move_traffic,
            "aliases": self._set_aliases,
            "run": self._start_run,
            "runs": self._end_runs,
        }
        troubles = []
        for name, effect in effects.items():
            try:
                effect(status, observed)
            except TidemillError as error:
                _log.warning("an effect will be tried again", model=self.model, effect=name, error=error.message)
                troubles.append(f"{name}: {error.message}")
        return (*troubles, *_told_of_traffic(status, observed))

    def _move_traffic(self, status: LoopStatus, observed: Observed) -> None:
        self.driver.apply(status.traffic)

    def _set_aliases(self, status: LoopStatus, observed: Observed) -> None:
        places = {"champion": status.champion, "candidate": status.candidate, "previous": status.previous}
        wanted: dict[Alias, str | None] = {alias: found.version if found else None for alias, found in places.items()}  # type: ignore[misc]
        if self._aliases is None:
            self._aliases = self.registry.aliases(self.model)
        for alias, version in wanted.items():
            if self._aliases.get(alias) == version:
                continue
            self.registry.set_alias(self.model, alias, version)
            if version is None:
                self._aliases.pop(alias, None)
            else:
                self._aliases[alias] = version

    def _start_run(self, status: LoopStatus, observed: Observed) -> None:
        run = status.run
        if run is None or not run.ours or run.seen or run.grant is not None:
            return
        if observed.runs is not None and all(seen.run != run.run for seen in observed.runs):
            self.runner.start(run.run, run_parameters(self.model, run))

    def _end_runs(self, status: LoopStatus, observed: Observed) -> None:
        """End the runs that lost their right, and forget those that are over."""
        in_flight = status.run.run if status.run else None
        for seen in observed.runs or ():
            over = seen.state in {"succeeded", "failed"} and seen.run != in_flight
            if over or seen.run in status.stopping:
                self.runner.stop(seen.run)


def _told_of_traffic(status: LoopStatus, observed: Observed) -> list[str]:
    """What the driver says of the split that people must know, beside the shares."""
    seen, told = observed.traffic, []
    if seen is not None and seen.foreign:
        told.append(f"traffic: {seen.foreign}. It stands until it is taken back, or the next decision moves traffic")
    if seen is not None and seen.unguarded and status.rollout is not None:
        told.append(f"guards: {seen.unguarded}")
    return told
