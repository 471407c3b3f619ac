"""The pipeline's steps: one function each, files in, files out.

A step tells how far the run is. One that fails for good tells control, so that the grant is free again; where waiting
may help it fails without a word, and KFP tries it again. What only one of them needs is imported in its function: each
step is its own process, and waits for every import.
"""

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tidemill.control.protocols import RunSeen
from tidemill.control.runs import run_of, write_run
from tidemill.core.errors import Conflict, InvalidInput, TidemillError, Transient
from tidemill.retrain import grant as control
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import GRANT_FILE, RUN, RUN_FOLDER, Place, here

__all__ = [
    "LIMITS_S",
    "STEPS",
    "TIMES_FILE",
    "claim",
    "evaluate",
    "gate",
    "propose",
    "register",
    "snapshot",
    "train",
    "validate",
]

STEPS = ("claim", "snapshot", "validate", "train", "evaluate", "gate", "register", "propose")
"""In their order."""
LIMITS_S = {
    "claim": 300.0,
    "snapshot": 3600.0,
    "validate": 3600.0,
    "train": 10 * 3600.0,
    "evaluate": 2 * 3600.0,
    "gate": 900.0,
    "register": 900.0,
    "propose": 300.0,
}
"""Seconds that each may take: then it ends and says so. Together less than three halves of a grant's time (12 h)."""
TOLD_WITHIN_S = 60.0
"""A step whose time is over ends after this at the latest, whether control could be told or not."""
TIMES_FILE = "steps.jsonl"
"""In the run's folder on one machine: how long each step took, one JSON object a line."""

T = TypeVar("T", bound=msgspec.Struct)


def claim(
    model: str, reason: str, force: bool, skip_gates: bool, image: str, run_name: str, run_id: str, granted: str
) -> bool:
    """Ask for the right to run; False where control refuses it, which ends the run green."""
    with _step("claim", model) as place:
        given = os.environ.get(RUN)
        run, uid = (given, "") if given else (run_of(run_name, run_id), run_id)
        if _run_folder() is None:
            _check_image(place, image)
        found = control.claim(place, run, reason=reason, force=force, skip_gates=skip_gates, uid=uid)
        # Written in either case: a declared output that is missing is a failure on a cluster.
        _write(granted, found or {})
        if found and (folder := _run_folder()):
            _write(str(folder / GRANT_FILE), found)
        return found is not None


def snapshot(model: str, wanted: str, granted: str, taken: str) -> dict[str, Any]:
    """Write the run's dataset, or take the one that is wanted again; figures for the UI."""
    with _step("snapshot", model, granted) as place:
        from tidemill.retrain import data

        found = data.snapshot(place, _read(granted, Grant), wanted)
        Path(taken).write_text(json.dumps({"digest": found.digest, "folder": str(found.folder)}))
        return {"digest": found.digest, **found.record.rows}


def validate(model: str, granted: str, taken: str, verdicts: str) -> None:
    """Fail where the dataset is not fit to learn from; what its gates say is for the run's page."""
    with _step("validate", model, granted) as place:
        from tidemill.retrain import data
        from tidemill.training.verdict import encode_verdicts

        grant = _read(granted, Grant)
        found = data.validate(place, data.open_from(place, grant, _digest(taken)), skip=grant.skip_gates)
        Path(verdicts).write_text(encode_verdicts(found))


def train(model: str, granted: str, taken: str, candidate: str) -> dict[str, Any]:
    """Train and write the version; figures for the UI."""
    with _step("train", model, granted) as place:
        from tidemill.retrain import data, version

        grant = _read(granted, Grant)
        taken_snapshot = data.open_from(place, grant, _digest(taken))
        manifest = version.train(place, grant, taken_snapshot, tell=lambda words: _progress("train", progress=words))
        _write(candidate, manifest)
        return {"version": manifest.version, "artifact": place.version_uri(grant.run), "warm_from": manifest.warm_from}


def evaluate(model: str, granted: str, taken: str, evaluation: str) -> dict[str, Any]:
    """Let candidate and champion answer the fresh rows; figures and confusion matrices for the UI."""
    with _step("evaluate", model, granted) as place:
        from tidemill.retrain import data, report, version

        grant = _read(granted, Grant)
        found = version.evaluate(place, grant, data.open_from(place, grant, _digest(taken)))
        _write(evaluation, found)
        champion = {"champion_error": found.champion.mean} if found.champion else {}
        matrices = {"candidate": found.candidate, "champion": found.champion}
        return {"figures": {"candidate_error": found.candidate.mean, **champion}} | {
            name: report.matrix(found, scores) for name, scores in matrices.items()
        }


def gate(model: str, granted: str, taken: str, evaluation: str, of_data: str, verdicts: str, report: str) -> bool:
    """Judge the candidate, and write the run's page; False where a gate refuses it, which ends the run green."""
    with _step("gate", model, granted) as place:
        from tidemill.evaluation.gates import decode_verdicts, encode_verdicts, judge, may_pass
        from tidemill.evaluation.scoring import Evaluation
        from tidemill.retrain import data
        from tidemill.retrain.report import render

        grant, compared = _read(granted, Grant), _read(evaluation, Evaluation)
        found = judge(place.resource.spec.gates, compared, skip=grant.skip_gates)
        Path(verdicts).write_text(encode_verdicts(found))
        record = data.open_from(place, grant, _digest(taken)).record
        before = decode_verdicts(Path(of_data).read_text())
        Path(report).write_text(render(grant, record, compared, (*before, *found), snapshot=_digest(taken)))
        for verdict in found:
            print(verdict, flush=True)
        passed = may_pass(found)
        if not passed:
            control.tell_refused(place, grant, found)
        return passed


