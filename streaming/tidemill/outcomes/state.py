"""The index of predictions and labels, in Redis: which prediction a label is about, and what is known of each.

Two kinds of hashes, both under the model's prefix and both expiring a day after the label horizon:

    event:<event key>           p<prediction id> -> its partition, l<label id> -> KnownLabel
    prediction:<prediction id>  p<offset> -> Indexed, l<offset> -> Heard

Only sets that grow are kept, with each record of the log under a name of its own: whatever is done twice or in
another order, by a worker that crashed or by one that should be dead, leaves the same. What is lost is noticed: a
key names the server's present run, every batch looks at it after its reads, and a server that was emptied or
restarted (with an old snapshot, perhaps) does not show it. Then everything is rebuilt from the log.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tidemill.core.errors import InvalidInput, Transient, Unavailable
from tidemill.labels.parse import KnownLabel, event_key
from tidemill.outcomes.join import Heard, Indexed

__all__ = ["OutcomeState", "Recalled", "RedisState", "StateLost"]

_CHUNK = 2000
"""Commands in one round trip: a few hundred kilobytes, and the server's other clients wait some milliseconds."""

_KEEP = """
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return redis.call('HGETALL', KEYS[1])
"""
"""Keeps an entry and answers with all of its hash: one command for three, which is what a batch's time goes to."""

_INDEXED = msgspec.msgpack.Decoder(Indexed)
_HEARD = msgspec.msgpack.Decoder(Heard)
_KNOWN = msgspec.msgpack.Decoder(KnownLabel)


Recalled = tuple[Indexed | None, list[Heard]]
"""A prediction (None while its record was not read; the first of several records) and the labels heard of it."""


class StateLost(Transient):
    """The index is not the one that was being kept: it must be rebuilt from the log."""


