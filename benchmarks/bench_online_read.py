"""Online reads against Feast's own Redis store: 20 float features, one entity and a hundred, on one Redis.

Both reach it by the same Unix socket, as `tidemill up` has it. Both are asked in turn, in blocks of 20, for the same
entities: what else the machine does falls on both. (Read by read in turn, each finds the processor's caches full of
the other's work; that costs the shorter read more, and both ratios are about half.) Where Redis runs counts more than
all else of a short read: on the client's core a round trip takes some 8 µs; another core has to be woken, which takes
up to 80 on a virtual machine. So all is read with Redis on the same core, on another, and where the kernel puts it, and
of each contender that place counts where it is fastest. The ratio of each place is told as well.

The peer is `get_online_features` of a FeatureStore at its best: hiredis, neither sentinel nor cluster, a registry in
memory, its answer left as protobuf; ours is a matrix of floats. Further lines: the peer's store without its
FeatureStore (`online_read`, no public interface, with entity keys that are made beforehand and values left as
protobuf), and windows, which are evaluated when they are read.
"""

import os
import socket
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis
import numpy as np
import numpy.typing as npt
import polars as pl
import redis
from benchmarks.ingest.stack import feast_address
from benchmarks.report import Figure, Report, environment

from tidemill.core.clock import from_ms
from tidemill.features.connection import Fetcher, Keys, connect
from tidemill.features.layout import EVENTS, Layout
from tidemill.features.online import Filling, OnlineReader, OnlineRows
from tidemill.features.tiles import tiled
from tidemill.spec.model import Window
from tidemill.stack import redis as redis_process
from tidemill.stack.ports import free_ports
from tidemill.testing.process import running

__all__ = ["run"]

SEED = 11
FEATURES = tuple(f"f{number:02d}" for number in range(20))
NOW_MS = 1_900_000_000_000
MANY = 100
BLOCK = 20
GOAL_ONE, GOAL_MANY = 5, 10
LATENESS = timedelta(minutes=10)
WINDOWS = (
    Window.model_validate({"name": "seen", "agg": "count", "over": ["10m"]}),
    Window.model_validate({"name": "level", "agg": "mean", "of": "f00", "over": ["1h"]}),
)
EVENTS_EACH = 10
"""Events of an entity within its windows, where there are windows."""
PACKAGES = ("redis", "hiredis", "feast", "numpy", "polars")


@dataclass(frozen=True)
class Size:
    """Entities that are there, and reads of each kind at each place."""

    entities: int
    ones: int
    manys: int


SIZES = {"small": Size(5_000, 1_000, 300), "full": Size(50_000, 8_000, 3_000)}

Read = Callable[[Sequence[str]], object]


@dataclass(frozen=True)
class Taken:
    """What reads of one kind took, in milliseconds: by the clock each, and of this process's processor on average."""

    wall: npt.NDArray[np.float64]
    cpu: float

    def at(self, percentile: float) -> float:
        """A percentile of the wall times."""
        return float(np.percentile(self.wall, percentile))


def run(size_name: str) -> Report:
    """Fill both stores and read them in turn."""
    size = SIZES[size_name]
    rng = np.random.default_rng(SEED)
    names = [f"entity-{number}" for number in range(size.entities)]
    values = rng.normal(size=(size.entities, len(FEATURES)))
    with (
        tempfile.TemporaryDirectory(prefix="tidemill-bench-") as folder,
        _redis(Path(folder)) as address,
        _link(address) as link,
    ):
        plain = _ours(address, "plain", (), names, values, 1)
        windowed = _ours(address, "windowed", WINDOWS, names, values, EVENTS_EACH)
        peer, store = _feast(address, Path(folder), names, values)
        assert np.array_equal(plain(names[:3]), values[:3])
        assert [sorted(row) for row in store(names[:3])] == [sorted(row) for row in values[:3].tolist()]
        reads: dict[str, Read] = {"ours": plain, "peer": peer, "windowed": windowed, "store": store.raw}
        reads |= {"bytes": _bytes_alone(address, "plain"), "trip": _round_trip(link, "plain")}
        taken = {
            where: (_in_turn(reads, names, rng, 1, size.ones), _in_turn(reads, names, rng, MANY, size.manys))
            for where in _placements(address)
        }
    ones, manys = ({where: both[at] for where, both in taken.items()} for at in range(2))
    figures = [*_compared(ones, "1 entity", 50, GOAL_ONE), *_compared(manys, f"{MANY} entities", 99, GOAL_MANY)]
    ran: dict[str, Any] = {"seed": SEED, "entities": size.entities, "features": len(FEATURES)}
    ran |= {"reads of 1": size.ones, f"reads of {MANY}": size.manys, "windows": [one.name for one in WINDOWS]}
    return Report("bench", "online-read", size_name, ran, figures, environment(PACKAGES))


