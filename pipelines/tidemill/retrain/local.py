"""One run on one machine: the compiled pipeline on KFP's own local runner, each step a process.

    python -m tidemill.retrain.local --run RUN --model ID [--parameters JSON]

It tells how far it is in `<state>/runs/<model>/<run>/state.json`; KFP's artifacts lie beside it. On SIGTERM it ends
its steps, gives the grant back, and ends.
"""

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from tidemill.control.protocols import RunSeen
from tidemill.control.runs import read_run, run_folder, write_run
from tidemill.core.errors import TidemillError
from tidemill.core.settings import load_settings
from tidemill.retrain import COMPILED, warm
from tidemill.retrain.place import GRANT_FILE, RUN, RUN_FOLDER

__all__ = ["main", "run"]

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""KFP's messages are for terminals."""
STOPPED = 128 + signal.SIGTERM


class _Stopped(BaseException):
    """SIGTERM came. Not an Exception, so that nothing on the way takes it for a failed step."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pipeline; its exit status: 0, also where control or a gate refused; 1 where a step failed."""
    parser = argparse.ArgumentParser(prog="python -m tidemill.retrain.local", description="Run the retrain pipeline.")
    parser.add_argument("--run", required=True, help="the run's id, which will be its version's")
    parser.add_argument("--model", required=True, help="id of the model: namespace.name")
    parser.add_argument("--parameters", default="{}", help="the pipeline's other parameters, a JSON object")
    given = parser.parse_args(arguments)
    folder = run_folder(load_settings()[0].state, given.model, given.run)
    return run(given.run, given.model, json.loads(given.parameters), folder)


def run(name: str, model: str, parameters: Mapping[str, Any], folder: Path) -> int:
    """Run the pipeline in `folder`, telling there how far it is; its exit status."""
    _lead_group()
    signal.signal(signal.SIGTERM, _stop)
    write_run(folder, RunSeen(run=name, state="running"))
    _prepare_environment(name, folder)
    try:
        warm.start(folder / "warm")
        _run_pipeline({**parameters, "model": model}, folder)
        write_run(folder, msgspec.structs.replace(_told(name, folder), state="succeeded"))
        status = 0
    except _Stopped:
        _fail(name, model, folder, "stopped before it was done")
        status = STOPPED
    except Exception as error:  # KFP raises a bare RuntimeError; a step has told the reason, unless it was killed
        _fail(name, model, folder, f"its process ended without a word ({_COLOUR.sub('', str(error))})")
        status = 1
    _end_group()
    return status


def _run_pipeline(parameters: Mapping[str, Any], folder: Path) -> None:
    from kfp import components, local

    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(folder / "kfp"), raise_on_error=True)
    components.load_component_from_file(str(COMPILED))(**parameters)


def _prepare_environment(name: str, folder: Path) -> None:
    """What the steps inherit."""
    scratch = folder / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ.update({RUN: name, RUN_FOLDER: str(folder), "TMPDIR": str(scratch)})
    # Waiting OpenMP threads that spin take the cores that serving needs: with both cores busy the same training
    # took 20 to 60 times as long. Half the cores are left to serving; a small network gains nothing from more (0.80 ms
    # of CPU a picture on one thread, 1.47 on two).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))


def _fail(name: str, model: str, folder: Path, error: str) -> None:
    """Tell that the run failed: for its runner in the state file, and control."""
    told = _told(name, folder)
    write_run(folder, msgspec.structs.replace(told, state="failed", error=told.error or error))
    _give_back(model, folder, told.step or "start", told.error or error)


def _told(name: str, folder: Path) -> RunSeen:
    """The last word of the run's steps."""
    return read_run(folder) or RunSeen(run=name, state="running")


def _give_back(model: str, folder: Path, step: str, error: str) -> None:
    from tidemill.retrain.grant import Grant, tell_failed
    from tidemill.retrain.place import here

    try:
        grant = msgspec.json.decode((folder / GRANT_FILE).read_bytes(), type=Grant)
        place = here(model)
        if not place.end_file(grant.run).exists():  # else the step has said so itself
            tell_failed(place, grant, step, error)
    except FileNotFoundError:
        return  # nothing was granted
    except TidemillError as failure:
        print(f"control could not be told: {failure.message}", file=sys.stderr, flush=True)


def _lead_group() -> None:
    """Lead a process group, which the steps join, so that they can be ended together and nothing else with them."""
    if os.getpgrp() != os.getpid():
        os.setpgrp()


def _stop(*_: object) -> NoReturn:
    _end_group()
    raise _Stopped


def _end_group() -> None:
    """End what is left of the group but this process: steps, and the warm processes."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(os.getpgrp(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
