"""Runs a command of `tidemill` as a person would, on the demo's own state folder."""

import os
import subprocess
import sys
from collections.abc import Sequence

from tidemill.core.errors import Permanent
from tidemill.core.settings import Settings, environment

__all__ = ["run_command"]

_WITHIN_S = 90.0


def run_command(arguments: Sequence[str], settings: Settings) -> str:
    """What the command wrote; raises `Permanent` with what it said if it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "tidemill.cli", *arguments],
        env={**os.environ, **environment(settings), "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_WITHIN_S,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise Permanent(f"`tidemill {' '.join(arguments)}` failed with status {done.returncode}:\n{said}")
    return done.stdout
