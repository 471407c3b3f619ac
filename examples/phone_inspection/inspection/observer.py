"""Watches the loop from outside while the story goes on; it reads, and asks for nothing."""

import threading
from collections.abc import Callable
from typing import Any

import psutil

from tidemill.control.protocols import StoredModel
from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import NotFound, TidemillError
from tidemill.events.kafka import RecordReader
from tidemill.events.records import Decision, Record, Signal, Sketch, Topics
from tidemill.wiring import Local

from .recording import Recording

__all__ = ["Observer", "resident_memory"]

_EVERY_S = 0.15
_MEMORY_EVERY_S = 1.0


class Observer:
    """Reads `.decisions`, `.signals`, `.sketches`, the proxy's weights and the run's step into a recording.

    Args:
        machine: where to look.
        topics: of the model.
        recording: filled.
        clock: when something was seen.
        pid: of `tidemill up`, whose processes' memory is measured.
    """

    def __init__(self, machine: Local, topics: Topics, recording: Recording, clock: Clock, pid: int) -> None:
        self._machine, self._topics, self._recording, self._clock, self._pid = machine, topics, recording, clock, pid
        self._stop = threading.Event()
        self._readers: dict[str, RecordReader[Any]] = {}
        self._threads = [
            threading.Thread(target=self._often, args=(target, every), name=name, daemon=True)
            for name, target, every in (
                ("log", self._read_log, _EVERY_S),
                ("traffic", self._see_traffic, _EVERY_S),
                ("memory", self._measure_memory, _MEMORY_EVERY_S),
            )
        ]

    def start(self) -> None:
        """Begin; the model's topics need not be there yet."""
        self._stored: StoredModel = self._machine.store.get(self._topics.model)
        self._driver = self._machine.driver(self._stored)
        self._runner = self._machine.runner(self._stored)
        for thread in self._threads:
            thread.start()

    @property
    def sees_log(self) -> bool:
        """Whether the model's topics are there."""
        return len(self._readers) == 3

    def stop(self) -> None:
        """End, and drop the connections."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        for reader in self._readers.values():
            reader.close()

    def _often(self, look: Callable[[], None], every: float) -> None:
        while not self._stop.wait(every):
            try:
                look()
            except NotFound:
                continue  # the topics are made once control has seen the resource
            except (TidemillError, psutil.Error) as error:
                trouble = str(error)
                if trouble not in self._recording.troubles[-10:]:
                    self._recording.troubles.append(trouble)

    def _read_log(self) -> None:
        for stamped in self._new(self._topics.decisions, Decision):
            self._recording.decisions.append(stamped.record)
        for stamped in self._new(self._topics.signals, Signal):
            self._recording.signals.append((stamped.timestamp_ms, stamped.record))
        for stamped in self._new(self._topics.sketches, Sketch):
            self._recording.take_sketch(stamped.record)

    def _new(self, topic: str, kind: type[Record]) -> list[Any]:
        if topic not in self._readers:
            self._readers[topic] = RecordReader(self._machine.settings.require_kafka(), topic, kind)
        return self._readers[topic].poll(timeout_s=0.02)

    def _see_traffic(self) -> None:
        recording, now = self._recording, to_ms(self._clock.now())
        weights = {one.version: one.share for one in self._driver.observe().revisions}
        if weights != (recording.traffic[-1][1] if recording.traffic else {}):
            recording.traffic.append((now, weights))
        for run in self._runner.observe():
            recording.take_run(run, now)

    def _measure_memory(self) -> None:
        memory, processes = resident_memory(self._pid)
        self._recording.peak_memory = max(self._recording.peak_memory, memory)
        self._recording.peak_processes = max(self._recording.peak_processes, processes)


def resident_memory(pid: int) -> tuple[int, int]:
    """Resident bytes of this process, of process `pid` and all below it, and how many processes these are.

    Pages that processes share are counted once for each: an upper bound.
    """
    found = [psutil.Process(), psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    total = 0
    for process in found:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total, len(found)
