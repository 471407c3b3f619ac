"""The index of predictions and labels, in Redis: which prediction a label is about, and what is known of each.

Two kinds of keys, both under the model's prefix and both expiring after they were last added to (`late.Hot`):

    event:<event key>           Place of each of its predictions, KnownLabel of each of its labels
    prediction:<prediction id>  Indexed, Heard of each of its labels

A value is lines of JSON, to which lines are added and of which none is ever changed: whatever is done twice or in
another order, by a worker that crashed or by one that should be dead, means the same. What is lost is noticed: a
key names the server's present run, every batch looks at it after its reads, and a server that was emptied or restarted
(with an old snapshot, perhaps) does not show it. Then everything is rebuilt from the log.
"""

import re
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, Protocol, TypeVar

import msgspec
import redis

from tidemill.core.errors import InvalidInput, Transient, Unavailable
from tidemill.core.settings import masked
from tidemill.features.connection import connect, let_go
from tidemill.labels.parse import KnownLabel, event_key
from tidemill.outcomes.join import Heard, Indexed

__all__ = ["AWAY", "OutcomeState", "Recalled", "RedisState", "StateLost"]

T = TypeVar("T")


class Place(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="p"):
    """A prediction of an event, and where it stands."""

    prediction_id: str
    partition: int


AWAY = timedelta(days=1)
"""How long the index may be left alone and still be trusted: entries expire meanwhile, and none that counts may.

After that it passes for lost and is filled again from the log.
"""

_INFO = "INFO", "server"

_ANSWER_S = 10.0
"""A script call may wait for those before it."""

_FORMAT = 3
"""Of what is kept: an index of another format is not this one, and is rebuilt from the log."""

_CHUNK = 100
"""Lines of one script call: less than a millisecond, in which the server answers no one else."""

_UNDER_WAY = 6
"""Script calls sent and not yet answered: as much as a socket holds, for who sends more waits for the server."""

_KEEP = """
local ttl, found = ARGV[1], {}
for i, key in ipairs(KEYS) do
    local line, kept = ARGV[i + 1], redis.call('GET', key)
    found[i] = kept
    if not kept then
        redis.call('SET', key, line, 'EX', ttl)
    else
        if not string.find(kept, line, 1, true) then
            redis.call('APPEND', key, line)
        end
        redis.call('EXPIRE', key, ttl)
    end
end
return found
"""
"""Adds lines (ARGV[2] on), each to those of its key unless it is one of them, and answers with those that were there.

One call for many lines: a batch's time goes to calls, not to what they do.
"""

_lines = msgspec.json.Encoder().encode_lines
_OF_EVENT = msgspec.json.Decoder(Place | KnownLabel)
_OF_PREDICTION = msgspec.json.Decoder(Indexed | Heard)


Recalled = tuple[Indexed | None, list[Heard]]
"""A prediction (None while its record was not read; the first of several records) and the labels heard of it."""


class StateLost(Transient):
    """The index is not the one that was being kept: it must be rebuilt from the log."""


class OutcomeState(Protocol):
    """What the worker keeps between records. Every method raises `Unavailable`, or `StateLost` once it is lost.

    All writes are idempotent, and those of one kind may come in any order. Arguments may be iterators, which are used
    up while the index already works on what they gave; what comes back as an iterator is to be used up, too, for only
    its end says that the state was whole.
    """

    def is_whole(self) -> bool:
        """Whether everything written since the last `finish_rebuild` is there."""
        ...

    def begin_rebuild(self) -> None:
        """Say that what is there may be incomplete."""
        ...

    def finish_rebuild(self) -> None:
        """Say that it is complete; raises `StateLost` if it was lost meanwhile."""
        ...

    def index(self, predictions: Iterable[Indexed]) -> list[list[KnownLabel]]:
        """Keep predictions; for each the labels that are known of its event, by arrival."""
        ...

    def know(self, labels: Iterable[tuple[str, KnownLabel]]) -> list[list[tuple[str, int]]]:
        """Keep labels by event key; for each the (id, partition) of that event's predictions."""
        ...

    def hear(self, heard: Sequence[tuple[str, Heard]], judged: int) -> Iterator[tuple[str, Recalled]]:
        """Keep resolved labels by prediction id; what is known then of each of these predictions, once.

        Those are left out whose first record stands at `judged` or after it: they are judged later.
        """
        ...

    def restore(self, predictions: Sequence[Indexed]) -> None:
        """Keep predictions that had left the index. Not under their events: of an event it has all or none."""
        ...

    def recall(self, predictions: Sequence[str]) -> Iterator[Recalled]:
        """What is known of each prediction."""
        ...


