"""Partitions that are not read for now, because most of what came was bad (`tidemill.ingest.guard`)."""

from collections.abc import Collection, Hashable
from typing import Any, Protocol

from tidemill.core.clock import Clock
from tidemill.core.telemetry import get_logger
from tidemill.ingest.guard import Stop
from tidemill.ingest.telemetry import STOPPED

__all__ = ["Halts", "Partition"]

_log = get_logger(__name__)

TRY_AGAIN_S = 15.0
"""How long a partition is left alone; then its share is taken again, with what came meanwhile."""


class Partition(Hashable, Protocol):
    """What is known of a Kafka partition here."""

    partition: int


class Halts:
    """Holds partitions still, with an alarm, and lets them be tried again.

    Args:
        consumer: whose partitions they are.
        model: id of the model, for the alarm.
        clock: tells when to try again.
    """

    def __init__(self, consumer: Any, model: str, clock: Clock) -> None:
        self._consumer = consumer
        self._model = model
        self._clock = clock
        self._until: dict[Any, float] = {}

    def stop(self, tp: Partition, offset: int, why: Stop) -> None:
        """Leave a partition at this offset: nothing of what was read of it is written."""
        self._consumer.pause(tp)
        self._consumer.seek(tp, offset)
        if tp not in self._until:
            _log.error(
                f"stopped reading: {why.share:.0%} of the newest {why.of} records are bad, more than "
                "events.quarantine.stopAbove; change the resource, or what is sent",
                model=self._model,
                partition=tp.partition,
                offset=offset,
                most=why.reason,
            )
            STOPPED.labels(self._model, str(tp.partition)).set(1)
        self._until[tp] = self._clock.monotonic() + TRY_AGAIN_S

    def try_again(self) -> None:
        """Read those again whose time has come."""
        now, paused = self._clock.monotonic(), self._consumer.paused()
        for tp, until in self._until.items():
            if until <= now and tp in paused:
                self._consumer.resume(tp)

    def end(self, partitions: Collection[Any] | None = None) -> None:
        """These (default: all) are read again, or by another worker."""
        for tp in tuple(self._until) if partitions is None else self._until.keys() & set(partitions):
            del self._until[tp]
            STOPPED.remove(self._model, str(tp.partition))
            _log.info("no longer stopped here", model=self._model, partition=tp.partition)

    def keep_only(self, partitions: Collection[Any]) -> None:
        """Others have gone to another worker."""
        self.end(self._until.keys() - set(partitions))
