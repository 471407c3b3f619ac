"""What a model needs besides decisions: its topics, its Feast entries, and the workers of its stages.

Level-triggered, too: stated again and again, and taken back when the model is gone.
"""

import hashlib
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from tidemill.control.protocols import StoredModel
from tidemill.core.clock import to_ms
from tidemill.events.records import Topics
from tidemill.spec.model import ContinualModel
from tidemill.stack.supervisor import ProcessSupervisor, ProcessWanted

__all__ = ["WORKERS", "Provisioner", "alerts_digest", "data_digest", "owner_of", "retention", "topics_of"]

WORKERS = ("ingest", "outcomes", "watch")
"""The stages that have a worker for each model; each is the command of that name."""

_FEAST = "feast"
_ALERTS = "alerts"

DIGEST = "TIDEMILL_RESOURCE_DIGEST"
"""Environment variable that changes with what a worker depends on, so that the worker is replaced then."""


def topics_of(resource: ContinualModel) -> Topics:
    """The topics of a model."""
    return Topics(model=resource.id, events=resource.events_topic, labels=resource.labels_topic)


def data_digest(resource: ContinualModel) -> str:
    """A name for what the workers depend on; a changed cooldown or gate must not restart them."""
    spec = resource.spec
    parts = [spec.events, spec.features, spec.prediction, spec.labels, spec.triggers.drift]
    text = "\n".join(part.model_dump_json() if part is not None else "" for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def alerts_digest(resource: ContinualModel) -> str:
    """Likewise, for what the process that tells people depends on."""
    return hashlib.sha256(resource.spec.alerts.model_dump_json().encode()).hexdigest()[:16]


def owner_of(process: str) -> str | None:
    """The model that a process works for, by its name; None for those of the stack itself."""
    namespace, dot, rest = process.partition(".")
    if not dot:
        return None
    name, dot, _ = rest.partition(".")
    if dot:  # a run: <model>.<run>
        return f"{namespace}.{name}"
    for role in (*WORKERS, _FEAST, _ALERTS):
        if rest.endswith(f"-{role}"):
            return f"{namespace}.{rest.removesuffix(f'-{role}')}"
    name, found, _ = rest.rpartition("-serve-")
    return f"{namespace}.{name}" if found else None


class Provisioner:
    """Provides for models on one machine.

    Args:
        supervisor: who holds the processes.
        ensure_topics: makes those topics that are not there yet, given by name with their number of partitions;
            keeps their records for so many milliseconds, -1 for ever, None as the brokers see fit.
        file: where a model's resource is stored, by its id.
        feast: the command that enters a model into the feature registry, before `--resource FILE`; None: it is not.
        partitions: of a topic of events that is made; every other has one.
    """

    def __init__(
        self,
        supervisor: ProcessSupervisor,
        *,
        ensure_topics: Callable[[dict[str, int], int | None], None],
        file: Callable[[str], Path],
        feast: tuple[str, ...] | None = None,
        partitions: int = 1,
    ) -> None:
        self._supervisor = supervisor
        self._ensure_topics = ensure_topics
        self._file = file
        self._feast = feast
        self._partitions = partitions
        self._made: set[str] = set()

    def provide(self, stored: StoredModel) -> None:
        """State what the model needs. Raises `Unavailable` where its topics cannot be made."""
        resource = stored.resource
        self._provide_topics(resource)
        env = {DIGEST: data_digest(resource)} | ({"PYTHONPATH": stored.code} if stored.code else {})
        file = ("--resource", str(self._file(resource.id)))
        if self._feast is not None:
            argv = (*self._feast, *file)
            self._supervisor.want(ProcessWanted(name=f"{resource.id}-{_FEAST}", argv=argv, env=env, kind="task"))
        for worker in WORKERS:
            argv = (sys.executable, "-m", "tidemill.cli", worker, *file)
            self._supervisor.want(ProcessWanted(name=f"{resource.id}-{worker}", argv=argv, env=env))
        self._provide_alerts(resource)

    def withdraw(self, models: Collection[str]) -> None:
        """End every process of a model that is not among `models`; topics, tables and versions stay."""
        for process in self._supervisor.observe():
            owner = owner_of(process.name)
            if owner is not None and owner not in models:
                self._supervisor.unwant(process.name)

    def _provide_alerts(self, resource: ContinualModel) -> None:
        """A process that tells people, only where the resource names ways to them."""
        name, alerts = f"{resource.id}-{_ALERTS}", resource.spec.alerts
        if not alerts.routes:
            self._supervisor.unwant(name)
            return
        file = ("--resource", str(self._file(resource.id)))
        env = {DIGEST: alerts_digest(resource)}
        argv = (sys.executable, "-m", "tidemill.cli", _ALERTS, "run", *file)
        self._supervisor.want(ProcessWanted(name=name, argv=argv, env=env))

    def _provide_topics(self, resource: ContinualModel) -> None:
        for retention_ms, names in retention(resource).items():
            if missing := names - self._made:
                partitions = {
                    name: self._partitions if name == resource.events_topic else 1 for name in sorted(missing)
                }
                self._ensure_topics(partitions, retention_ms)
                self._made |= missing


def retention(resource: ContinualModel) -> dict[int | None, set[str]]:
    """The topics of a model by how long they keep their records."""
    topics = topics_of(resource)
    kept = resource.spec.labels.maturity.kept
    return {
        # The lake has these soon; the log needs to hold them only until then.
        None: {topics.events, topics.sketches, topics.signals, topics.quarantine, topics.replayed},
        # The join finds what it lost in these, as far back as a label may still come.
        to_ms(kept): {topics.labels, topics.predictions, topics.resolved, topics.outcomes}
        | ({topics.copies} if resource.spec.rollout.shadow else set()),
        # Few and small: why the loop did what it did, and what a lost status is found again from.
        -1: {topics.requests, topics.decisions},
    }
