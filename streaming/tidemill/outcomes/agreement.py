"""The figures of label quality on `.outcomes`, beside the worker's loop: one record a period, from the lake.

At each full period of the clock (every five minutes: 12:00, 12:05, …) a thread reads the labels that arrived in the
week before it, and appends one `LabelAgreement`. It waits first until the rows that arrived by then are in the lake,
so that a record follows from the log alone; a worker that is started again at that moment may append it again, with
the same id. A period that passes while figures are still made, or while no worker runs, has none.

Cost: at most 5 % of the time, however large the lake: after figures that took long, periods are left out. With a
million labels and as many predictions in the lake, 3 s of one core, and 340 MB at the
peak, half of it cleanlab's libraries.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Thread

from tidemill.core.clock import Clock, from_ms, to_ms
from tidemill.core.errors import NotFound, TidemillError
from tidemill.core.telemetry import get_logger
from tidemill.events.kafka import RecordWriter
from tidemill.events.records import LabelAgreement, Topics
from tidemill.labels.agreement import agreement
from tidemill.labels.likely_errors import weigh
from tidemill.labels.words import judged_field, read_said
from tidemill.spec.model import ContinualModel

__all__ = ["EVERY", "SPAN", "AgreementTeller", "figures"]

EVERY = timedelta(minutes=5)
SPAN = timedelta(days=7)

_MOST = 100_000
"""Labels that are read at most, the newest: the worker has other use for its memory."""

_SETTLED = timedelta(seconds=15)
"""How long after a period its labels are surely in the lake, where the worker keeps up with the log."""
_SHARE = 0.05

_log = get_logger(__name__)


class AgreementTeller:
    """Tells the figures when they are due, in a thread beside the worker.

    Args:
        resource: the model.
        kafka: bootstrap servers.
        lake: folder or URI of the lake.
        clock: the time.
        ready: asked once a period, on the caller's thread: whether the worker has noted how far it judged. Before that
            `.outcomes` must stay empty: a worker that finds records there and no note of them refuses to begin.
        every: the period.
        write: where a record goes (default: to `.outcomes`); returns when it is safe.
    """

    def __init__(
        self,
        resource: ContinualModel,
        *,
        kafka: str,
        lake: str,
        clock: Clock,
        ready: Callable[[], bool] = lambda: True,
        every: timedelta = EVERY,
        write: Callable[[LabelAgreement], None] | None = None,
    ) -> None:
        self._resource, self._kafka, self._lake, self._clock, self._every = resource, kafka, lake, clock, every
        self._ready, self._write = ready, write or self._produce
        self._told = self._period()
        self._rest_until = clock.monotonic()
        self._thread: Thread | None = None

    def begin_if_due(self) -> None:
        """Begin to tell the last full period, unless that is done or under way. Raises what `ready` does."""
        if self._thread is not None and self._thread.is_alive():
            return
        period = self._period()
        if period == self._told or self._clock.monotonic() < self._rest_until:
            return
        self._told = period
        if not self._ready():
            return
        self._thread = Thread(target=self.tell, args=(period,), name="agreement", daemon=True)
        self._thread.start()

    def tell(self, period: int) -> None:
        """Write the figures of one period; what fails is logged, and the next period comes anyway."""
        begun = self._clock.monotonic()
        through = from_ms(period * self._every_ms)
        try:
            self._write(figures(self._resource, self._lake, through))
        except NotFound:  # no label yet
            return
        except TidemillError as error:
            _log.warning("agreement was not told", model=self._resource.id, reason=error.message)
        finally:
            done = self._clock.monotonic()
            self._rest_until = done + (done - begun) / _SHARE

    def close(self, timeout_s: float = 5.0) -> None:
        """Wait a moment for figures under way; what takes longer is left to end with the process."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    @property
    def _every_ms(self) -> int:
        return to_ms(self._every)

    def _period(self) -> int:
        """The last full period whose labels are in the lake."""
        return to_ms(self._clock.now() - _SETTLED) // self._every_ms

    def _produce(self, record: LabelAgreement) -> None:
        topics = Topics(self._resource.id, self._resource.events_topic, self._resource.labels_topic)
        with RecordWriter(self._kafka, client_id=f"{self._resource.id}.outcomes.agreement") as writer:
            writer.send(topics.outcomes, record)
            writer.flush()


def figures(resource: ContinualModel, lake: str, through: datetime) -> LabelAgreement:
    """The figures over the labels that arrived in the week before `through`, of them the newest 100,000.

    A function of the lake's rows and of `through`. Raises `NotFound` where there are no labels, or `Unavailable`.
    """
    field = judged_field(resource)
    since = through - SPAN
    said = read_said(lake, resource, field, since=since, until=through, most=_MOST)
    if not said.read:
        raise NotFound(f"no label of {resource.id} arrived in the {SPAN.days} days before {through.isoformat()}")
    labels = resource.spec.labels
    # What a version answers has been learnt, whether anyone has declared it or not.
    answered = said.opinions["answer"].drop_nulls().unique().sort()
    classes = tuple(dict.fromkeys((*resource.spec.prediction.classes, *answered)))
    found, weighed = agreement(said, classes, labels.min_agreement), weigh(said, classes, most=0)
    return LabelAgreement(
        agreement_id=f"{resource.id}/agreement/{field.name}/{to_ms(through)}",
        model=resource.id,
        since=to_ms(since),
        through=to_ms(through),
        field=field.name,
        alpha=found.alpha,
        labels=found.labels,
        compared=found.compared,
        min_agreement=labels.min_agreement,
        trusted=found.trusted,
        verdict=found.verdict,
        classes={one.name: one.alpha for one in found.classes if one.alpha is not None},
        reliability=weighed.reliability,
        new_classes=found.new_classes,
    )
