"""The index of predictions and labels, in Redis: which prediction a label is about, and what is known of each.

Two kinds of hashes, both under the model's prefix and both expiring after they were last added to (`late.Hot`):

    event:<event key>           p<prediction id> -> (id, partition), l<label id> -> KnownLabel
    prediction:<prediction id>  p<offset> -> Indexed, l<offset>.<place> -> Heard

Only sets that grow are kept, with each record of the log under a name of its own: whatever is done twice or in
another order, by a worker that crashed or by one that should be dead, leaves the same. What is lost is noticed: a
key names the server's present run, every batch looks at it after its reads, and a server that was emptied or
restarted (with an old snapshot, perhaps) does not show it. Then everything is rebuilt from the log.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import chain, islice
from typing import Any, Protocol, TypeVar

import msgspec
import redis

from tidemill.core.errors import InvalidInput, Transient, Unavailable
from tidemill.core.settings import masked
from tidemill.features.connection import connect
from tidemill.labels.parse import KnownLabel, event_key
from tidemill.outcomes.join import Heard, Indexed

__all__ = ["AWAY", "OutcomeState", "Recalled", "RedisState", "StateLost"]

T = TypeVar("T")
Command = tuple[Any, ...]

AWAY = timedelta(days=1)
"""How long the index may be left alone and still be trusted: entries expire meanwhile, and none that counts may.

