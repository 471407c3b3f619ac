"""The outcomes worker of a run: started, killed, stopped, and what its topic says."""

import os
import sys
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM

from benchmarks.faults.site import Site

from tidemill.core.settings import environment
from tidemill.events.kafka import RecordReader
from tidemill.events.records import Outcome
from tidemill.stack.launch import Process, signal_group, spawn

__all__ = ["OutcomeWorker", "all_outcomes"]

_TAKING_IN = "taking in predictions"


class OutcomeWorker:
    """One process of `tidemill outcomes`."""

    def __init__(self, site: Site, number: int) -> None:
        self._log = site.folder / f"outcomes-{number}.log"
        argv = [sys.executable, "-m", "tidemill.cli", "outcomes", "--resource", str(site.resource_file)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
        self._process: Process = spawn(argv, log=self._log, env=kept | environment(site.settings))

    @property
    def works(self) -> bool:
        """Whether it has begun to take in records."""
        return _TAKING_IN in self._log.read_text()

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """SIGKILL."""
        signal_group(self._process.pid, SIGKILL)
        self._process.wait(10)

    def hold(self) -> None:
        """Stop it where it is: it does not know that time goes on."""
        signal_group(self._process.pid, SIGSTOP)

    def let_go(self) -> None:
        """Let it go on."""
        signal_group(self._process.pid, SIGCONT)

    def end(self) -> int:
        """Ask it to end; its exit status."""
        signal_group(self._process.pid, SIGTERM)
        return self._process.wait(60)

    def told(self) -> str:
        """The end of its log."""
        return self._log.read_text()[-2000:]


def all_outcomes(site: Site) -> list[Outcome]:
    """All that was written, in order."""
    found: list[Outcome] = []
    with RecordReader(site.bootstrap, site.topics.outcomes, Outcome) as reader:
        while not reader.at_end():
            found += [stamped.record for stamped in reader.poll(5000, 0.2)]
    return found
