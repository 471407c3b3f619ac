"""A dashboard to open: models, versions, a rollout under way, a large lake, and `tidemill dashboard` before them."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import psutil
from benchmarks.dashboard.tables import CANDIDATE, CHAMPION, Amount, resource_of, write_lake

from tidemill.artifacts import Manifest, PredictionShape, TensorSpec, artifact_uri, local_folder, write
from tidemill.control.state import LoopStatus, Seen, Version, encode_status
from tidemill.control.store import LocalResourceStore
from tidemill.core.clock import SystemClock, to_ms
from tidemill.core.settings import Settings
from tidemill.events.records import Decision
from tidemill.registry.mlflow import MlflowRegistry
from tidemill.rollout.driver import RevisionSeen, RevisionWanted, TrafficSeen, TrafficWanted
from tidemill.rollout.plan import Span
from tidemill.rollout.plan import Version as Planned
from tidemill.rollout.state import RolloutState
from tidemill.spec.model import ContinualModel, DriftTrigger
from tidemill.stack.ports import free_ports
from tidemill.stack.readiness import is_ready
from tidemill.testing.rollout import example_plan
from tidemill.testing.waiting import eventually
from tidemill.watch.reference import FILE, build_reference, encode_reference

__all__ = ["BIG", "Server", "serving", "write_site"]

BIG = "default.phone-inspection"
"""The model that has it all."""
VERSIONS = 30
_IDLE_S = 0.02
"""Of 0.3 s: the pulse of its timers."""
_OTHERS = Amount(2_000, 0)
_ROLLOUT = timedelta(hours=10)
_TENSOR = TensorSpec(name="x", dtype="float32", shape=(None, 2))


@dataclass(frozen=True)
class Server:
    """A dashboard that was just started."""

    url: str
    process: psutil.Process

    def is_idle(self) -> bool:
        """Whether it does nothing any more: it has imported what it needs."""
        before = self.worked_s
        time.sleep(0.3)
        return self.worked_s - before <= _IDLE_S

    @property
    def worked_s(self) -> float:
        """Its processor time so far, seconds."""
        times = self.process.cpu_times()
        return times.user + times.system


def write_site(folder: Path, amount: Amount, models: int) -> Settings:
    """Everything that the pages read; but for Kafka and Redis, which they do not ask."""
    settings = Settings(state=folder / "state", kafka="127.0.0.1:1", redis="redis://127.0.0.1:1")
    now = SystemClock().now()
    lake, big = Path(settings.lake_uri), resource_of(BIG.removeprefix("default."))
    write_lake(lake, big, amount, now, now - _ROLLOUT)
    _write_versions(settings, big, now)
    store, first = LocalResourceStore(settings.state / "resources"), resource_of("other-0")
    write_lake(lake, first, _OTHERS, now, now)
    for number in range(models - 1):
        other = resource_of(f"other-{number}")
        for table in lake.glob(f"{first.id}.*") if number else ():
            shutil.copytree(table, lake / table.name.replace(first.id, other.id))
        _put(store, other, _status(settings, other, now))
    _put(store, big, _rolling(settings, big, now, amount))
    return settings


def _put(store: LocalResourceStore, resource: ContinualModel, status: LoopStatus) -> None:
    stored = store.put(resource)
    store.put_status(resource.id, encode_status(status), version=stored.version)


def _write_versions(settings: Settings, resource: ContinualModel, now: datetime) -> None:
    """Each with its artifact; of the champion, what is usual, too."""
    registry = MlflowRegistry(settings.mlflow_uri)
    for number in range(1, VERSIONS + 1):
        name, before = f"v{number}", f"v{number - 1}" if number > 1 else ""
        manifest = Manifest(
            version=name,
            model=resource.id,
            codec="inspection.model:Codec",
            prediction=PredictionShape(type="detection", classes=("ok", "scratch")),
            created_at=now.isoformat(),
            run=name,
            snapshot=f"{number:064x}",
            warm_from=before,
            inputs=(_TENSOR,),
            outputs=(_TENSOR,),
        )
        card = f"# {name}\n\n" + "What it is, and on what data it was made.\n" * 40
        files: dict[str, bytes | Path] = {"card.md": card.encode(), "model.onnx": bytes(200_000)}
        if name == CHAMPION:
            files[FILE] = _reference(now)
        uri = _artifact(settings, resource, name)
        write(local_folder(uri), files, manifest)
        told = {"cause": "drift", "reason": "brightness moved", "snapshot": manifest.snapshot, "gate.fresh": "passed"}
        tags = {f"tidemill.{key}": text for key, text in told.items()}
        registry.register(resource.id, name, uri, tags=tags, description=card[:4000])
    registry.set_alias(resource.id, "champion", CHAMPION)
    registry.set_alias(resource.id, "candidate", CANDIDATE)


def _artifact(settings: Settings, resource: ContinualModel, version: str) -> str:
    return artifact_uri(settings.artifacts_uri, resource, version)


def _reference(now: datetime) -> bytes:
    """Of half an hour of forty stations."""
    rng, count = np.random.default_rng(2), 40 * 1800
    values = rng.random(count)
    frame = pl.DataFrame(
        {
            "entity": [f"s{number % 40}" for number in range(count)],
            "event_time": [now - timedelta(seconds=number // 40) for number in range(count)],
            "brightness": values,
            "contrast": 1 - values,
            "shift": np.where(values < 0.3, "night", "day").tolist(),
        }
    )
    trigger = DriftTrigger.model_validate({"tolerance": 0.2, "every": "1s"})
    return encode_reference(build_reference(frame, ["brightness", "contrast"], trigger, categories=["shift"]))


def _status(settings: Settings, resource: ContinualModel, now: datetime) -> LoopStatus:
    """A champion with all traffic, and the decisions that are kept."""
    champion = Version(version=CHAMPION, artifact=_artifact(settings, resource, CHAMPION), since=to_ms(now))
    seen = TrafficSeen((RevisionSeen(version=CHAMPION, share=100, ready=True),))
    decided = [("start-run", f"v{number}", {"cause": "drift"}) for number in range(10, 40)]
    decisions = tuple(
        Decision(decision_id=f"d{at}", kind=kind, model=resource.id, time=to_ms(now), subject=of, reason="x", figures=f)
        for at, (kind, of, f) in enumerate(decided)
    )
    return LoopStatus(
        created_at=to_ms(now), phase="Serving", champion=champion, seen=Seen(traffic=seen), decisions=decisions
    )


def _rolling(settings: Settings, resource: ContinualModel, now: datetime, amount: Amount) -> LoopStatus:
    """A candidate that has had a quarter of the requests for hours."""
    since = to_ms(now - _ROLLOUT)
    first, second = (Planned(name, _artifact(settings, resource, name)) for name in (CHAMPION, CANDIDATE))
    plan = example_plan(champion=first, candidate=second, started_at=since, offsets={0: 0}, timeout_ms=10**9)
    span = Span(step=1, weight=25, since=since)
    state = RolloutState(
        plan=plan, phase="canary", step=1, spans=(span,), phase_since=since, judged_since=since, moves=3
    )
    shares = ((CHAMPION, first.artifact, 75), (CANDIDATE, second.artifact, 25))
    wanted = tuple(RevisionWanted(version=name, artifact=uri, share=share) for name, uri, share in shares)
    seen = TrafficSeen(tuple(RevisionSeen(version=name, share=share, ready=True) for name, _, share in shares))
    return msgspec.structs.replace(
        _status(settings, resource, now),
        phase="Canary",
        candidate=Version(version=CANDIDATE, artifact=second.artifact, since=since),
        rollout=state,
        traffic=TrafficWanted(wanted),
        seen=Seen(traffic=seen),
    )


@contextmanager
def serving(settings: Settings) -> Iterator[Server]:
    """`tidemill dashboard` in a process of its own, which has read nothing yet."""
    (port,) = free_ports(1)
    said = {
        "TIDEMILL_STATE": str(settings.state),
        "TIDEMILL_KAFKA": "127.0.0.1:1",
        "TIDEMILL_REDIS": "redis://127.0.0.1:1",
    }
    others = {name: text for name, text in os.environ.items() if not name.startswith("TIDEMILL_")}
    argv = [sys.executable, "-m", "tidemill.cli", "dashboard", "--port", str(port)]
    with (settings.state / "dashboard.log").open("ab") as log:
        process = subprocess.Popen(argv, env=others | said, cwd=settings.state, stdout=log, stderr=log)
    try:
        eventually(lambda: is_ready(f"tcp://127.0.0.1:{port}"), 60, every_s=0.05)
        server = Server(f"http://127.0.0.1:{port}", psutil.Process(process.pid))
        eventually(server.is_idle, 60)
        yield server
    finally:
        process.terminate()
        process.wait(30)