def _compared(taken: dict[str, dict[str, Taken]], what: str, percentile: int, goal: int) -> Iterator[Figure]:
    """Each contender where it is fastest, their ratio, and the ratio of each place."""

    def fastest(name: str) -> tuple[float, str]:
        return min((found[name].at(percentile), where) for where, found in taken.items())

    for name, label, note in (
        ("ours", "tidemill", "straight to a matrix"),
        ("peer", "feast", "get_online_features, left as protobuf"),
        ("windowed", "tidemill with 2 windows", "evaluated when they are read"),
        ("store", "feast's store alone", "online_read, left as protobuf"),
    ):
        value, where = fastest(name)
        took = taken[where][name]
        also = f"Redis {where}: p50 {took.at(50):.3f}, p99 {took.at(99):.3f}, processor {took.cpu:.3f}"
        yield Figure(f"{label}, {what} p{percentile}", value, "ms", note=f"{note}; {also}")
    ratio = fastest("peer")[0] / fastest("ours")[0]
    note = "each with Redis where it is fastest"
    yield Figure(f"feast / tidemill, {what} p{percentile}", ratio, "times", f"≥ {goal}", ratio >= goal, note)
    for where, found in taken.items():
        ours, theirs, trip = (found[name].at(percentile) for name in ("ours", "peer", "trip"))
        note = f"{theirs:.3f} / {ours:.3f} ms; {trip:.3f} of each are the bare round trip"
        yield Figure(f"of that, Redis {where}", theirs / ours, "times", note=note)
    yield from _parts(taken[fastest("ours")[1]], what)


def _parts(found: dict[str, Taken], what: str) -> Iterator[Figure]:
    """Where our time goes, in the median."""
    whole, fetched, trip = found["ours"].at(50), found["bytes"].at(50), found["trip"].at(50)
    yield Figure(f"of that the bare round trip, {what} p50", trip, "ms", note="hiredis on a socket: no client saves it")
    yield Figure(f"of that redis-py around it, {what} p50", fetched - trip, "ms", note="the answer thrown away")
    yield Figure(f"of that bytes to matrix, {what} p50", whole - fetched, "ms", note="checks, presence, age, numbers")


def _placements(address: str) -> Iterator[str]:
    """Redis where the kernel puts it, on this process's core, on another one; the last two where they can be chosen."""
    yield "where the kernel puts it"
    if not hasattr(os, "sched_setaffinity") or len(free := sorted(os.sched_getaffinity(0))) < 2:
        return
    with redis.Redis.from_url(address) as client:
        server = cast("dict[str, int]", client.info("server"))["process_id"]
    try:
        for where, core in (("on the same core", free[0]), ("on another core", free[1])):
            os.sched_setaffinity(0, free[:1])
            os.sched_setaffinity(server, [core])
            yield where
    finally:
        os.sched_setaffinity(0, free)


