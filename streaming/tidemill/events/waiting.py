"""How a worker waits for a broker or store: it tries again with growing pauses, says so once, and can be stopped."""

from collections.abc import Callable
from threading import Event
from typing import TypeVar

from prometheus_client import Gauge

from tidemill.core.errors import Transient
from tidemill.core.telemetry import REGISTRY, get_logger

__all__ = ["WAITING", "Stopped", "Waiting"]

_T = TypeVar("_T")
_log = get_logger(__name__)

WAITING = Gauge(
    "tidemill_waiting",
    "1 while a worker waits for a broker or store that does not answer.",
    ["worker"],
    registry=REGISTRY,
)
"""Set by `Waiting`, and by workers that begin anew instead of waiting."""
_FIRST_S, _LONGEST_S = 0.1, 5.0


class Stopped(Exception):
    """The end was asked for while something was waited for."""


class Waiting:
    """Tries actions until they succeed or `stop` is set.

    Args:
        worker: who waits, for logs and the gauge `tidemill_waiting`.
        stop: set by whoever wants the end.
    """

    def __init__(self, worker: str, stop: Event) -> None:
        self._worker = worker
        self.stop = stop

    def until_done(self, action: Callable[[], _T], patient_with: tuple[type[Exception], ...] = (Transient,)) -> _T:
        """The action's result. Errors of `patient_with` are waited out, one log line at the start and one at the end.

        Raises `Stopped` where the end is asked for meanwhile, and at once whatever else the action raises.
        """
        pause, waited = _FIRST_S, False
        try:
            while True:
                try:
                    return action()
                except patient_with as error:
                    if not waited:
                        _log.error("waiting", worker=self._worker, reason=str(error))
                        WAITING.labels(self._worker).set(1)
                        waited = True
                    if self.stop.wait(pause):
                        raise Stopped(str(error)) from error
                    pause = min(2 * pause, _LONGEST_S)
        finally:
            if waited:
                _log.info("waited no longer", worker=self._worker)
                WAITING.labels(self._worker).set(0)
