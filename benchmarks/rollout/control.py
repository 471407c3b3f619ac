"""The real control with the real traffic driver: `python -m benchmarks.rollout.control READY_WITHIN_S`.

A candidate is waited for as long as is said, not five minutes. Runs and registry have no part in a rollout, and the
workers of the model are not started. Killed, it keeps nothing.
"""

import sys

from benchmarks.faults.control_worker import go_round

from tidemill.registry import Alias
from tidemill.rollout import machine
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.runner import ScriptedRunner

__all__: list[str] = []


class Unregistered(MemoryRegistry):
    """Knows no version, and takes any alias."""

    def set_alias(self, model: str, alias: Alias, version: str | None) -> None:
        """Forget it."""


if __name__ == "__main__":
    machine.READY_WITHIN_MS = int(sys.argv[1]) * 1000
    go_round(
        runner=lambda wiring, stored: ScriptedRunner(),
        driver=lambda wiring, stored: wiring.driver(stored),
        registry=lambda wiring: Unregistered(wiring.clock),
    )
