"""The traffic driver of one machine: a model server per version behind Envoy.

`apply` is called again and again and does one small thing at a time: starts servers, lets ready ones have their
shares, takes versions out of the routes, ends their servers once the last request is answered. All that it must
remember is in `<state>/envoy/models/<model id>.json`.
"""

import fcntl
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tidemill.core.clock import Clock, to_ms
from tidemill.core.errors import Unavailable
from tidemill.core.files import write_atomically
from tidemill.core.settings import Settings
from tidemill.rollout.driver import RevisionSeen, RevisionWanted, TrafficSeen, TrafficWanted
from tidemill.rollout.envoy_admin import ClusterCounters, EnvoyAdmin
from tidemill.rollout.envoy_files import Kept, Routed, replace_files
from tidemill.rollout.last_words import last_words
from tidemill.rollout.shares import shares_now
from tidemill.spec.model import ContinualModel
from tidemill.spec.paths import served_name
from tidemill.stack.ports import HOST, free_ports, is_taken
from tidemill.stack.supervisor import ProcessSeen, ProcessSupervisor, ProcessWanted

__all__ = ["LocalTrafficDriver"]

_COMMAND = (sys.executable, "-m", "tidemill.cli", "serve")
_LASTING = frozenset({1, 2, 3, 4})
"""Exit statuses of errors that starting again does not cure (`tidemill.core.errors`; 1 also of any bug)."""
_RESTARTS = 3
"""Ends of any other kind before a server counts as failed."""
_DRAIN_MS = 1000
"""Time for Envoy's workers to follow the routes that its main thread shows, before a server may end."""
_GRACE_S = 15.0
_TAIL = 4096


