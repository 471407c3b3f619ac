"""An installation with one model for tests of the retrain pipeline: state folder, lake, stored resource, user code."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from tidemill.control.protocols import RunSeen
from tidemill.control.provision import topics_of
from tidemill.control.runs import read_run, run_folder
from tidemill.control.store import LocalResourceStore
from tidemill.events.lake import LakeTable, table_uri
from tidemill.events.records import Topics
from tidemill.events.sources import Source
from tidemill.spec.model import ContinualModel
from tidemill.testing.training import EVENTS, LABELS, labels_frame

__all__ = ["RUN", "Finished", "Site"]

RUN = "r20260101-120000"


@dataclass(frozen=True)
class Finished:
    """How a run ended: exit status, all output, and its last word in the state file."""

    status: int
    output: str
    seen: RunSeen


@dataclass
class Site:
    """One machine's state folder with one model in it. `close` ends what was started."""

    state: Path
    resource: ContinualModel
    code: Path
    """Folder of the user's classes."""
    kafka: str = "127.0.0.1:1"
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def __post_init__(self) -> None:
        self.put(self.resource)

    @property
    def topics(self) -> Topics:
        """The model's topics."""
        return topics_of(self.resource)

    @property
    def lake(self) -> str:
        """The lake's folder."""
        return str(self.state / "lake")

    @property
    def artifacts(self) -> str:
        """The folder of versions."""
        return str(self.state / "artifacts")

    def put(self, resource: ContinualModel) -> None:
        """Store the resource, as `tidemill apply` does."""
        self.resource = resource
        LocalResourceStore(self.state / "resources").put(resource, code=str(self.code))

    def fill(self, events: pl.DataFrame, labels: pl.DataFrame | None = None) -> None:
        """Append events to the lake, and their labels (default: true ones)."""
        self._append("events", EVENTS, events)
        self._append("labels", LABELS, labels_frame(events) if labels is None else labels)

    def folder(self, run: str = RUN) -> Path:
        """A run's folder."""
        return run_folder(self.state, self.resource.id, run)

    def version(self, run: str = RUN) -> Path:
        """A version's folder."""
        return Path(self.artifacts) / "default" / self.resource.metadata.name / run

    def start(
        self, run: str = RUN, parameters: Mapping[str, object] | None = None, **environment: str
    ) -> "subprocess.Popen[str]":
        """Start a run as the local runner does."""
        command = [sys.executable, "-m", "tidemill.retrain.local", "--run", run, "--model", self.resource.id]
        settings = {"TIDEMILL_STATE": str(self.state), "TIDEMILL_KAFKA": self.kafka, "PYTHONPATH": str(self.code)}
        process = subprocess.Popen(
            [*command, "--parameters", json.dumps(dict(parameters or {}))],
            env={**os.environ, **settings, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def finish(self, process: "subprocess.Popen[str]", run: str = RUN) -> Finished:
        """Wait for the end of a run."""
        output, _ = process.communicate(timeout=240)
        seen = read_run(self.folder(run))
        if seen is None:
            raise AssertionError(f"the run told nothing of itself: {output}")
        return Finished(process.returncode, output, seen)

    def close(self) -> None:
        """End what was started."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait(10)

    def _append(self, name: str, schema: Mapping[str, pl.DataType], rows: pl.DataFrame) -> None:
        ends = rows.group_by("source").agg(pl.col("offset").max())
        table = LakeTable(table_uri(self.lake, self.resource.id, name), schema, pipeline="tests")
        table.append(rows, {Source.parse(source): last for source, last in ends.iter_rows()})
