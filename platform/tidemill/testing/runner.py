"""A pipeline runner whose runs do what a test says."""

from collections.abc import Mapping, Sequence

from tidemill.control.protocols import RunSeen
from tidemill.core.errors import Unavailable

__all__ = ["ScriptedRunner"]


class ScriptedRunner:
    """Runs that stay pending until `show` says otherwise; implements `PipelineRunner`.

    `started` holds the parameters of each run by its name, `stopped` the runs that were ended, and while
    `available` is False every call fails.
    """

    def __init__(self) -> None:
        self.started: dict[str, dict[str, str | bool]] = {}
        self.stopped: list[str] = []
        self.available = True
        self._runs: dict[str, RunSeen] = {}

    def start(self, run: str, parameters: Mapping[str, str | bool]) -> None:
        """Start the run unless it exists."""
        self._answer()
        if run not in self.started:
            self.started[run] = dict(parameters)
            self._runs[run] = RunSeen(run=run, state="pending")

    def observe(self) -> Sequence[RunSeen]:
        """The runs that are not forgotten yet."""
        self._answer()
        return [self._runs[run] for run in sorted(self._runs)]

    def stop(self, run: str) -> None:
        """End a run and forget it."""
        self._answer()
        if self._runs.pop(run, None) is not None:
            self.stopped.append(run)

    def show(self, seen: RunSeen) -> None:
        """From now on the run is shown like this; one that was not started here was started by others."""
        self._runs[seen.run] = seen

    def lose(self, run: str) -> None:
        """The run vanishes without a trace."""
        self._runs.pop(run, None)

    def _answer(self) -> None:
        if not self.available:
            raise Unavailable("the pipeline runner does not answer")
