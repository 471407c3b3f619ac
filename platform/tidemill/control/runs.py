"""What a run is called; where it keeps its files on one machine, and the file in which it tells how far it is."""

import re
from pathlib import Path

import msgspec

from tidemill.control.protocols import RunSeen

__all__ = ["COMPILED", "read_run", "run_folder", "run_of", "said_at", "write_run"]

_PLACES = (Path(__file__).parents[3] / "pipelines" / "retrain.yaml", Path(__file__).parents[1] / "retrain/retrain.yaml")
COMPILED = next((path for path in _PLACES if path.is_file()), _PLACES[0])
"""The compiled pipeline: pipelines/retrain.yaml of the repository, which an installation has beside its code."""
_STATE = "state.json"
_OURS = re.compile(r"r\d{8}-\d{6}")


def run_of(name: str, uid: str) -> str:
    """The run's id, which will be its version's, from what Kubeflow knows of it: its name, and its own id.

    Control names its runs by their ids. Of any other, such as one of the KFP UI, the name is free text.
    """
    return name if _OURS.fullmatch(name) else f"kfp-{uid[:8].lower()}"


def run_folder(state: Path, model: str, run: str) -> Path:
    """The folder of a run: `<state>/runs/<model>/<run>`. Runs of two models may start in the same second."""
    return state / "runs" / model / run


def read_run(folder: Path) -> RunSeen | None:
    """What the run in `folder` last said of itself; None where it has said nothing that can be read."""
    try:
        return msgspec.json.decode((folder / _STATE).read_bytes(), type=RunSeen)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def said_at(folder: Path) -> int:
    """When the run in `folder` last said something of itself, or was begun, in milliseconds since the epoch."""
    file = folder / _STATE
    return round((file if file.is_file() else folder).stat().st_mtime * 1000)


def write_run(folder: Path, seen: RunSeen) -> None:
    """Say how far the run in `folder` is; a reader sees the old or the new state, never half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{_STATE}.{seen.state}"
    partial.write_bytes(msgspec.json.encode(seen))
    partial.replace(folder / _STATE)
