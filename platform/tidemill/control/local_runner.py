"""The pipeline runner of one machine: each run is a task of the supervisor that executes the compiled pipeline.

The task writes how far it is to its state file (`tidemill.control.runs`); the supervisor knows whether it lives.
What a run shows is both together: a process that ended without having said that it is over has failed.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tidemill.control.protocols import RunSeen
from tidemill.control.runs import read_run, run_folder
from tidemill.stack.supervisor import ProcessSeen, ProcessSupervisor, ProcessWanted

__all__ = ["LocalRunner"]

_COMMAND = (sys.executable, "-m", "tidemill.retrain.local")
_OVER = frozenset({"succeeded", "failed"})


class LocalRunner:
    """Runs of one model as child processes; implements `PipelineRunner`.

    A run is shown until it is stopped, which for one that is over means that it is forgotten. Its folder stays.
    """

    def __init__(
        self,
        supervisor: ProcessSupervisor,
        *,
        state: Path,
        model: str,
        code: str | None = None,
        command: tuple[str, ...] = _COMMAND,
    ) -> None:
        """Run for `model`.

        Args:
            supervisor: who holds the processes.
            state: the installation's state folder.
            model: the model's id.
            code: folder of the user's classes.
            command: what a run executes, before its arguments.
        """
        self._supervisor = supervisor
        self._state = state
        self._model = model
        self._code = code
        self._command = command

    def start(self, run: str, parameters: Mapping[str, str | bool]) -> None:
        """Start the run unless it exists; returns at once."""
        seen = read_run(run_folder(self._state, self._model, run))
        if seen is not None and seen.state in _OVER:
            return
        arguments = ("--run", run, "--model", self._model, "--parameters", json.dumps(dict(parameters), sort_keys=True))
        env = {"TIDEMILL_RUN": run} | ({"PYTHONPATH": self._code} if self._code else {})
        self._supervisor.want(
            ProcessWanted(name=self._process(run), argv=(*self._command, *arguments), env=env, kind="task")
        )

    def observe(self) -> Sequence[RunSeen]:
        """The runs that are not forgotten yet, ordered by name."""
        prefix = self._process("")
        return [
            self._seen(process.name.removeprefix(prefix), process)
            for process in self._supervisor.observe()
            if process.name.startswith(prefix) and process.state != "ending"
        ]

    def stop(self, run: str) -> None:
        """End a run and forget it; ending one that is over or unknown is no error."""
        self._supervisor.unwant(self._process(run))

    def _process(self, run: str) -> str:
        # A model's id has exactly one dot, so that no model's runs look like those of another.
        return f"{self._model}.{run}"

    def _seen(self, run: str, process: ProcessSeen) -> RunSeen:
        told = read_run(run_folder(self._state, self._model, run)) or RunSeen(run=run, state="pending")
        if told.state in _OVER or process.state != "ended":
            return told
        error = f"its process ended with exit status {process.exit_status}; see {process.log}"
        return msgspec.structs.replace(told, state="failed", error=told.error or error)
