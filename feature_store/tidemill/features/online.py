"""Online rows in Redis: one writer that fences its writes, one reader in one round trip.

Keys of a model's view:

    {<model id>:<view>}:<entity>     a packed row (`tidemill.features.layout`)
    {<model id>:<view>}#names        what the layouts and sources are that rows name by 64 bits
    {<model id>:<view>}#generation   which filling of the store counts, and whether it is complete:
        ready:<token>:<run id>:<windows id>    rows with this token are complete, for this set of windows
        rebuilding:<token>                     rows are being written from the lake; readers get REBUILDING

The generation gone, or of another run of the server than this one: what Redis holds may lack events that were
committed, so the rows are rebuilt. Another set of windows: tiles of the new ones can only come from the lake, so the
rows are rebuilt as well. Other fields need no stop: an old row is read by its own layout and gets the new one with its
next event. Rows of another token do not count.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain, islice
from secrets import token_hex
from threading import Event, Thread
from typing import Any, NamedTuple, cast

import numpy as np
import polars as pl

from tidemill.core.errors import Corrupt, Permanent, TidemillError, Transient, Unavailable
from tidemill.features.connection import (
    READY,
    REBUILDING,
    Generation,
    Keys,
    Names,
    connect,
    failures,
    token_word,
    unpacked,
)
from tidemill.features.layout import EVENTS, Layout
from tidemill.features.packing import Fences, Rows, headers_of, pack
from tidemill.features.partials import Ints
from tidemill.features.parts import Part, by_entities
from tidemill.features.reader import OnlineReader, OnlineRow, Status
from tidemill.features.rows import adapted, fold, fresh, source_id, sources_of, stacked

__all__ = ["Filling", "OnlineReader", "OnlineRow", "OnlineRows", "RowsLost", "Status"]

_CHUNK = 512
"""Rows per command: about 100 kB, well under a millisecond of the server's only thread."""
_REBUILD_MS = 15_000
"""A rebuild of which nothing was heard for this long is believed dead; another worker may take over."""

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


class Filling(NamedTuple):
    """What a lost store is filled with: events of one lake version, and how far that version has each source."""

    fence: Mapping[str, int]
    parts: Iterable[pl.DataFrame]
    """Of each entity, in one of the frames, its last event and those that its windows may still hold."""
    gone: Collection[str] = ()
    """Sources of these events that no one reads any more: rows need no fence of them."""


class RowsLost(Transient):
    """The rows in Redis are not those that this writer knew: rebuild them before going on."""


class _Changed(NamedTuple):
    """Rows to be written, and what is expected in their places."""

    entities: list[str]
    headers: list[bytes]
    """Of the row that is there; empty where there is none."""
    rows: list[bytes]