def _in_turn(
    reads: dict[str, Read], names: Sequence[str], rng: np.random.Generator, count: int, times: int
) -> dict[str, Taken]:
    """Each read `times` times, in blocks: a block of each for the same entities, then the next block."""
    wall, cpu = {name: np.empty(times) for name in reads}, dict.fromkeys(reads, 0.0)
    for block in range(-1, times // BLOCK):  # the first is for warming up
        chosen = [[names[at] for at in rng.integers(0, len(names), count)] for _ in range(BLOCK)]
        for name, read in reads.items():
            busy = time.process_time()
            for number, entities in enumerate(chosen):
                begun = time.perf_counter()
                read(entities)
                wall[name][max(0, block) * BLOCK + number] = 1000 * (time.perf_counter() - begun)
            cpu[name] += 1000 * (time.process_time() - busy) * (block >= 0)
    return {name: Taken(wall[name], cpu[name] / times) for name in reads}


def _ours(
    address: str, model: str, windows: tuple[Window, ...], names: Sequence[str], values: Any, each: int
) -> Callable[[Sequence[str]], Any]:
    layout = Layout(tuple((name, "float") for name in FEATURES), tiled(windows, LATENESS))
    rows = OnlineRows(address, model, layout)
    rows.rebuild(lambda: Filling({}, ()))
    for number in range(each):  # oldest first; the last is what the fields are read of
        at = from_ms(NOW_MS - 1000 - (each - 1 - number) * 50_000)
        first = number * len(names)
        rows.apply(_frame(names, values, at, first))
    rows.close()
    reader = OnlineReader(address, model, layout=layout)
    wanted = [*FEATURES, *(window.name for window in layout.windows)]
    return lambda entities: reader.read_matrix(entities, wanted, NOW_MS)[0]


def _frame(names: Sequence[str], values: Any, at: datetime, first: int) -> pl.DataFrame:
    columns: dict[str, Any] = {"entity": names, "offset": np.arange(first, first + len(names))}
    columns |= {name: values[:, number] for number, name in enumerate(FEATURES)}
    times = pl.lit(at).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame(columns).with_columns(source=pl.lit("c/t/0"), event_time=times, available_at=times)


def _bytes_alone(address: str, model: str) -> Read:
    """What our reader asks Redis for, without looking at the answer."""
    keys = Keys(model, EVENTS)
    fetch = Fetcher(connect(address, 1.0, keys.generation))
    return lambda entities: fetch([keys.generation, *keys.rows(entities)])


def _link(address: str) -> socket.socket:
    """A bare connection."""
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(1.0)
    link.connect(unquote(urlsplit(address).path))
    return link


def _round_trip(link: socket.socket, model: str) -> Read:
    """The same question on a bare socket, its answer parsed by hiredis: what every client of Redis takes at least."""
    parser, keys = hiredis.Reader(), Keys(model, EVENTS)

    def read(entities: Sequence[str]) -> object:
        command: Any = ("MGET", keys.generation, *keys.rows(entities))
        link.sendall(hiredis.pack_command(command))
        while (answer := parser.gets()) is False:
            parser.feed(link.recv(65_536))
        return answer

    return read


class _Store:
    """Feast's Redis store, asked directly."""

    def __init__(self, store: Any, view: Any, names: Sequence[str]) -> None:
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        self._config, self._view = store.config, view
        self._store = store._get_provider().online_store
        # The keys are made beforehand: they are not what is compared.
        self._keys = {name: EntityKey(join_keys=["entity"], entity_values=[Value(string_val=name)]) for name in names}

    def raw(self, entities: Sequence[str]) -> Any:
        """The store's answer."""
        return self._store.online_read(self._config, self._view, [self._keys[name] for name in entities], [*FEATURES])

    def __call__(self, entities: Sequence[str]) -> list[list[float]]:
        """The numbers in it."""
        return [[value.double_val for value in (row or {}).values()] for _, row in self.raw(entities)]


def _feast(address: str, folder: Path, names: Sequence[str], values: Any) -> tuple[Read, _Store]:
    """`get_online_features` and `online_read` over Feast's Redis store, filled with the same values."""
    warnings.simplefilter("ignore")
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, String

    online = {"type": "redis", "connection_string": feast_address(address)}
    store = FeatureStore(
        config=RepoConfig(
            project="peer",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store=online,
            entity_key_serialization_version=3,
        )
    )
    entity = Entity(name="entity", join_keys=["entity"], value_type=ValueType.STRING)
    source = FileSource(name="none", path=str(folder / "none.parquet"), timestamp_field="at")
    schema = [Field(name="entity", dtype=String), *(Field(name=name, dtype=Float64) for name in FEATURES)]
    view = FeatureView(name="peer", entities=[entity], schema=schema, source=source, ttl=timedelta(0))
    store.apply([entity, view])
    frame = pd.DataFrame(values, columns=list(FEATURES)).assign(entity=names, at=pd.Timestamp(from_ms(NOW_MS - 1000)))
    store.write_to_online_store("peer", frame)
    alone = _Store(store, store.get_feature_view("peer"), names)
    wanted = [f"peer:{name}" for name in FEATURES]
    return lambda entities: store.get_online_features(wanted, [{"entity": one} for one in entities]), alone


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    """A Redis as `tidemill up` starts it, until the block ends."""
    (port,) = free_ports(1)
    with running(redis_process.prepare(folder, port=port), folder):
        yield redis_process.url(folder, port=port)