def register(model: str, granted: str, taken: str, evaluation: str, verdicts: str) -> str:
    """Enter the version into the registry; its artifact."""
    with _step("register", model, granted) as place:
        from tidemill.evaluation.gates import decode_verdicts
        from tidemill.evaluation.scoring import Evaluation
        from tidemill.retrain import data, lineage

        grant = _read(granted, Grant)
        record = data.open_from(place, grant, _digest(taken)).record
        found = decode_verdicts(Path(verdicts).read_text())
        return lineage.register(place, grant, record, _read(evaluation, Evaluation), found)


def propose(model: str, granted: str, verdicts: str, artifact: str) -> None:
    """Hand the version to control."""
    with _step("propose", model, granted) as place:
        from tidemill.evaluation.gates import decode_verdicts

        control.propose(place, _read(granted, Grant), artifact, decode_verdicts(Path(verdicts).read_text()))


@contextmanager
def _step(name: str, model: str, granted: str | None = None) -> Iterator[Place]:
    """Run a step: its surroundings, its progress, and the word to control where it fails."""
    place: Place | None = None
    _progress(name)
    deadline = threading.Timer(LIMITS_S[name], _run_out, (name, model, granted))
    deadline.daemon = True
    deadline.start()
    try:
        place = here(model)
        begun = place.clock.monotonic()
        if granted is not None:
            _check_alive(place, granted)
        yield place
        _time(name, place.clock.monotonic() - begun)
    except _RunOver as over:
        print(f"{name} does nothing: {over.message}", file=sys.stderr, flush=True)
        _progress(name, error=over.message)
        raise
    except Exception as error:
        message = error.message if isinstance(error, TidemillError) else f"{type(error).__name__}: {error}"
        hint = error.hint if isinstance(error, TidemillError) else None
        print(f"{name} failed: {message}" + (f"\n  {hint}" if hint else ""), file=sys.stderr, flush=True)
        _progress(name, error=message)
        # KFP tries again what waiting may heal; where it does not, the runner shows the end.
        if place is not None and granted is not None and not isinstance(error, Transient):
            _tell(place, granted, name, message)
        raise
    finally:
        deadline.cancel()


def _run_out(name: str, model: str, granted: str | None) -> None:
    """The step's time is over: it ends, whatever it is waiting for."""
    message = f"it did not end within {LIMITS_S[name] / 60:g} minutes"
    print(f"{name} failed: {message}", file=sys.stderr, flush=True)
    _progress(name, error=message)
    if granted is not None:
        # Of what it waits for now, it may wait without end: a broker, a file system.
        telling = threading.Thread(target=_tell_elsewhere, args=(model, granted, name, message), daemon=True)
        telling.start()
        telling.join(TOLD_WITHIN_S)
    os._exit(1)


def _tell_elsewhere(model: str, granted: str, name: str, message: str) -> None:
    with suppress(Exception):
        _tell(here(model), granted, name, message)


def _check_image(place: Place, image: str) -> None:
    wanted = place.resource.spec.model.image
    if wanted is not None and image != wanted:
        raise InvalidInput(
            f"the run's image is {image}, and spec.model.image of {place.resource.id} is {wanted}",
            hint="start it again with the parameter `image` as the resource has it",
        )


class _RunOver(Conflict):
    """An earlier try of a step has failed for good."""


def _check_alive(place: Place, granted: str) -> None:
    """Raise the failure of an earlier try: KFP repeats a step whatever its failure was."""
    with suppress(FileNotFoundError):
        raise _RunOver(
            f"the run is over: {place.end_file(_read(granted, Grant).run).read_text()}", hint="start another run"
        )


def _tell(place: Place, granted: str, name: str, message: str) -> None:
    try:
        end = place.end_file(_read(granted, Grant).run)
        end.parent.mkdir(parents=True, exist_ok=True)
        end.write_text(f"{name} failed: {message}")
    except OSError as error:
        # A full disk, which may be what the step failed of: control is told all the same.
        print(f"why the run is over could not be kept: {error}", file=sys.stderr, flush=True)
    try:
        control.tell_failed(place, _read(granted, Grant), name, message)
    except TidemillError as error:
        # The step's own error is the one to see; control learns of the end from the runner, or the grant expires.
        print(f"control could not be told: {error.message}", file=sys.stderr, flush=True)


def _progress(step: str, *, error: str | None = None, progress: str | None = None) -> None:
    if folder := _run_folder():
        # For people alone: a full disk must not keep a step from telling control that it failed.
        with suppress(OSError):
            write_run(folder, RunSeen(run=folder.name, state="running", step=step, error=error, progress=progress))


def _time(step: str, seconds: float) -> None:
    if folder := _run_folder():
        with (folder / TIMES_FILE).open("a") as file:
            file.write(json.dumps({"step": step, "seconds": round(seconds, 3)}) + "\n")


def _run_folder() -> Path | None:
    """Where a run on one machine tells how far it is; None on a cluster, where KFP shows it."""
    folder = os.environ.get(RUN_FOLDER)
    return Path(folder) if folder else None


def _digest(taken: str) -> str:
    return str(json.loads(Path(taken).read_text())["digest"])


def _read(path: str, kind: type[T]) -> T:
    return msgspec.json.decode(Path(path).read_bytes(), type=kind)


def _write(path: str, value: Any) -> None:
    Path(path).write_bytes(msgspec.json.encode(value))