class LocalTrafficDriver:
    """Implements `TrafficDriver` for one model.

    Args:
        supervisor: who runs the model servers.
        settings: state folder, Envoy's admin interface and endpoint.
        resource: the model.
        file: the resource's file, which its servers read.
        code: folder from which the user's classes are imported.
        clock: measures how long a version has been out of the routes.
        command: what starts a server; it is given `--resource --version --artifact --port`.
    """

    sticky = True
    mirrors = True

    def __init__(
        self,
        supervisor: ProcessSupervisor,
        settings: Settings,
        *,
        resource: ContinualModel,
        file: Path,
        code: str | None = None,
        clock: Clock,
        command: Sequence[str] = _COMMAND,
    ) -> None:
        if settings.envoy_admin is None:
            raise Unavailable(f"no proxy is known: no stack runs under {settings.state}", hint="`tidemill up`")
        self._supervisor = supervisor
        self._endpoint = settings.endpoint
        self._model, self._name = resource.id, served_name(resource)
        self._resource_file, self._code, self._command = file, code, tuple(command)
        self._folder = settings.state / "envoy"
        self._models = self._folder / "models"
        self._models.mkdir(parents=True, exist_ok=True)
        self._envoy = EnvoyAdmin(settings.envoy_admin)
        self._clock = clock

    def observe(self) -> TrafficSeen:
        """Weights and counters from Envoy, readiness from the servers' supervisor."""
        routed, processes = self._read(), self._processes()
        weights, counters = self._envoy.weights(self._model), self._envoy.counters(self._model)
        seen = [
            _seen(kept.version, weights, counters, processes.get(self._process(kept.version)))
            for kept in sorted(routed.revisions, key=lambda kept: kept.version)
        ]
        return TrafficSeen(tuple(seen), self._endpoint, mirror=self._envoy.mirror(self._model))

    def apply(self, wanted: TrafficWanted) -> None:
        """State what is wanted; returns at once."""
        processes = self._processes()
        routed = self._with_wanted(self._read(), wanted, processes)
        self._write(routed)
        for kept in routed.revisions:
            if kept.wanted:
                self._supervisor.want(self._server(kept))
        current, known = self._envoy.weights(self._model), self._envoy.clusters(self._model)
        ready = {kept.version for kept in routed.revisions if self._is_ready(kept, processes)} & known
        mirror = wanted.mirror if wanted.mirror in ready else None
        routed = msgspec.structs.replace(routed, weights=_weights(routed, ready, current), mirror=mirror)
        routed = self._without_drained(routed, current)
        self._write(routed)

    def close(self) -> None:
        """Drop the connection to Envoy; servers and routes stay as they are."""
        self._envoy.close()

    def _with_wanted(self, routed: Routed, wanted: TrafficWanted, processes: Mapping[str, ProcessSeen]) -> Routed:
        known = {kept.version: kept for kept in routed.revisions}
        revisions = [self._kept(one, known.get(one.version), processes) for one in wanted.revisions]
        names = {one.version for one in wanted.revisions}
        leaving = [
            msgspec.structs.replace(kept, wanted=False, share=0)
            for kept in routed.revisions
            if kept.version not in names
        ]
        return msgspec.structs.replace(routed, revisions=(*revisions, *leaving), sticky=wanted.sticky)

    def _kept(self, one: RevisionWanted, known: Kept | None, processes: Mapping[str, ProcessSeen]) -> Kept:
        port = known.port if known else None
        process = processes.get(self._process(one.version))
        runs = process is not None and process.pid is not None
        if port is None or (not runs and is_taken(port)):
            (port,) = free_ports(1)
        return Kept(version=one.version, artifact=one.artifact, port=port, share=one.share)

    def _without_drained(self, routed: Routed, current: Mapping[str, int]) -> Routed:
        """End the servers that nobody wants, that no route leads to, and that have answered everything."""
        now = to_ms(self._clock.now())
        revisions = tuple(_out_of_routes(kept, routed.weights, current, now) for kept in routed.revisions)
        drained = {
            kept.version for kept in revisions if kept.out_since is not None and now - kept.out_since >= _DRAIN_MS
        }
        if drained:
            counters = self._envoy.counters(self._model)
            drained = {version for version in drained if counters.get(version, ClusterCounters()).active == 0}
        for version in drained:
            self._supervisor.unwant(self._process(version))
        return msgspec.structs.replace(routed, revisions=tuple(one for one in revisions if one.version not in drained))

    def _server(self, kept: Kept) -> ProcessWanted:
        arguments = ("--resource", str(self._resource_file), "--version", kept.version)
        return ProcessWanted(
            name=self._process(kept.version),
            argv=(*self._command, *arguments, "--artifact", kept.artifact, "--port", str(kept.port)),
            env={"PYTHONPATH": self._code} if self._code else {},
            ready=f"http://{HOST}:{kept.port}/v2/health/ready",
            grace_s=_GRACE_S,
        )

    def _is_ready(self, kept: Kept, processes: Mapping[str, ProcessSeen]) -> bool:
        process = processes.get(self._process(kept.version))
        return process is not None and process.state == "ready"

    def _process(self, version: str) -> str:
        return f"{self._model}-serve-{version}"

    def _processes(self) -> dict[str, ProcessSeen]:
        return {process.name: process for process in self._supervisor.observe()}

    def _file(self) -> Path:
        return self._models / f"{self._model}.json"

    def _read(self) -> Routed:
        try:
            return msgspec.json.decode(self._file().read_bytes(), type=Routed)
        except FileNotFoundError:
            return Routed(model=self._model, name=self._name)

    def _write(self, routed: Routed) -> None:
        """Keep the model's file, and bring the proxy's files up to all models' files."""
        with _locked(self._models / ".lock"):
            file = self._file()
            content = msgspec.json.encode(routed)
            if not routed.revisions:
                file.unlink(missing_ok=True)
            elif not file.is_file() or file.read_bytes() != content:
                write_atomically(file, content, durable=True)
            files = sorted(self._models.glob("[!.]*.json"))
            replace_files(self._folder, [msgspec.json.decode(one.read_bytes(), type=Routed) for one in files])


def _weights(routed: Routed, ready: set[str], current: Mapping[str, int]) -> dict[str, int]:
    return shares_now({kept.version: kept.share for kept in routed.revisions if kept.wanted}, ready, current)


def _out_of_routes(kept: Kept, weights: Mapping[str, int], current: Mapping[str, int], now: int) -> Kept:
    """Remember since when an unwanted version has been out of the routes: a copy that it loses harms nobody."""
    is_out = not (kept.wanted or weights.get(kept.version) or current.get(kept.version))
    since = (kept.out_since or now) if is_out else None
    return msgspec.structs.replace(kept, out_since=since)


def _seen(
    version: str,
    weights: Mapping[str, int],
    counters: Mapping[str, ClusterCounters],
    process: ProcessSeen | None,
) -> RevisionSeen:
    counted = counters.get(version, ClusterCounters())
    return RevisionSeen(
        version=version,
        share=weights.get(version, 0),
        ready=process is not None and process.state == "ready",
        failed=_failure(process),
        requests=counted.requests,
        errors=counted.errors,
        latency_p99_ms=counted.p99_ms,
    )


def _failure(process: ProcessSeen | None) -> str | None:
    """Why a server cannot become ready, in its own last words; None while it still may."""
    if process is None or process.state != "failing":
        return None
    if process.exit_status not in _LASTING and process.restarts < _RESTARTS:
        return None
    return f"{_last_words(Path(process.log))} (exit status {process.exit_status}; log: {process.log})"


def _last_words(log: Path) -> str:
    """What stands last in its log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return "it ended"
    return last_words(text) or "it ended without a word"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
