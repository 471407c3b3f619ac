"""Rows in a Redis Cluster: by the URL of any of its servers, and wherever a view's slot moves."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis
from msgspec.structs import replace

from tidemill.core.clock import SystemClock
from tidemill.core.errors import Unavailable
from tidemill.features.connection import Keys
from tidemill.features.layout import EVENTS, Layout
from tidemill.features.online import Filling, OnlineReader, OnlineRows, RowsLost, Status
from tidemill.stack import redis as redis_process
from tidemill.stack.ports import HOST, free_ports
from tidemill.testing.process import running
from tidemill.testing.waiting import eventually

pytestmark = pytest.mark.redis

LAYOUT = Layout((("x", "float"),))
SLOTS = 16_384
HIGHEST = 65_535 - 10_000
"""Servers of a cluster speak with each other by a port that is so much higher."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    """Two servers, each with half of the slots."""
    folder = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        nodes = [_server(stack, folder / str(number)) for number in range(2)]
        for number, node in enumerate(nodes):
            node.execute_command("CLUSTER ADDSLOTS", *range(number * SLOTS // 2, (number + 1) * SLOTS // 2))
        nodes[0].execute_command("CLUSTER MEET", HOST, _port(nodes[1]))
        eventually(lambda: all(_agrees(node) for node in nodes), 30)
        yield nodes


def _server(stack: ExitStack, folder: Path) -> Any:
    port = next(port for port in free_ports(50) if port <= HIGHEST)
    wanted = redis_process.prepare(folder, port=port)
    stack.enter_context(running(replace(wanted, argv=(*wanted.argv, "--cluster-enabled", "yes")), folder))
    return stack.enter_context(redis.Redis(host=HOST, port=port))


def _port(node: Any) -> int:
    return int(node.connection_pool.connection_kwargs["port"])


def _agrees(node: Any) -> bool:
    info = node.execute_command("CLUSTER INFO")
    return (info["cluster_state"], info["cluster_known_nodes"]) == ("ok", "2")


def _url(node: Any) -> str:
    return f"redis://{HOST}:{_port(node)}/0"


def _event(x: float, offset: int) -> pl.DataFrame:
    at = pl.lit(SystemClock().now()).cast(pl.Datetime("us", "UTC"))
    row = pl.DataFrame({"entity": ["a"], "source": ["s"], "offset": [offset], "x": [x]})
    return row.with_columns(event_time=at, available_at=at)


def _x(reader: OnlineReader) -> object:
    (row,) = reader.read(["a"])
    return row.values["x"] if row.status is Status.PRESENT else row.status


def test_any_server_leads_to_the_one_that_has_the_view(servers: list[Any], topic_prefix: str) -> None:
    for number, (written, read) in enumerate([servers, servers[::-1]]):
        model = f"{topic_prefix}.{number}"
        rows, reader = OnlineRows(_url(written), model, LAYOUT), OnlineReader(_url(read), model)
        assert rows.check() is None
        rows.rebuild(lambda: Filling({}, ()))
        rows.apply(_event(2.5, 1))
        assert _x(reader) == 2.5
        rows.close()
        reader.close()


def test_views_are_spread_over_the_servers_and_each_is_whole_on_one(servers: list[Any], topic_prefix: str) -> None:
    with redis.Redis(host=HOST, port=_port(servers[0])) as client:
        slots = [
            {
                client.execute_command("CLUSTER KEYSLOT", key)
                for key in [keys.generation, keys.names, *keys.rows("ab{}")]
            }
            for keys in (Keys(f"{topic_prefix}.{number}", EVENTS) for number in range(50))
        ]
    assert all(len(one) == 1 for one in slots)
    assert len({min(one) < SLOTS // 2 for one in slots}) == 2


def test_rows_whose_slot_has_moved_are_filled_anew_on_the_server_that_has_it(
    servers: list[Any], topic_prefix: str
) -> None:
    rows, reader = OnlineRows(_url(servers[0]), topic_prefix, LAYOUT), OnlineReader(_url(servers[0]), topic_prefix)
    rows.rebuild(lambda: Filling({}, ()))
    rows.apply(_event(2.5, 1))
    assert _x(reader) == 2.5
    slot = int(servers[0].execute_command("CLUSTER KEYSLOT", Keys(topic_prefix, EVENTS).generation))
    before = slot >= SLOTS // 2
    old, new = servers[before], servers[not before]
    old.flushall()
    owner = new.execute_command("CLUSTER MYID")
    for node in (new, old):
        node.execute_command("CLUSTER SETSLOT", slot, "NODE", owner)
    with pytest.raises(Unavailable, match="Redis cannot take it now"):
        rows.apply(_event(3.5, 2))
    with pytest.raises(RowsLost):
        rows.apply(_event(3.5, 2))
    rows.rebuild(lambda: Filling({"s": 1}, [_event(2.5, 1)]))
    rows.apply(_event(3.5, 2))
    assert _x(reader) == 3.5  # its connection finds out by its use, and asks once more
    assert new.exists(Keys(topic_prefix, EVENTS).generation)
    rows.close()
    reader.close()
