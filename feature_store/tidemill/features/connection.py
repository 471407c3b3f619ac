"""What both sides of the online rows share: the connection, the keys, the generation, the names.

Errors of Redis stop here. URLs are those of redis-py: `redis://`, `rediss://USER:PASSWORD@HOST:PORT/0?ssl_ca_certs=FILE`
for TLS and ACL, `unix://`. In a Redis Cluster the URL is of any of its servers: a connection goes from there to the one
that has the view, all of whose keys are in one slot (docs/adr/a-view-is-one-slot-of-a-redis-cluster.md).
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tidemill.core.errors import Corrupt, Permanent, TidemillError, Unavailable
from tidemill.features.layout import Layout
from tidemill.features.packing import NEVER, Packed, Rows, unpack
from tidemill.features.partials import Ints
from tidemill.features.rows import source_id

__all__ = [
    "READY",
    "REBUILDING",
    "Fetcher",
    "Found",
    "Generation",
    "Keys",
    "Names",
    "connect",
    "failures",
    "let_go",
    "token_word",
    "unpacked",
]

READY, REBUILDING = "ready", "rebuilding"
"""States of a generation; it may also be missing."""

_REFUSED = (
    redis.AuthenticationError,
    redis.exceptions.AuthorizationError,
    redis.exceptions.NoPermissionError,
)

_FOREIGN = (redis.RedisError, OSError)

_PASSES = (  # a failover, a move or a full memory ends; other refusals are our mistake or a missing right
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.AskError,  # and MovedError
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
)

_HOPS = 3
"""From server to server of a cluster; more only while they do not agree on who has a slot."""


class Keys(NamedTuple):
    """The keys of a model's view."""

    model_id: str
    view: str

    @property
    def slot(self) -> str:
        """What all keys begin with. In braces, so that a Redis Cluster has them in one slot."""
        return f"{{{self.model_id}:{self.view}}}"

    @property
    def generation(self) -> str:
        """Which filling counts."""
        return f"{self.slot}#generation"

    @property
    def names(self) -> str:
        """What rows name."""
        return f"{self.slot}#names"

    def rows(self, entities: Iterable[str]) -> list[str]:
        """The entities' rows."""
        prefix = f"{self.slot}:"
        return [prefix + entity for entity in entities]


class Generation(NamedTuple):
    """What the key of the generation says."""

    state: str
    token: str = ""
    run_id: str = ""
    windows: str = ""
    raw: str = ""

    @classmethod
    def parse(cls, raw: bytes | None) -> "Generation":
        """Of the key's value; None where there is none."""
        if raw is None:
            return cls("missing")
        text = raw.decode(errors="replace")
        state, token, run_id, windows, *_ = [*text.split(":"), "", "", ""]
        return cls(state, token, run_id, windows, text)

    @property
    def word(self) -> int:
        """The token as rows have it."""
        return token_word(self.token)

    def seen_by(self, run_id: str, layout: Layout) -> "Generation":
        """A server that was started again may have come back with an older copy; other windows are not in the rows."""
        fits = self.run_id == run_id and self.windows == layout.windows_id
        return self if fits or self.state != READY else self._replace(state="missing")


class Names:
    """What the layouts and sources are that rows name. Learnt when a row names one that is not known yet."""

    def __init__(self, client: "redis.Redis", key: str) -> None:
        self.layouts: dict[int, Layout] = {}
        self.sources: dict[int, str] = {}
        self._client, self._key = client, key
        self._told: tuple[str, set[int]] = ("", set())

    def tell(self, generation: str, layout: Layout, sources: Iterable[str]) -> None:
        """Write down what rows are going to name, unless that was done in this generation."""
        known = {source_id(source): source for source in sources}
        self.sources |= known
        self.layouts[layout.id] = layout
        wanted = {layout.id: b"L" + layout.encoded} | {one: b"S" + name.encode() for one, name in known.items()}
        told = self._told[1] if self._told[0] == generation else set()
        if wanted.keys() - told:
            with failures(self._client):
                self._client.hset(self._key, mapping={_field(one): name for one, name in wanted.items()})
            self._told = (generation, told | wanted.keys())

    def learn(self, layouts: Iterable[int], sources: Iterable[int] = ()) -> None:
        """Know these; raises `Corrupt` where they were never written down."""
        if self._knows(layouts, sources):
            return
        with failures(self._client):
            found = cast("dict[bytes, bytes]", self._client.hgetall(self._key))
        if not found:
            raise Unavailable("the online rows were emptied while they were read")
        for field, name in found.items():
            number = int.from_bytes(field, "little", signed=True)
            if name[:1] == b"L":
                self.layouts[number] = Layout.decode(name[1:])
            else:
                self.sources[number] = name[1:].decode()
        if not self._knows(layouts, sources):
            raise Corrupt("an online row has a layout or source that nobody wrote down")

    def _knows(self, layouts: Iterable[int], sources: Iterable[int]) -> bool:
        return self.layouts.keys() >= set(layouts) and self.sources.keys() >= set(sources)


