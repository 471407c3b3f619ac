"""The control process: every model's loop, in turns, and nothing that one of them does stops the others."""

import threading
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

from tidemill.control import telemetry
from tidemill.control.protocols import Provisions, ResourceStore, StoredModel
from tidemill.control.state import LoopStatus
from tidemill.control.tick import Loop
from tidemill.core.clock import Clock
from tidemill.core.errors import Conflict, SpecError, TidemillError, Transient
from tidemill.core.telemetry import get_logger
from tidemill.spec.model import ContinualModel

__all__ = ["Service"]

_log = get_logger(__name__)

TICK_S = 0.25
"""Between two rounds. What a person or a pipeline step asks is answered within two of them."""
_WITHDRAW_EVERY_S = 2.0
_LONGEST_PAUSE_S = 10.0
_ROUND_S = 1.0
"""After so long a round leaves models at rest to the next one, which looks first at what has happened meanwhile."""


@dataclass
class _Model:
    """One model at work."""

    declared: tuple[ContinualModel, str | None] | None = None
    """Resource and code folder that the loop was made for."""
    loop: Loop | None = None
    provide_at: float = 0.0
    failures: int = 0
    due: float = 0.0
    """When its next turn is, on the monotonic clock."""
    busy: bool = False
    """Whether a run or a rollout was under way at its last turn."""


class Service:
    """Runs the loops of all models in a store. One thread.

    Args:
        store: the resources.
        ids: the ids of all models, those included whose resource cannot be read just now.
        provisioner: provides what models need.
        loop: makes the loop of a model; called again when its resource has changed.
        clock: tells the time.
        rest_s: seconds between two turns of a model with neither run nor rollout, unless it is woken.
        provide_every_s: seconds between two looks at what a model needs, unless it is woken.
        before: called before each turn, to pass on what people asked for beside the log.
        after: called after each turn with the status that it ended in.
        failed: called with the model's id after a turn that failed, and how.
        withdraws: whether a deleted model's runs and traffic are taken back here, or by the provisioner.
    """

    def __init__(
        self,
        store: ResourceStore,
        *,
        ids: Callable[[], Collection[str]],
        provisioner: Provisions,
        loop: Callable[[StoredModel], Loop],
        clock: Clock,
        rest_s: float = 0.0,
        provide_every_s: float = 5.0,
        before: Callable[[StoredModel], None] = lambda stored: None,
        after: Callable[[StoredModel, LoopStatus], None] = lambda stored, status: None,
        failed: Callable[[str, Exception], None] = lambda model, error: None,
        withdraws: bool = True,
    ) -> None:
        self._store = store
        self._ids = ids
        self._provisioner = provisioner
        self._loop = loop
        self._clock = clock
        self._rest_s, self._provide_every_s = rest_s, provide_every_s
        self._before, self._after = before, after
        self._failed, self._withdraws = failed, withdraws
        self._models: dict[str, _Model] = {}
        self._withdraw_at = 0.0
        self._woken: set[str] = set()
        self._waking = threading.Lock()

    def run(self, stop: threading.Event) -> None:
        """Go round until `stop` is set."""
        try:
            while not stop.is_set():
                self.round()
                stop.wait(TICK_S)
        finally:
            for model in self._models.values():
                _close(model)

    def wake(self, model: str) -> None:
        """Something about a model has changed: its next turn is in the next round. From any thread."""
        with self._waking:
            self._woken.add(model)

    def round(self) -> None:
        """One turn of every model that is due; what fails in one is logged, and tried again after a growing pause.

        First those of which something was seen to change, then those with a run or a rollout, then those that have
        waited longest, as many as there is time for, but one at least: a change is acted on soon, however many models
        there are, and none of them waits without end, however many are busy.
        """
        with self._waking:
            woken, self._woken = self._woken, set()
        now, due = self._clock.monotonic(), []
        for name in self._ids():
            model = self._models.setdefault(name, _Model())
            if name in woken:
                model.provide_at = 0.0
            # One that has failed waits, whoever wakes it: else a change of its own status would make it hot.
            called = name in woken and not model.failures
            if called or now >= model.due:
                due.append((not called, not model.busy, model.due, name))
        has_rested = False
        for later, rests, _, name in sorted(due):
            if later and rests:
                if has_rested and self._clock.monotonic() - now > _ROUND_S:
                    break
                has_rested = True
            self._turn(name, self._models[name])
        if self._clock.monotonic() >= self._withdraw_at:
            self._withdraw_at = self._clock.monotonic() + _WITHDRAW_EVERY_S
            self._withdraw()

    def _turn(self, name: str, model: _Model) -> None:
        try:
            stored = self._store.get(name)
            self._note(model, stored)
            # First what it needs: events are taken in even where nothing runs its pipeline or moves its traffic yet.
            if self._clock.monotonic() >= model.provide_at:
                self._provisioner.provide(stored)
                model.provide_at = self._clock.monotonic() + self._provide_every_s
            model.loop = loop = model.loop or self._loop(stored)
            self._before(stored)
            began = self._clock.monotonic()
            status = loop.tick()
            telemetry.tell(name, status)
            telemetry.tell_turn(name, self._clock.monotonic() - began)
            self._after(stored, status)
            model.failures = 0
            model.busy = status.run is not None or status.rollout is not None or bool(status.stopping)
            model.due = self._clock.monotonic() + (0.0 if model.busy else self._rest_s)
        except Conflict as error:
            self._pause(name, model)
            _log.info("someone else wrote first; again", model=name, reason=error.message)
        except TidemillError as error:
            self._pause(name, model)
            # A broker that restarts is no news, and a resource that is wrong only once; an error that lasts is.
            known = isinstance(error, SpecError) and model.failures > 1
            tell = _log.info if known or (isinstance(error, Transient) and model.failures < 3) else _log.error
            tell("a turn failed", model=name, error=error.message, failures=model.failures)
            self._failed(name, error)
        except Exception as error:
            self._pause(name, model)
            self._failed(name, error)
            _log.exception("a turn failed in a way that nobody foresaw", model=name, failures=model.failures)

    def _note(self, model: _Model, stored: StoredModel) -> None:
        """Let go of the loop, and provide anew, where the resource or the code folder has changed."""
        declared = (stored.resource, stored.code)
        if model.declared != declared:
            _close(model)
            model.declared, model.provide_at = declared, 0.0

    def _pause(self, name: str, model: _Model) -> None:
        # Not all at once: what failed for many is asked again by each at a time of its own.
        spread = 0.75 + 0.5 * zlib.crc32(name.encode()) / 2**32
        pause = spread * min(_LONGEST_PAUSE_S, TICK_S * 2**model.failures)
        model.failures += 1
        telemetry.tell_failures(name, model.failures)
        model.due = self._clock.monotonic() + pause

    def _withdraw(self) -> None:
        """Take back what was provided for models that are gone."""
        ids = set(self._ids())
        for name in self._models.keys() - ids:
            _log.info("the model was deleted: its processes end, its data stay", model=name)
            model = self._models.pop(name)
            telemetry.forget(name)
            try:
                if model.loop is not None and self._withdraws:
                    model.loop.withdraw()
                _close(model)
            except TidemillError as error:
                _log.warning("not all of a deleted model could be taken back", model=name, error=error.message)
            except Exception:  # of one model: the others are not to end with it
                _log.exception("a deleted model failed in a way that nobody foresaw", model=name)
        self._provisioner.withdraw(ids)


def _close(model: _Model) -> None:
    loop, model.loop = model.loop, None
    if loop is not None:
        loop.close()