class OutcomeState(Protocol):
    """What the worker keeps between records. Every method raises `Unavailable`, or `StateLost` once it is lost.

    All writes are idempotent, and those of one kind may come in any order.
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

    def index(self, predictions: Sequence[Indexed]) -> list[list[KnownLabel]]:
        """Keep predictions; for each the labels that are known of its event, by arrival."""
        ...

    def know(self, labels: Sequence[tuple[str, KnownLabel]]) -> list[list[tuple[str, int]]]:
        """Keep labels by event key; for each the (id, partition) of that event's predictions."""
        ...

    def hear(self, heard: Sequence[tuple[str, Heard]]) -> dict[str, Recalled]:
        """Keep resolved labels by prediction id; what is known then of each of these predictions."""
        ...

    def recall(self, predictions: Sequence[str]) -> list[Recalled]:
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
        self._url = url
        self._prefix = f"{model}:outcomes:"
        self._ttl = ttl_s
        # No silent reconnect within a batch: a new connection may lead to an emptied server.
        self._redis = redis.Redis.from_url(
            url, socket_timeout=10, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0)
        )
        self._whole, self._run, self._mark = self._prefix + "whole", "", b""
        self._keep = str(self._ask(lambda: self._redis.script_load(_KEEP)))
        found = self._ask(lambda: self._redis.info("memory"))
        if found.get("maxmemory") and found.get("maxmemory_policy") != "noeviction":
            raise InvalidInput(
                f"Redis at {url} may evict keys (maxmemory-policy {found.get('maxmemory_policy')})",
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
        self._ask(lambda: self._redis.set(self._whole, self._mark))

    def finish_rebuild(self) -> None:
        """Say that it is complete; raises `StateLost` if it was lost meanwhile."""
        self._batch([])
        self._mark = f"{self._run} {secrets.token_hex(8)}".encode()
        self._ask(lambda: self._redis.set(self._whole, self._mark))

    def index(self, predictions: Sequence[Indexed]) -> list[list[KnownLabel]]:
        """Keep predictions; for each the labels that are known of its event, by arrival."""
        entries, at = [], []
        for prediction in predictions:
            entries.append((self._prediction(prediction.prediction_id), f"p{prediction.offset}", _pack(prediction)))
            at.append(None if prediction.event_id is None else len(entries))
            if prediction.event_id is not None:
                event = self._event(event_key(prediction.entity, prediction.event_id))
                entries.append((event, f"p{prediction.prediction_id}", b"%d" % prediction.partition))
        found = self._kept(entries)
        return [[] if place is None else _known(found[place]) for place in at]

    def know(self, labels: Sequence[tuple[str, KnownLabel]]) -> list[list[tuple[str, int]]]:
        """Keep labels by event key; for each the (id, partition) of that event's predictions."""
        entries = [(self._event(event), f"l{label.label_id}", _pack(label)) for event, label in labels]
        return [
            [(field[1:].decode(), int(value)) for field, value in found.items() if field.startswith(b"p")]
            for found in self._kept(entries)
        ]

    def hear(self, heard: Sequence[tuple[str, Heard]]) -> dict[str, Recalled]:
        """Keep resolved labels by prediction id; what is known then of each of these predictions."""
        entries = [(self._prediction(of), f"l{label.offset}", _pack(label)) for of, label in heard]
        found = self._kept(entries)
        return {of: _recalled(known) for (of, _), known in zip(heard, found, strict=True)}

    def recall(self, predictions: Sequence[str]) -> list[Recalled]:
        """What is known of each prediction."""
        commands = [("HGETALL", self._prediction(prediction_id)) for prediction_id in predictions]
        return [_recalled(found) for found in self._batch(commands)]

    def _kept(self, entries: Sequence[tuple[str, str, bytes]]) -> list[dict[bytes, bytes]]:
        """Keep (key, field, value) entries; the whole hash of each after that."""
        replies = self._batch([("EVALSHA", self._keep, 1, *entry, self._ttl) for entry in entries])
        return [dict(zip(reply[::2], reply[1::2], strict=True)) for reply in replies]

    def _batch(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The replies, all of them from a state that was whole after the last one."""
        replies: list[Any] = []
        for start in range(0, max(len(commands), 1), _CHUNK):
            pipe: Any = self._redis.pipeline(transaction=False)
            for command in commands[start : start + _CHUNK]:
                pipe.execute_command(*command)
            pipe.get(self._whole)
            pipe.info("server")
            *found, mark, server = self._ask(pipe.execute)
            if mark != self._mark or server["run_id"] != self._run:
                raise StateLost(
                    f"Redis at {self._url} lost the index of {self._prefix[:-1]}: it is rebuilt from the log"
                )
            replies += found
        return replies

    def _present_run(self) -> str:
        return str(self._ask(lambda: self._redis.info("server"))["run_id"])

    def _ask(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except redis.RedisError as error:
            raise Unavailable(
                f"Redis at {self._url}: {error}", hint="is it running, and has it memory left?"
            ) from error

    def _event(self, event: str) -> str:
        return f"{self._prefix}event:{event}"

    def _prediction(self, prediction_id: str) -> str:
        return f"{self._prefix}prediction:{prediction_id}"


def _pack(entry: msgspec.Struct) -> bytes:
    return msgspec.msgpack.encode(entry)


def _known(found: dict[bytes, bytes]) -> list[KnownLabel]:
    """The labels in one event's hash, by arrival."""
    labels = [_KNOWN.decode(value) for field, value in found.items() if field.startswith(b"l")]
    return sorted(labels, key=lambda label: label.order)


def _recalled(found: dict[bytes, bytes]) -> Recalled:
    """One prediction's hash."""
    predictions = [_INDEXED.decode(value) for field, value in found.items() if field.startswith(b"p")]
    labels = [_HEARD.decode(value) for field, value in found.items() if field.startswith(b"l")]
    return min(predictions, key=lambda prediction: prediction.offset, default=None), labels