class OnlineRows:
    """Writes rows of one view. One thread; any number of processes.

    Args:
        redis_url: where the rows are.
        model_id: `<namespace>.<name>`.
        layout: what the rows hold.
        view: name of the view.

    Every method raises `Unavailable` where Redis does not answer; calling again is safe.
    """

    def __init__(self, redis_url: str, model_id: str, layout: Layout, view: str = EVENTS) -> None:
        self.layout = layout
        self._keys = Keys(model_id, view)
        self._redis = connect(redis_url, 5.0, self._keys.generation)
        self._names = Names(self._redis, self._keys.names)
        self._token: str | None = None
        """The filling that events are applied to; another one may have no fence of sources that are gone by now."""
        self._compare_and_set = self._redis.register_script(_COMPARE_AND_SET)
        self._fill = self._redis.register_script(_FILL)
        self._swap = self._redis.register_script(_SWAP)

    def check(self) -> str | None:
        """Why this server may not keep rows safely, or None. Raises `Permanent` where it would evict them."""
        try:
            with failures(self._redis):
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
        return self._generation(self._run_id()).state == READY

    def forget(self) -> bool:
        """Have the rows filled anew by their writer; readers get REBUILDING until then. False: they are not complete.

        Nothing is filled while no writer runs.
        """
        if not self.ready():
            return False
        with failures(self._redis):
            self._redis.delete(self._keys.generation)
        return True

    def apply(self, events: pl.DataFrame) -> int:
        """Bring each entity's row up to its events; what a row has already is left out.

        `events` has the columns entity, source, offset, event_time, available_at, the layout's fields and what its
        windows are of. Of one source it has all there are between two of its offsets. Returns how many writes were
        refused because someone else had moved a fence, and done again (many mean that records are not keyed by
        entity). Raises `RowsLost` where the rows were lost or filled anew, or cannot be read: rebuild, then apply the
        same events again, if their source is still read.
        """
        refusals = 0
        while events.height:
            refused = self._apply(by_entities(events))
            refusals += len(refused)
            events = events.filter(pl.col("entity").is_in(refused)) if refused else events.clear()
        return refusals

    def rebuild(self, load: Callable[[], Filling], *, force: bool = False) -> bool:
        """Fill the store from the lake unless it is complete (`force`: even then). Returns whether it was filled.

        `load` is called when no one else writes rows any more, so that what it reads holds all that was applied.
        Raises `Unavailable` while another worker rebuilds, and `RowsLost` where that one took over.
        """
        # Of the server before anything is written: one that is started again meanwhile may forget some of it.
        run_id = self._run_id()
        now = self._generation(run_id)
        if now.state == READY and not force:
            self._token = now.token
            return False
        if now.state == REBUILDING:
            raise Unavailable("another worker is rebuilding the online rows")
        token = token_hex(8)
        mine = f"{REBUILDING}:{token}"
        self._move(now.raw, mine, _REBUILD_MS)
        with self._kept(mine):
            filling = load()
            self._names.tell(mine, self.layout, [*filling.fence, *filling.gone])
            for part in filling.parts:
                for entities, events, owner in by_entities(part):
                    self._fill_in(mine, token, entities, self._filled(events, owner, len(entities), filling.fence))
        self._move(mine, f"{READY}:{token}:{run_id}:{self.layout.windows_id}", 0)
        self._token = token
        return True

    def close(self) -> None:
        """Drop the connections."""
        self._redis.close()

    def _apply(self, parts: Iterable[Part]) -> list[str]:
        """Every entity once; returns those whose writes were refused.

        No entity is in two parts. So while one is folded, Redis is asked for the one after and writes the one before;
        at most two such questions are under way.
        """
        with ThreadPoolExecutor(2, "online-rows") as redis:
            reads = ((part, redis.submit(self._read, part.entities)) for part in parts)
            writes, ahead = [], next(reads, None)
            while ahead is not None:
                (part, read), ahead = ahead, next(reads, None)
                generation, found = read.result()
                writes.append(redis.submit(self._write, generation, self._changed(part, generation, found)))
            return [entity for write in writes for entity in write.result()]

    def _changed(self, part: Part, generation: "Generation", found: Sequence[bytes | None]) -> _Changed:
        """What becomes of the rows that these events change."""
        rows = self._current(generation, found)
        events, owner = part.some(fresh(rows, part.events, part.owner))
        touched, owner = np.unique(owner, return_inverse=True)
        if len(touched) < len(rows):
            rows = rows.take(touched)
        self._names.tell(generation.raw, self.layout, sources_of(events)[1])
        packed = pack(self.layout, generation.word, fold(self.layout, rows, events, owner, self._names.sources))
        which = touched.tolist()
        return _Changed([part.entities[at] for at in which], headers_of([found[at] for at in which]), packed)

    def _current(self, generation: "Generation", found: Sequence[bytes | None]) -> Rows:
        try:
            groups = unpacked(self._names, generation, found)
        except Corrupt as error:
            self._move(generation.raw, "", 0)  # they do not count any more, so that a rebuild fills them
            raise RowsLost(f"the online rows are not those that were written: {error}") from error
        parts = [(at, adapted(rows, layout, self.layout)) for layout, at, rows in groups]
        return stacked(self.layout, len(found), parts)

    def _write(self, generation: "Generation", changed: _Changed) -> list[str]:
        """Write each row whose header is as expected; returns the entities of the others."""
        with failures(self._redis):
            pipe = self._redis.pipeline(transaction=False)
            for first in range(0, len(changed.rows), _CHUNK):
                part = slice(first, first + _CHUNK)
                pairs = zip(changed.headers[part], changed.rows[part], strict=True)
                self._compare_and_set(
                    keys=[self._keys.generation, *self._keys.rows(changed.entities[part])],
                    args=[generation.raw, *chain.from_iterable(pairs)],
                    client=pipe,
                )
            answers = pipe.execute()
        if -1 in answers:
            raise RowsLost("the online rows were lost while they were written")
        refused = [_CHUNK * number + position for number, answer in enumerate(answers) for position in answer]
        return [changed.entities[at] for at in refused]

    def _filled(self, events: pl.DataFrame, owner: Ints, count: int, fence: Mapping[str, int]) -> Rows:
        rows = fold(self.layout, Rows.empty(self.layout, count), events, owner, self._names.sources)
        ids = sorted((source_id(source), offset) for source, offset in fence.items())
        fences = Fences(
            np.repeat(np.arange(count), len(ids)),
            np.tile(np.array([number for number, _ in ids], dtype=np.int64), count),
            np.tile(np.array([offset for _, offset in ids], dtype=np.int64), count),
        )
        return replace(rows, fences=fences)

    def _fill_in(self, mine: str, token: str, entities: Sequence[str], rows: Rows) -> None:
        packed = iter(zip(entities, pack(self.layout, token_word(token), rows), strict=True))
        while chunk := list(islice(packed, _CHUNK)):
            keys = [self._keys.generation, *self._keys.rows(entity for entity, _ in chunk)]
            with failures(self._redis):
                answer = self._fill(keys=keys, args=[mine, _REBUILD_MS, *(row for _, row in chunk)])
            if answer == -1:
                raise RowsLost("the rebuild of the online rows took too long, and another worker went on with it")

    def _read(self, entities: Sequence[str]) -> tuple["Generation", list[bytes | None]]:
        keys = self._keys.rows(entities)
        with failures(self._redis):
            pipe = self._redis.pipeline(transaction=False)
            pipe.info("server")
            pipe.get(self._keys.generation)
            for first in range(0, len(keys), _CHUNK):
                pipe.mget(keys[first : first + _CHUNK])
            info, raw, *found = pipe.execute()
        generation = Generation.parse(raw).seen_by(info["run_id"], self.layout)
        if generation.state != READY:
            raise RowsLost("the online rows are gone, or the server holds an older copy of them")
        self._token = self._token or generation.token
        if generation.token != self._token:
            raise RowsLost("the online rows were filled anew")
        return generation, [row for part in found for row in part]

    def _generation(self, run_id: str) -> "Generation":
        with failures(self._redis):
            raw = cast("bytes | None", self._redis.get(self._keys.generation))
        return Generation.parse(raw).seen_by(run_id, self.layout)

    @contextmanager
    def _kept(self, mine: str) -> Iterator[None]:
        """Others wait as long as this process lives, however long the lake takes to answer."""
        done = Event()

        def keep() -> None:
            while not done.wait(_REBUILD_MS / 3000):
                with suppress(TidemillError), failures(self._redis):
                    self._fill(keys=[self._keys.generation], args=[mine, _REBUILD_MS])

        thread = Thread(target=keep, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _run_id(self) -> str:
        with failures(self._redis):
            return str(cast("dict[str, Any]", self._redis.info("server"))["run_id"])

    def _move(self, expected: str, new: str, life_ms: int) -> None:
        with failures(self._redis):
            if self._swap(keys=[self._keys.generation], args=[expected, new, life_ms]) == -1:
                raise RowsLost("another worker rebuilds the online rows")
