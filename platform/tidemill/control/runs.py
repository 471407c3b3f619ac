"""Where a run keeps its files on one machine, and the file in which it tells how far it is."""

from pathlib import Path

import msgspec

from tidemill.control.protocols import RunSeen

__all__ = ["read_run", "run_folder", "write_run"]

_STATE = "state.json"


def run_folder(state: Path, model: str, run: str) -> Path:
    """The folder of a run: `<state>/runs/<model>/<run>`. Runs of two models may start in the same second."""
    return state / "runs" / model / run


def read_run(folder: Path) -> RunSeen | None:
    """What the run in `folder` last said of itself; None where it has said nothing that can be read."""
    try:
        return msgspec.json.decode((folder / _STATE).read_bytes(), type=RunSeen)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def write_run(folder: Path, seen: RunSeen) -> None:
    """Say how far the run in `folder` is; a reader sees the old or the new state, never half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{_STATE}.{seen.state}"
    partial.write_bytes(msgspec.json.encode(seen))
    partial.replace(folder / _STATE)