class RedisState:
    """The index in Redis; implements `OutcomeState`.

    Args:
        url: the server.
        model: the model's id, which prefixes every key.
        ttl_s: seconds that an entry is kept after it was last added to.

    Raises:
        Unavailable: the server does not answer.
        InvalidInput: the server may evict keys, which would make labelled outcomes unlabelled.
    """

    def __init__(self, url: str, model: str, *, ttl_s: int) -> None:
        self._address = masked(url)
        self._prefix = f"{{{model}:outcomes:{_FORMAT}}}:"  # braces: one slot of a Redis Cluster, and so one server
        self._ttl = ttl_s
        self._whole, self._run, self._mark = self._prefix + "whole", "", b""
        self._redis = connect(url, _ANSWER_S, self._whole)
        self._script = str(self._ask(self._redis.script_load, _KEEP))
        found = self._ask(lambda: self._redis.info("memory"))
        if found.get("maxmemory") and found.get("maxmemory_policy") != "noeviction":
            raise InvalidInput(
                f"Redis at {self._address} may evict keys (maxmemory-policy {found.get('maxmemory_policy')})",
                hint="set maxmemory-policy to noeviction: an evicted label would be missing from its outcome",
            )

    def close(self) -> None:
        """Drop the connection."""
        self._redis.close()

    def is_whole(self) -> bool:
        """Whether everything written since the last `finish_rebuild` is there."""
        self._run = self._present_run()
        self._mark = self._ask(lambda: self._redis.get(self._whole)) or b""
        return self._mark.startswith(self._run.encode())

    def begin_rebuild(self) -> None:
        """Say that what is there may be incomplete."""
        self._run = self._present_run()
        self._mark = f"rebuilding {secrets.token_hex(8)}".encode()
        self._ask(lambda: self._redis.set(self._whole, self._mark, ex=AWAY))

    def finish_rebuild(self) -> None:
        """Say that it is complete; raises `StateLost` if it was lost meanwhile."""
        deque(self._stream(()), 0)
        self._mark = f"{self._run} {secrets.token_hex(8)}".encode()
        self._ask(lambda: self._redis.set(self._whole, self._mark, ex=AWAY))

    def index(self, predictions: Iterable[Indexed]) -> list[list[KnownLabel]]:
        """Keep predictions; for each the labels that are known of its event, by arrival."""
        named: list[bool] = []
        before = iter(list(self._keep(self._indexing(predictions, named))))
        found = []
        for of_event in named:
            next(before)  # of the prediction
            found.append(_labels(next(before)) if of_event else [])
        return found

    def know(self, labels: Iterable[tuple[str, KnownLabel]]) -> list[list[tuple[str, int]]]:
        """Keep labels by event key; for each the (id, partition) of that event's predictions."""
        before = self._keep((self._event(event), label) for event, label in labels)
        known = (() if kept is None else _OF_EVENT.decode_lines(kept) for kept in before)
        return [[(of.prediction_id, of.partition) for of in found if isinstance(of, Place)] for found in known]

    def hear(self, heard: Sequence[tuple[str, Heard]], judged: int) -> Iterator[tuple[str, Recalled]]:
        """Keep resolved labels by prediction id; what is known then of each of these predictions, once.

        Those are left out whose first record stands at `judged` or after it: they are judged later.
        """
        last = {of: number for number, (of, _) in enumerate(heard)}  # before its label all the others were there
        before = self._keep((self._prediction(of), label) for of, label in heard)
        for number, ((of, label), kept) in enumerate(zip(heard, before, strict=True)):
            if last[of] != number:
                continue
            prediction, labels = _recalled(kept)
            if prediction is None or prediction.offset < judged:
                yield of, (prediction, labels if label in labels else [*labels, label])

    def restore(self, predictions: Sequence[Indexed]) -> None:
        """Keep predictions that had left the index. Not under their events: of an event it has all or none."""
        deque(self._keep((self._prediction(of.prediction_id), of) for of in predictions), 0)

    def recall(self, predictions: Sequence[str]) -> Iterator[Recalled]:
        """What is known of each prediction."""
        commands = (("MGET", *map(self._prediction, some)) for some in _chunks(predictions))
        return map(_recalled, self._stream(commands))

    def _indexing(self, predictions: Iterable[Indexed], named: list[bool]) -> Iterator[tuple[str, Indexed | Place]]:
        """What keeps predictions, each also under its event; `named` is told which have one."""
        for of in predictions:
            named.append(of.event_id is not None)
            yield self._prediction(of.prediction_id), of
            if of.event_id is not None:
                yield self._event(event_key(of.entity, of.event_id)), Place(of.prediction_id, of.partition)

    def _keep(self, entries: Iterable[tuple[str, msgspec.Struct]]) -> Iterator[bytes | None]:
        """Add each entry to its key; the lines that each key had before, None where it had none."""
        return self._stream(map(self._keeping, _chunks(entries)))

    def _keeping(self, entries: Sequence[tuple[str, msgspec.Struct]]) -> tuple[Any, ...]:
        keys, kept = zip(*entries, strict=True)
        return "EVALSHA", self._script, len(keys), *keys, self._ttl, *_lines(kept).splitlines(keepends=True)

    def _stream(self, commands: Iterable[tuple[Any, ...]]) -> Iterator[bytes | None]:
        """What the commands answer, each a list, as soon as it comes; the end says whether the state was whole.

        A few commands are under way at a time: while the server does them, the next is made and the last answer used.
        """
        pool: Any = self._redis.connection_pool
        connection = self._ask(pool.get_connection)
        under_way = 0
        try:
            for command in commands:
                self._ask(connection.send_command, *command)
                if under_way == _UNDER_WAY:
                    yield from self._ask(connection.read_response)
                else:
                    under_way += 1
            for command in (("EXPIRE", self._whole, round(AWAY.total_seconds())), ("GET", self._whole), _INFO):
                self._ask(connection.send_command, *command)
            for _ in range(under_way):
                yield from self._ask(connection.read_response)
            _, mark, server = [self._ask(connection.read_response) for _ in range(3)]
        except BaseException:
            connection.disconnect()  # what was not read yet must not be taken for another batch's answers
            raise
        finally:
            pool.release(connection)
        if mark != self._mark or _run_id(server) != self._run:
            raise StateLost(
                f"Redis at {self._address} lost the index of {self._prefix[:-1]}: it is rebuilt from the log"
            )

    def _present_run(self) -> str:
        return str(self._ask(lambda: self._redis.info("server"))["run_id"])

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except redis.RedisError as error:
            let_go(self._redis, error)
            raise Unavailable(
                f"Redis at {self._address}: {error}", hint="is it running, and has it memory left?"
            ) from error

    def _event(self, event: str) -> str:
        return f"{self._prefix}event:{event}"

    def _prediction(self, prediction_id: str) -> str:
        return f"{self._prefix}prediction:{prediction_id}"


def _chunks(entries: Iterable[T]) -> Iterator[list[T]]:
    left = iter(entries)
    while some := list(islice(left, _CHUNK)):
        yield some


def _run_id(server: bytes) -> str:
    """The run that a server's INFO names."""
    found = re.search(rb"^run_id:(\w+)", server, re.MULTILINE)
    return "" if found is None else found[1].decode()


def _labels(kept: bytes | None) -> list[KnownLabel]:
    """The labels of an event, by arrival."""
    known = () if kept is None else _OF_EVENT.decode_lines(kept)
    return sorted((of for of in known if isinstance(of, KnownLabel)), key=lambda label: label.order)


def _recalled(kept: bytes | None) -> Recalled:
    """What is known of a prediction; of several records of it the first in the log counts, as it was kept first."""
    first: Indexed | None = None
    labels: list[Heard] = []
    for of in () if kept is None else _OF_PREDICTION.decode_lines(kept):
        if isinstance(of, Heard):
            labels.append(of)
        elif first is None or of.offset < first.offset:
            first = of
    return first, labels
