"""Online rows in Redis: one writer that fences its writes, one reader in one round trip.

Keys of a model's view: `<model id>:<view>:<entity>` (a packed row) and `<model id>:<view>#generation`, which says
which filling of the store counts, whether it is complete, and on which run of the server it was made:

    ready:<token>:<run id>        rows with this token are complete
    rebuilding:<token>            rows are being written from the lake; readers get REBUILDING, never a part

The key gone, or another run of the server than the one named: what Redis holds may lack events that were committed,
so the rows are rebuilt. Rows of another token do not count.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from secrets import token_hex
from typing import Any, NamedTuple, TypeVar, cast

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tidemill.core.errors import Permanent, Transient, Unavailable
from tidemill.features.rows import Last, OnlineEvent, Row, Value, fold, pack, unpack

__all__ = ["Filling", "OnlineReader", "OnlineRow", "OnlineRows", "RowsLost", "Status"]

_T = TypeVar("_T")

_CHUNK = 512
"""Rows per round trip: about 100 kB, well under a millisecond of the server's only thread."""

_REBUILD_MS = 60_000
"""A rebuild that writes nothing for this long is believed dead; another worker may take over."""

_READY, _REBUILDING = "ready", "rebuilding"

_PASSES = (  # a failover or a full memory ends; other refusals are our mistake or a missing right
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)

