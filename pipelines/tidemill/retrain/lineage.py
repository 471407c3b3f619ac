"""The step register: the version's entry in the registry, with what it came from and what it showed."""

import json

from tidemill.evaluation.gates import GateVerdict
from tidemill.evaluation.scoring import Evaluation
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import Place
from tidemill.training.snapshot import SnapshotRecord

__all__ = ["metrics_of", "register", "tags_of"]

_LONGEST_TAG = 4000
"""MLflow keeps 5,000 characters of a tag."""


def register(
    place: Place, grant: Grant, record: SnapshotRecord, evaluation: Evaluation, verdicts: tuple[GateVerdict, ...]
) -> str:
    """Register the version under its run's id; its artifact. Without an alias it is inert."""
    artifact = place.version_uri(grant.run)
    tags = tags_of(grant, record, evaluation.snapshot, verdicts)
    place.registry().register(place.resource.id, grant.run, artifact, tags=tags, metrics=metrics_of(evaluation, record))
    print(f"version {grant.run} of {place.resource.id} is registered: {artifact}", flush=True)
    return artifact


def tags_of(grant: Grant, record: SnapshotRecord, snapshot: str, verdicts: tuple[GateVerdict, ...]) -> dict[str, str]:
    """Lineage: where the version came from, and how it passed."""
    words = {None: "not applicable", True: "passed", False: "refused"}
    offsets = json.dumps({"events": record.events.offsets, "labels": record.labels.offsets}, sort_keys=True)
    tags = {
        "tidemill.run": grant.run,
        "tidemill.cause": grant.cause,
        "tidemill.reason": grant.reason,
        "tidemill.champion": grant.champion,
        "tidemill.snapshot": snapshot,
        "tidemill.events.delta_version": str(record.events.delta_version),
        "tidemill.labels.delta_version": str(record.labels.delta_version),
        # The snapshot's record has them all where they are too many for a tag.
        "tidemill.offsets": offsets if len(offsets) <= _LONGEST_TAG else "see the snapshot's record",
    }
    for verdict in verdicts:
        forced = "" if verdict.enforced else " (skipped by force)"
        tags[f"tidemill.gate.{verdict.gate}"] = words[verdict.passed] + forced
    return {name: text[:_LONGEST_TAG] for name, text in tags.items() if text}


def metrics_of(evaluation: Evaluation, record: SnapshotRecord) -> dict[str, float]:
    """Figures for the registry's own views."""
    figures = {"fresh_error": evaluation.candidate.mean}
    if evaluation.champion is not None:
        figures["fresh_error_champion"] = evaluation.champion.mean
    return figures | {f"rows_{part}": float(count) for part, count in record.rows.items()}