class Found(NamedTuple):
    """What a read brought: rows by their layout, with their positions among what was asked for."""

    generation: Generation
    groups: list[tuple[Layout, Ints, Rows]]


def unpacked(names: Names, generation: Generation, found: Sequence[bytes | None]) -> list[tuple[Layout, Ints, Rows]]:
    """The rows of this generation by layout, with their positions. Raises `Corrupt`."""
    rows = [row for row in found if row is not None]
    if not rows:
        return []
    at = np.array([position for position, row in enumerate(found) if row is not None])
    packed = Packed(rows)
    mine, layouts = packed.tokens == generation.word, packed.layouts
    groups = []
    for number in set(layouts[mine].tolist()):
        which = mine & (layouts == number)
        some = packed if which.all() else Packed([rows[position] for position in np.flatnonzero(which).tolist()])
        names.learn([number])
        group = unpack(names.layouts[number], some)
        # That of the last event may have no fence any more.
        names.learn([], {*group.fences.source.tolist(), *group.source[group.event_time != NEVER].tolist()})
        groups.append((names.layouts[number], at[which], group))
    return groups


@lru_cache(64)
def token_word(token: str) -> int:
    """The token as rows have it."""
    return int.from_bytes(bytes.fromhex(token), "little", signed=True)


def _field(number: int) -> bytes:
    return number.to_bytes(8, "little", signed=True)


def connect(url: str, timeout_s: float, key: str) -> "redis.Redis":
    """A client that waits at most so long for each answer; in a Redis Cluster, of the server that has the key."""
    # No silent retries: a connection that broke may lead to a server that has forgotten everything.
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        redis_connect_func=partial(_begin, key),
    )


def _begin(key: str, connection: Any) -> None:
    """Begin a session with the server that has the key: one of a cluster that has not tells which one does."""
    connection.on_connect()
    for _ in range(_HOPS):
        connection.send_command("EXISTS", key, check_health=False)
        try:
            connection.read_response()
            return
        except redis.exceptions.MovedError as moved:
            if not hasattr(connection, "host"):
                raise redis.ConnectionError("a Unix socket leads to one server of a Redis Cluster alone") from moved
            _go(connection, moved.host, moved.port)
    raise redis.ConnectionError("the servers of the Redis Cluster do not agree on who has the rows")


def _go(connection: Any, host: str, port: int) -> None:
    """Lead a connection to another server. Whenever it breaks it begins where the URL says: this one may be gone."""
    first = connection.host, connection.port, connection.redis_connect_func
    connection.disconnect()
    connection.host, connection.port, connection.redis_connect_func = host or first[0], port, None
    try:
        connection.connect()
    finally:
        connection.host, connection.port, connection.redis_connect_func = first


class Fetcher:
    """MGET on connections of its own, without what the client wraps around each command. Thread-safe.

    The pool looks at a connection each time it lends it, and the client counts and retries: more than half of a short
    read's time. Here a connection that was closed while it was idle is noticed by its use, and used anew once.
    """

    def __init__(self, client: "redis.Redis") -> None:
        self._pool = client.connection_pool
        self._idle: list[Any] = []
        self._pid = os.getpid()

    def __call__(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of the keys, None where there is none."""
        if self._pid != os.getpid():  # a fork shares the sockets with its parent
            self._idle, self._pid = [], os.getpid()
        try:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._pool.get_connection()
            try:
                return _asked(connection, keys)
            except (redis.ConnectionError, redis.exceptions.MovedError):
                return _asked(connection, keys)
            finally:
                self._idle.append(connection)
        except _FOREIGN as error:
            raise _translated(error) from error


def _asked(connection: Any, keys: Sequence[str]) -> list[bytes | None]:
    try:
        connection.send_command("MGET", *keys)
        return cast("list[bytes | None]", connection.read_response())
    except BaseException:
        connection.disconnect()  # an answer that is still to come must not be taken for another one's
        raise


@contextmanager
def failures(client: "redis.Redis") -> Iterator[None]:
    """Turns what Redis raises into `Unavailable`, or `Permanent` where waiting cannot help."""
    try:
        yield
    except _FOREIGN as error:
        let_go(client, error)
        raise _translated(error) from error


def let_go(client: "redis.Redis", error: Exception) -> None:
    """After a refusal drop the connections that nobody uses: it may be another server by now that has the key.

    Another thread's connection finds that out by itself.
    """
    if isinstance(error, redis.ResponseError):
        client.connection_pool.disconnect(inuse_connections=False)


def _translated(error: Exception) -> TidemillError:
    if isinstance(error, _REFUSED):
        return Permanent(f"Redis refuses this user: {error}")
    if not isinstance(error, redis.ResponseError):
        return Unavailable(f"Redis does not answer: {error}", hint="is it running? `tidemill status` tells")
    if isinstance(error, _PASSES) or str(error).startswith(("BUSY", "MISCONF")):
        return Unavailable(f"Redis cannot take it now: {error}")
    return Permanent(f"Redis refuses: {error}")
