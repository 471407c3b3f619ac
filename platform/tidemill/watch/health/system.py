"""Rules of the processes: there, answering, and what they cost."""

from collections.abc import Iterator

from tidemill.watch.health.lines import Grading, Limits, Line, State, graded
from tidemill.watch.health.scraped import Look

__all__ = ["processes", "waiting"]

PARTS = ("kafka", "redis", "envoy")
"""What tells nothing of itself in our names: the holder of the processes tells it."""


def processes(look: Look, limits: Limits, expected: tuple[str, ...]) -> Iterator[Line]:
    """Is each process there, how often was it started again, and what does it cost.

    Args:
        look: what was told.
        limits: what is too much.
        expected: roles of which there is to be one at least.
    """
    roles = {one.role for one in look.now.processes}
    for role in expected:
        if role not in roles:
            why = f"no process of the role {role} is there"
            do = "`tidemill up` starts it; `tidemill status` says what runs"
            yield Line(what=role, value=0, unit="up", state="bad", why=why, do=do, about="processes")
    for one in look.now.processes:
        yield _presence(one.name, one.metrics is not None, one.state, one.restarts)
        if one.metrics is not None:
            yield from _cost(look, one.name, "", limits)
    for name in sorted(look.each("up", "tidemill_child_ready", "process")):
        if name in PARTS:
            ready = look.value("up", "tidemill_child_ready", process=name)
            yield _presence(name, ready == 1, "", 0)
            yield from _cost(look, "up", name, limits)


def _presence(name: str, answers: bool, state: str, restarts: int) -> Line:
    up, do = float(answers and state in {"", "ready"}), f"its log says why: `tidemill status` shows where ({name})"
    if state in {"failing", "ended"}:
        why = f"it has ended, {restarts} times so far, and is started again after a pause"
    elif state == "ending":
        why = "it is being ended"
    elif state == "starting":
        why = "it is not ready yet"
    elif not answers:
        why = "it does not answer"
    else:
        why = f"it answers; started again {restarts} times" if restarts else "it answers"
    grade: State = "bad" if not up else "ok"
    if state in {"ending", "starting"}:
        grade = "warn"
    return Line(what=name, value=up, unit="up", state=grade, why=why, do="" if grade == "ok" else do, about="processes")


def _cost(look: Look, process: str, child: str, limits: Limits) -> Iterator[Line]:
    prefix, labels = ("tidemill_child", {"process": child}) if child else ("tidemill_process", {})
    name = child or process
    cores = look.rate(process, f"{prefix}_cpu_seconds_total", **labels)
    yield graded(
        f"{name}: processor",
        cores,
        "cores",
        Grading(warn=limits.cores_warn) if not child else Grading(),
        why=f"over {look.seconds:.0f} s",
        do="it is as fast as one process gets: add partitions and workers, or send less",
        about="processor-and-memory",
        missing="it needs two looks some seconds apart",
    )
    memory = look.value(process, f"{prefix}_resident_memory_bytes", **labels)
    yield graded(
        f"{name}: memory",
        memory,
        "bytes",
        Grading(warn=limits.memory_warn_bytes, bad=limits.memory_bad_bytes),
        why="resident",
        do="see what grows: fewer entities, shorter windows, smaller batches; then restart the process",
        about="processor-and-memory",
    )


def waiting(look: Look) -> Iterator[Line]:
    """Workers that wait for a broker or store."""
    for role in ("ingest", "outcomes"):
        for worker, waits in look.each(role, "tidemill_waiting", "worker").items():
            if waits:
                why = f"{worker} waits for a broker or store that does not answer; nothing is lost meanwhile"
                do = "see whether Kafka, Redis and the lake's storage answer; its log names which"
                yield graded(f"{role}: waits", waits, "1 if so", Grading(bad=0), why=why, do=do, about="a-worker-waits")
