"""`tidemill demo`: the acts in their order, an orderly end whatever happens, and what is written of it."""

import os
import shutil
import signal
from pathlib import Path

import msgspec
from rich.console import Console

from tidemill.core.clock import SystemClock
from tidemill.core.errors import Conflict
from tidemill.core.files import try_lock
from tidemill.core.settings import Settings
from tidemill.stack.running import stop

from . import report
from .acts import Acts, Options
from .live import open_screen
from .result import Result
from .story import story_of

__all__ = ["Options", "tell"]


def tell(options: Options, settings: Settings, console: Console) -> Result:
    """Tell the story, and write `result.json` and `report.html` into the options' folder.

    Args:
        options: what to tell, and how large.
        settings: of this installation; the demo's own state folder is taken, and no server of anybody else.
        console: where it is told.

    Raises:
        TidemillError: the stack does not come up, a wait was in vain, or control decided otherwise. Nothing runs
            any more then, unless it is to be kept.
    """
    clock = SystemClock()
    state = options.folder.resolve() / "state"
    options.folder.mkdir(parents=True, exist_ok=True)
    _only_one(options.folder / "demo.lock")
    stop(state, clock=clock)
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with open_screen(console, clock) as screen:
        acts = Acts(options, settings.model_copy(update={"state": state}), screen, clock)
        result = _told(acts)
    _write(acts, result)
    return result


def _only_one(lock: Path) -> None:
    """Two demos in one folder would end each other's stack. The lock goes with this process."""
    if not try_lock(os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)):
        raise Conflict(f"another demo runs in {lock.parent}", hint="wait for its end, or start this one elsewhere")


def _told(acts: Acts) -> Result:
    try:
        acts.bring_up()
        acts.first_version()
        if acts.options.drift:
            acts.new_light()
            acts.bad_candidate()
        else:
            acts.stationary()
        return acts.close()
    except BaseException:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the end is under way already
        acts.abandon()
        raise


def _write(acts: Acts, result: Result) -> None:
    folder = acts.options.folder
    (folder / "result.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    (folder / "report.html").write_text(report.render(story_of(acts.recording, acts.moments, result)))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