After that it passes for lost and is filled again from the log.
"""

_INFO = "INFO", "server"

_ANSWER_S = 10.0
"""A script call may wait for those before it."""

_FORMAT = 2
"""Of what is kept: an index of another format is not this one, and is rebuilt from the log."""

_CHUNK = 100
"""Entries of one script call: less than a millisecond, in which the server answers no one else."""

_UNDER_WAY = 6
"""Script calls sent and not yet answered: as much as a socket holds, for who sends more waits for the server."""

_LISTS = """
local function list(items)
    return struct.pack('>BI4', 0xdd, #items) .. table.concat(items)
end
local function read(key)
    local entry, predictions, labels, first = redis.call('HGETALL', key), {}, {}, math.huge
    for i = 1, #entry, 2 do
        if string.byte(entry[i]) == 112 then
            predictions[#predictions + 1] = entry[i + 1]
            first = math.min(first, tonumber(string.sub(entry[i], 2)) or 0)
        else
            labels[#labels + 1] = entry[i + 1]
        end
    end
    return predictions, labels, first
end
local found = {}
"""
"""MessagePack of what is MessagePack already: a reply of one string is sent at once, one of lists in pieces."""

_KEEP = (
    _LISTS
    + """
local ttl, wanted, judged = ARGV[1], ARGV[2], tonumber(ARGV[3])
for i, key in ipairs(KEYS) do
    redis.call('HSETNX', key, ARGV[2 * i + 2], ARGV[2 * i + 3])
    redis.call('EXPIRE', key, ttl)
    if wanted ~= 'nothing' then
        local predictions, labels, first = read(key)
        if wanted == 'predictions' then
            found[i] = list(predictions)
        elseif wanted == 'labels' then
            found[i] = list(labels)
        elseif #predictions == 0 or first < judged then
            found[i] = list({list(predictions), list(labels)})
        else
            found[i] = string.char(0xc0)
        end
    end
end
return list(found)
"""
)
"""Keeps entries, each a key with a field and its value (ARGV[4] on), and answers with what is wanted of each hash then.

One call for many entries: a batch's time goes to calls, not to what they do.
"""

_RECALL = (
    _LISTS
    + """
for i, key in ipairs(KEYS) do
    local predictions, labels = read(key)
    found[i] = list({list(predictions), list(labels)})
end
return list(found)
"""
)

_pack = msgspec.msgpack.Encoder().encode
_PLACES = msgspec.msgpack.Decoder(list[list[tuple[str, int]]])
_KNOWN = msgspec.msgpack.Decoder(list[list[KnownLabel]])
_RECALLED = msgspec.msgpack.Decoder(list[tuple[list[Indexed], list[Heard]] | None])


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
        self._keep, self._recall = (
            str(self._ask(lambda: self._redis.script_load(script)))  # noqa: B023 -- called at once
            for script in (_KEEP, _RECALL)
        )
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
        self._batch((), _RECALLED.decode)
        self._mark = f"{self._run} {secrets.token_hex(8)}".encode()
        self._ask(lambda: self._redis.set(self._whole, self._mark, ex=AWAY))

    def index(self, predictions: Iterable[Indexed]) -> list[list[KnownLabel]]:
        """Keep predictions; for each the labels that are known of its event, by arrival."""
        named: list[bool] = []
        known = chain.from_iterable(self._batch(self._indexing(predictions, named), _KNOWN.decode))
        return [_by_arrival(next(known)) if has_event else [] for has_event in named]

    def know(self, labels: Iterable[tuple[str, KnownLabel]]) -> list[list[tuple[str, int]]]:
        """Keep labels by event key; for each the (id, partition) of that event's predictions."""
        entries = ((self._event(event), f"l{label.label_id}", _pack(label)) for event, label in labels)
        found = self._batch(self._keeping(entries, "predictions"), _PLACES.decode)
        return list(chain.from_iterable(found))

    def hear(self, heard: Sequence[tuple[str, Heard]], judged: int) -> Iterator[tuple[str, Recalled]]:
        """Keep resolved labels by prediction id; what is known then of each of these predictions, once.

        Those are left out whose first record stands at `judged` or after it: they are judged later.
        """
        entries = ((self._prediction(of), f"l{label.offset}.{label.place}", _pack(label)) for of, label in heard)
        answers = self._stream(self._keeping(entries, "judged", judged), _RECALLED.decode)
        last = {of: number for number, (of, _) in enumerate(heard)}  # its answer has what those before have, too
        for number, ((of, _), known) in enumerate(zip(heard, chain.from_iterable(answers), strict=True)):
            if known is not None and last[of] == number:
                yield of, _recalled(*known)

    def restore(self, predictions: Sequence[Indexed]) -> None:
        """Keep predictions that had left the index. Not under their events: of an event it has all or none."""
        entries = ((self._prediction(of.prediction_id), f"p{of.offset}", _pack(of)) for of in predictions)
        self._batch(self._keeping(entries, "nothing"), _KNOWN.decode)

    def recall(self, predictions: Sequence[str]) -> Iterator[Recalled]:
        """What is known of each prediction."""
        commands = (("EVALSHA", self._recall, len(some), *map(self._prediction, some)) for some in _chunks(predictions))
        for known in chain.from_iterable(self._stream(commands, _RECALLED.decode)):
            if known is not None:
                yield _recalled(*known)

    def _indexing(self, predictions: Iterable[Indexed], named: list[bool]) -> Iterator[Command]:
        """The commands that keep predictions, each also under its event; `named` is told which have one."""
        for some in _chunks(predictions):
            entries = ((self._prediction(of.prediction_id), f"p{of.offset}", _pack(of)) for of in some)
            yield from self._keeping(entries, "nothing")
            events = (
                (
                    self._event(event_key(of.entity, of.event_id)),
                    f"p{of.prediction_id}",
                    _pack((of.prediction_id, of.partition)),
                )
                for of in some
                if of.event_id is not None
            )
            yield from self._keeping(events, "labels")
            named += [of.event_id is not None for of in some]

    def _keeping(self, entries: Iterable[tuple[str, str, bytes]], wanted: str, judged: int = 0) -> Iterator[Command]:
        """The commands that keep (key, field, value) entries and answer with what is wanted of their hashes."""
        for some in _chunks(entries):
            keys, fields, values = zip(*some, strict=True)
            pairs = chain.from_iterable(zip(fields, values, strict=True))
            yield "EVALSHA", self._keep, len(some), *keys, self._ttl, wanted, judged, *pairs

    def _batch(self, commands: Iterable[Command], decode: Callable[[bytes], T]) -> list[T]:
        """What the commands answer, decoded; all of it from a state that was whole after the last one."""
        return list(self._stream(commands, decode))

    def _stream(self, commands: Iterable[Command], decode: Callable[[bytes], T]) -> Iterator[T]:
        """The same, each answer as soon as it comes; the end says whether the state was whole.

        A few commands are under way at a time: while the server does them, the next is made and the last answer used.
        """
        pool: Any = self._redis.connection_pool
        connection = self._ask(pool.get_connection)
        under_way = 0
        try:
            for command in commands:
                self._ask(connection.send_command, *command)
                if under_way == _UNDER_WAY:
                    yield decode(self._ask(connection.read_response))
                else:
                    under_way += 1
            for command in (("EXPIRE", self._whole, round(AWAY.total_seconds())), ("GET", self._whole), _INFO):
                self._ask(connection.send_command, *command)
            for _ in range(under_way):
                yield decode(self._ask(connection.read_response))
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
            if isinstance(error, redis.ResponseError):
                self._redis.connection_pool.disconnect()  # it may be another server by now that has the index
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


def _by_arrival(labels: list[KnownLabel]) -> list[KnownLabel]:
    return labels if len(labels) < 2 else sorted(labels, key=lambda label: label.order)


def _recalled(predictions: list[Indexed], labels: list[Heard]) -> Recalled:
    if len(predictions) < 2:
        return (predictions[0] if predictions else None), labels
    return min(predictions, key=lambda prediction: prediction.offset), labels
