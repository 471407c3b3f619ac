"""Labels that arrive in requests: all of one or none, and a request that is repeated under its key takes effect once.

A request's labels and a note of its key, body and answer (`<id>.labels.requests`) are one Kafka transaction, written
under one transactional id for each model. So where the note is, the labels are; whoever begins to write under that id
ends what another left open, reads the notes, and knows every key. Nothing else has to be kept: this holds for a
restart, a broker that was away, an answer that was lost, and two services that run by mistake.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import Conflict, TidemillError, Unavailable
from tidemill.events.cluster import ensure_topics, reach
from tidemill.events.kafka import RecordReader
from tidemill.events.records import Record, encode
from tidemill.events.replay import Outgoing, TransactionWriter
from tidemill.labels.check import Checked
from tidemill.labels.importing import outgoing
from tidemill.spec.model import ContinualModel

__all__ = ["KEPT_MS", "Answered", "Answers", "LabelDesk", "Made"]

KEPT_MS = 24 * 3600 * 1000
"""How long a key is known."""
_MOST_KEYS, _MOST_BYTES = 100_000, 64 << 20
"""Keys of a model, and bytes of their answers, that are known at most: of more, the oldest are forgotten sooner."""
_PATIENCE_S = 10.0

Made = tuple[Sequence[Checked], bytes]
"""The labels of a request that are taken, and its answer."""


class Answered(Record, frozen=True, kw_only=True):
    """A note that the labels of a request were written."""

    key: str
    body: str
    """Digest of the request's body."""
    answer: bytes
    time: int


class Answers:
    """The newest answers by key, bounded."""

    def __init__(self, *, most_keys: int = _MOST_KEYS, most_bytes: int = _MOST_BYTES) -> None:
        self._most_keys, self._most_bytes = most_keys, most_bytes
        self._known: OrderedDict[str, Answered] = OrderedDict()
        self._bytes = 0

    def add(self, answered: Answered) -> None:
        """Know an answer, and forget the oldest where there are too many."""
        self._drop(self._known.pop(answered.key, None))
        self._known[answered.key] = answered
        self._bytes += len(answered.answer)
        while len(self._known) > self._most_keys or self._bytes > self._most_bytes:
            self._drop(self._known.popitem(last=False)[1])

    def get(self, key: str, now_ms: int) -> Answered | None:
        """The answer to a key that is not older than a day."""
        found = self._known.get(key)
        return None if found is None or found.time < now_ms - KEPT_MS else found

    def _drop(self, answered: Answered | None) -> None:
        if answered is not None:
            self._bytes -= len(answered.answer)


class LabelDesk:
    """Takes requests for one model, one at a time. Thread-safe.

    Args:
        resource: the model.
        kafka: bootstrap servers.
        clock: the time.
        patience_s: longest time that a request waits for those before it, and then for the brokers.
    """

    def __init__(self, resource: ContinualModel, kafka: str, *, clock: Clock, patience_s: float = _PATIENCE_S) -> None:
        self._topic = resource.labels_topic
        self._notes = f"{resource.id}.labels.requests"
        """The topic of the notes; and the transactional id."""
        self._kafka, self._clock, self._patience_s = kafka, clock, patience_s
        self._turn = threading.Lock()
        self._writer: TransactionWriter | None = None
        self._answers = Answers()

    def take(self, make: Callable[[], Made], *, key: str | None = None, body: str = "") -> tuple[bytes, bool]:
        """The answer to a request, and whether it was given before.

        Args:
            make: checks the request; its labels are written, all or none. Not called for a key that is known.
            key: the request's idempotency key.
            body: digest of its body.

        Raises:
            Conflict: the key was used for another body.
            Unavailable: nothing was written; or, where the brokers went away meanwhile, that is not known, and the
                same request under its key says it.
        """
        if not self._turn.acquire(timeout=self._patience_s):
            raise Unavailable("other requests wait for Kafka already")
        try:
            writer = self._opened()
            if key is not None and (known := self._answers.get(key, to_ms(self._clock.now()))) is not None:
                if known.body != body:
                    raise Conflict("this Idempotency-Key was used with another body")
                return known.answer, True
            return self._written(writer, make(), key, body), False
        finally:
            self._turn.release()

    def close(self) -> None:
        """Drop the connection."""
        with self._turn:
            self._forget()

    def _written(self, writer: TransactionWriter, made: Made, key: str | None, body: str) -> bytes:
        labels, answer = made
        if not labels:  # nothing happened that a repetition could do twice
            return answer
        records = outgoing(self._topic, labels)
        answered = None
        if key is not None:
            answered = Answered(key=key, body=body, answer=answer, time=to_ms(self._clock.now()))
            records.append(Outgoing(self._notes, encode(answered), key.encode()))
        try:
            reach(self._kafka, 1.0)
            writer.write_within(records, self._patience_s)
        except TidemillError:
            self._forget()
            raise
        if answered is not None:
            self._answers.add(answered)
        return answer

    def _opened(self) -> TransactionWriter:
        if self._writer is None:
            reach(self._kafka, 1.0)
            ensure_topics(self._kafka, {self._notes: 1}, retention_ms=KEPT_MS)
            # First to end what another writer has under way, then to read what was written.
            writer = TransactionWriter(self._kafka, self._notes, timeout_s=self._patience_s)
            try:
                self._answers = self._read()
            except BaseException:
                writer.close(0)
                raise
            self._writer = writer
        return self._writer

    def _read(self) -> Answers:
        answers = Answers()
        with RecordReader(self._kafka, self._notes, Answered, clock=self._clock) as reader:
            for stamped in reader.rest():
                answers.add(stamped.record)
        return answers

    def _forget(self) -> None:
        if self._writer is not None:
            self._writer.close(0)
            self._writer = None
