"""The step register: the version's entry in the registry, with what it came from and what it showed."""

import json
from pathlib import Path
from typing import Any

import msgspec

from tidemill.artifacts import Manifest, read
from tidemill.artifacts.adding import add
from tidemill.artifacts.manifest import MANIFEST, decode_manifest
from tidemill.evaluation.gates import GateVerdict
from tidemill.evaluation.scoring import Evaluation
from tidemill.retrain.card import FILE, Made, card_of
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import Place
from tidemill.spec.model import ContinualModel
from tidemill.training.code_digest import Code, code_of
from tidemill.training.snapshot import SnapshotRecord, open_snapshot, snapshots_folder
from tidemill.training.user_code import load_trainer
from tidemill.training.verdict import WORDS
from tidemill.watch.reference import decode_reference

__all__ = ["code_tags", "metrics_of", "parameters_of", "register", "tags_of"]

_LONGEST_TAG = 4000
"""MLflow keeps 5,000 characters of a tag."""


def register(
    place: Place, grant: Grant, record: SnapshotRecord, evaluation: Evaluation, verdicts: tuple[GateVerdict, ...]
) -> str:
    """Write the version's model card and register it under its run's id; its artifact. Without an alias it is inert.

    A call that was cut off is ended by the next one, with the card of the first that wrote one.
    """
    artifact, folder = place.version_uri(grant.run), place.version_folder(grant.run)
    snapshot = open_snapshot(snapshots_folder(folder), evaluation.snapshot)
    manifest, model = _sealed(folder), place.resource.spec.model
    code = code_of((model.codec, model.trainer))
    made = Made(
        resource=place.resource,
        grant=grant,
        manifest=manifest,
        record=record,
        frame=snapshot.frame(),
        evaluation=evaluation,
        verdicts=verdicts,
        reference=decode_reference(read(folder, manifest, "reference.json"), str(folder / "reference.json")),
        code=code,
    )
    manifest = add(folder, FILE, card_of(made).encode())
    place.registry().register(
        place.resource.id,
        grant.run,
        artifact,
        tags=tags_of(grant, record, evaluation.snapshot, verdicts, manifest.warm_from) | code_tags(code),
        metrics=metrics_of(evaluation, record),
        parameters=parameters_of(place.resource, record, manifest.warm_from),
        description=read(folder, manifest, FILE).decode(),
    )
    print(f"version {grant.run} of {place.resource.id} is registered: {artifact}", flush=True)
    return artifact


def parameters_of(resource: ContinualModel, record: SnapshotRecord, warm_from: str) -> dict[str, str]:
    """The resource's `model` part by path, the trainer's own numbers, the seed, and what training began from."""
    trainer = load_trainer(resource.spec.model.trainer)
    numbers = {name: getattr(trainer, name, None) for name in ("epochs", "batch_size", "learning_rate", "min_steps")}
    own = {f"trainer.{name}": str(value) for name, value in numbers.items() if isinstance(value, int | float)}
    said = _flat("model", resource.spec.model.model_dump(mode="json", by_alias=True))
    return said | own | {"seed": str(record.seed), "warm_from": warm_from or "scratch"}


def code_tags(code: Code) -> dict[str, str]:
    """Which code made the version, as far as it is known."""
    said = {"digest": code.digest, "commit": code.commit, "tidemill": code.tidemill}
    files = "\n".join(f"{digest} {name}" for name, digest in code.files.items())
    return {f"tidemill.code.{name}": text[:_LONGEST_TAG] for name, text in (said | {"files": files}).items() if text}


def tags_of(
    grant: Grant, record: SnapshotRecord, snapshot: str, verdicts: tuple[GateVerdict, ...], warm_from: str = ""
) -> dict[str, str]:
    """Lineage: where the version came from, and how it passed."""
    offsets = json.dumps({"events": record.events.offsets, "labels": record.labels.offsets}, sort_keys=True)
    tags = {
        "tidemill.run": grant.run,
        "tidemill.cause": grant.cause,
        "tidemill.reason": grant.reason,
        "tidemill.champion": grant.champion,
        "tidemill.warm_from": warm_from,
        "tidemill.snapshot": snapshot,
        "tidemill.events.delta_version": str(record.events.delta_version),
        "tidemill.labels.delta_version": str(record.labels.delta_version),
        # The snapshot's record has them all where they are too many for a tag.
        "tidemill.offsets": offsets if len(offsets) <= _LONGEST_TAG else "see the snapshot's record",
    }
    for verdict in verdicts:
        forced = "" if verdict.enforced else " (skipped by force)"
        tags[f"tidemill.gate.{verdict.gate}"] = WORDS[verdict.passed] + forced
    return {name: text[:_LONGEST_TAG] for name, text in tags.items() if text}


def metrics_of(evaluation: Evaluation, record: SnapshotRecord) -> dict[str, float]:
    """Figures for the registry's own views."""
    figures = {"fresh_error": evaluation.candidate.mean}
    if evaluation.champion is not None:
        figures["fresh_error_champion"] = evaluation.champion.mean
    return figures | {f"rows_{part}": float(count) for part, count in record.rows.items()}


def _sealed(folder: Path) -> Manifest:
    """The manifest without a card, of which an earlier try may have left either the file or the entry too."""
    manifest = decode_manifest((folder / MANIFEST).read_bytes(), str(folder / MANIFEST))
    files = {name: entry for name, entry in manifest.files.items() if name != FILE}
    return msgspec.structs.replace(manifest, files=files)


def _flat(path: str, value: Any) -> dict[str, str]:
    if isinstance(value, dict):
        return {key: text for name, part in value.items() for key, text in _flat(f"{path}.{name}", part).items()}
    return {path: json.dumps(value) if isinstance(value, list) else str(value)}