# KEYS: generation, rows…; ARGV: expected generation, then (expected header or empty, new row)…
_COMPARE_AND_SET = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local refused = {}
for i = 2, #KEYS do
  local expected = ARGV[2 * i - 2]
  local unchanged
  if expected == '' then
    unchanged = redis.call('EXISTS', KEYS[i]) == 0
  else
    unchanged = redis.call('GETRANGE', KEYS[i], 0, #expected - 1) == expected
  end
  if unchanged then redis.call('SET', KEYS[i], ARGV[2 * i - 1]) else refused[#refused + 1] = i - 2 end
end
return refused
"""

# KEYS: generation, rows…; ARGV: expected generation, its life in ms, then rows…
_FILL = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1]) end
return 0
"""

# KEYS: generation; ARGV: expected (empty: none), new, its life in ms (0: for ever)
_SWAP = """
local now = redis.call('GET', KEYS[1]) or ''
if now ~= ARGV[1] then return -1 end
if ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 0
"""


class Status(StrEnum):
    """Whether a row could be read."""

    PRESENT = "PRESENT"
    NOT_FOUND = "NOT_FOUND"
    """There has been no event of this entity."""
    REBUILDING = "REBUILDING"
    """The store was lost and is being filled again; ask later."""


class OnlineRow(msgspec.Struct, frozen=True):
    """One entity's values as they were when read. `fence` says from which events: log it with the prediction."""

    status: Status
    values: dict[str, Value] = {}
    event_time: int | None = None
    """Event time of the values, milliseconds since the epoch."""
    fence: dict[str, int] = {}


class Filling(NamedTuple):
    """What a lost store is filled with: rows of one lake version, and how far that version has each source."""

    fence: Mapping[str, int]
    rows: Iterable[tuple[str, Last]]
    """Entity and state."""


class RowsLost(Transient):
    """The rows in Redis are not what was written there: rebuild them before going on."""


class OnlineReader:
    """Reads rows of one view in one round trip, however many. Thread-safe.

    Args:
        redis_url: where the rows are.
        model_id: `<namespace>.<name>`.
        view: name of the view.
        timeout_s: longest time for one answer.
    """

    def __init__(self, redis_url: str, model_id: str, view: str = "events", *, timeout_s: float = 1.0) -> None:
        self._keys = _Keys(model_id, view)
        self._redis = _connect(redis_url, timeout_s)

    def read(self, entities: Sequence[str]) -> list[OnlineRow]:
        """A row for each of `entities`, in their order; raises `Unavailable` where Redis does not answer."""
        keys = [self._keys.generation, *map(self._keys.row, entities)]
        with _failures():
            found = cast("list[bytes | None]", self._redis.mget(keys))
        generation = _Generation.parse(found[0])
        if generation.state != _READY:
            return [OnlineRow(Status.REBUILDING) for _ in entities]
        return [_answer(generation.token, data) for data in found[1:]]

    def close(self) -> None:
        """Drop the connections."""
        self._redis.close()


class OnlineRows:
    """Writes rows of one view. One thread; any number of processes.

    Args:
        redis_url: where the rows are.
        model_id: `<namespace>.<name>`.
        view: name of the view.

    Every method raises `Unavailable` where Redis does not answer; calling again is safe.
    """

    def __init__(self, redis_url: str, model_id: str, view: str = "events") -> None:
        self._keys = _Keys(model_id, view)
        self._redis = _connect(redis_url, 5.0)
        self._compare_and_set = self._redis.register_script(_COMPARE_AND_SET)
        self._fill = self._redis.register_script(_FILL)
        self._swap = self._redis.register_script(_SWAP)

    def check(self) -> str | None:
        """Why this server cannot keep rows safely, or None. Raises `Permanent` where it would evict them."""
        try:
            with _failures():
                policy = cast("dict[str, str]", self._redis.config_get("maxmemory-policy")).get("maxmemory-policy")
        except Permanent:
            return "Redis does not tell its maxmemory-policy; it must be noeviction"
        if policy != "noeviction":
            raise Permanent(
                f"Redis has maxmemory-policy {policy}: it would drop rows silently",
                hint="redis-cli config set maxmemory-policy noeviction",
            )
        return None

    def ready(self) -> bool:
        """Whether the rows are complete: no rebuild is needed or going on."""
        return self._generation().state == _READY

    def forget(self) -> bool:
        """Have the rows filled anew by their writer; readers get REBUILDING until then. False: they are not complete.

        Nothing is filled while no writer runs.
        """
        if not self.ready():
            return False
        with _failures():
            self._redis.delete(self._keys.generation)
        return True

    def apply(self, events: Iterable[OnlineEvent]) -> int:
        """Bring each entity's row up to its events; what a row has already is left out.

        Events of one source come in offset order. Returns how many writes were refused because someone else had
        moved a fence, and done again (many mean that records are not keyed by entity). Raises `RowsLost` where the
        store was lost: rebuild, then apply the same events again.
        """
        pending: dict[str, list[OnlineEvent]] = defaultdict(list)
        for event in events:
            pending[event.entity].append(event)
        refusals = 0
        while pending:
            refused = [entity for chunk in _chunks(pending) for entity in self._apply(chunk, pending)]
            refusals += len(refused)
            pending = {entity: pending[entity] for entity in refused}
        return refusals

    def rebuild(self, load: Callable[[], Filling], *, force: bool = False) -> bool:
        """Fill the store from the lake unless it is complete (`force`: even then). Returns whether it was filled.

        `load` is called when no one else writes rows any more, so that what it reads holds all that was applied.
        Raises `Unavailable` while another worker rebuilds, and `RowsLost` where that one took over.
        """
        now = self._generation()
        if now.state == _READY and not force:
            return False
        if now.state == _REBUILDING:
            raise Unavailable("another worker is rebuilding the online rows")
        token = token_hex(8)
        mine = f"{_REBUILDING}:{token}"
        self._move(now.raw, mine, _REBUILD_MS)
        filling = load()
        for chunk in _chunks(filling.rows):
            rows = [pack(Row(token, dict(filling.fence), last)) for _, last in chunk]
            keys = [self._keys.generation, *(self._keys.row(entity) for entity, _ in chunk)]
            with _failures():
                answer = self._fill(keys=keys, args=[mine, _REBUILD_MS, *rows])
            if answer == -1:
                raise RowsLost("the rebuild of the online rows took too long, and another worker went on with it")
        self._move(mine, f"{_READY}:{token}:{self._run_id()}", 0)
        return True

    def close(self) -> None:
        """Drop the connections."""
        self._redis.close()

    def _apply(self, entities: Sequence[str], events: Mapping[str, list[OnlineEvent]]) -> list[str]:
        keys = [self._keys.row(entity) for entity in entities]
        generation, found = self._read(keys)
        writes: list[tuple[str, bytes, bytes, bytes]] = []
        for entity, key, data in zip(entities, keys, found, strict=True):
            row, header = (Row(generation.token, {}), b"") if data is None else unpack(data)
            if row.generation != generation.token:  # left over from before the store was lost
                row = Row(generation.token, {})
            changed = fold(row, events[entity])
            if changed is not row:
                writes.append((entity, key.encode(), header, pack(changed)))
        if not writes:
            return []
        with _failures():
            refused = self._compare_and_set(
                keys=[self._keys.generation, *(key for _, key, _, _ in writes)],
                args=[generation.raw, *(part for _, _, header, row in writes for part in (header, row))],
            )
        if refused == -1:
            raise RowsLost("the online rows were lost while they were written")
        return [writes[i][0] for i in cast("list[int]", refused)]

    def _read(self, keys: Sequence[str]) -> tuple["_Generation", list[bytes | None]]:
        with _failures():
            pipe = self._redis.pipeline(transaction=False)
            pipe.info("server")
            pipe.mget([self._keys.generation, *keys])
            info, found = pipe.execute()
        generation = _Generation.parse(found[0]).seen_by(info["run_id"])
        if generation.state != _READY:
            raise RowsLost("the online rows are gone, or the server holds an older copy of them")
        return generation, found[1:]

    def _generation(self) -> "_Generation":
        with _failures():
            raw = cast("bytes | None", self._redis.get(self._keys.generation))
        return _Generation.parse(raw).seen_by(self._run_id())

    def _run_id(self) -> str:
        with _failures():
            return str(cast("dict[str, Any]", self._redis.info("server"))["run_id"])

    def _move(self, expected: str, new: str, life_ms: int) -> None:
        with _failures():
            if self._swap(keys=[self._keys.generation], args=[expected, new, life_ms]) == -1:
                raise RowsLost("another worker rebuilds the online rows")


class _Keys(NamedTuple):
    model_id: str
    view: str

    @property
    def generation(self) -> str:
        return f"{self.model_id}:{self.view}#generation"

    def row(self, entity: str) -> str:
        return f"{self.model_id}:{self.view}:{entity}"


class _Generation(NamedTuple):
    state: str
    token: str = ""
    run_id: str = ""
    raw: str = ""

    @classmethod
    def parse(cls, raw: bytes | None) -> "_Generation":
        if raw is None:
            return cls("missing")
        text = raw.decode(errors="replace")
        state, _, rest = text.partition(":")
        token, _, run_id = rest.partition(":")
        return cls(state, token, run_id, text)

    def seen_by(self, run_id: str) -> "_Generation":
        """A server that was started again may have come back with an older copy."""
        return self._replace(state="missing") if self.state == _READY and self.run_id != run_id else self


def _answer(token: str, data: bytes | None) -> OnlineRow:
    if data is None:
        return OnlineRow(Status.NOT_FOUND)
    row, _ = unpack(data)
    if row.generation != token or row.last is None:
        return OnlineRow(Status.NOT_FOUND)
    return OnlineRow(Status.PRESENT, row.last.values, row.last.event_time, row.fence)


def _connect(url: str, timeout_s: float) -> "redis.Redis":
    # No silent retries: a connection that broke may lead to a server that has forgotten everything.
    return redis.Redis.from_url(
        url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
    )


def _chunks(items: Iterable[_T]) -> Iterator[list[_T]]:
    left = iter(items)
    while chunk := list(islice(left, _CHUNK)):
        yield chunk


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.AuthorizationError) as error:
        raise Permanent(f"Redis refuses this user: {error}") from error
    except redis.ResponseError as error:
        if isinstance(error, _PASSES) or str(error).startswith(("BUSY", "MISCONF")):
            raise Unavailable(f"Redis cannot take it now: {error}") from error
        raise Permanent(f"Redis refuses: {error}") from error
    except (redis.RedisError, OSError) as error:
        raise Unavailable(f"Redis does not answer: {error}", hint="is it running? `tidemill status` tells") from error
