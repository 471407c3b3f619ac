"""The steps train and evaluate: from a snapshot to a version, and what it and the champion make of the fresh rows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import polars as pl

from tidemill.artifacts import Manifest, PredictionShape, local_folder, read, verify, write
from tidemill.core.clock import from_ms
from tidemill.core.errors import NotFound
from tidemill.evaluation.scoring import Compared, Evaluation, Stress, Timing, losses_of
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import Place
from tidemill.spec.model import DriftTrigger
from tidemill.training.frozen import frozen_folder, open_frozen
from tidemill.training.snapshot import Snapshot, rows_and_labels

if TYPE_CHECKING:
    from tidemill.training.predictor import OnnxModel

__all__ = ["evaluate", "train"]

_THREADS = 2
_SAMPLE = 8
_WHAT = {"number": "drift", "category": "drift", "loss": "a rise"}


def train(place: Place, grant: Grant, snapshot: Snapshot, *, checkpoint: Path | None = None) -> Manifest:
    """Train on the snapshot and write the version's artifact. A version that is there already is taken as it is."""
    from tidemill.training.export import export
    from tidemill.training.fit import fit
    from tidemill.training.tensors import encode
    from tidemill.training.user_code import load_codec, load_trainer
    from tidemill.training.weights import save_weights

    resource, folder = place.resource, place.version_folder(grant.run)
    known = _written(folder, snapshot)
    if known is not None:
        return known
    codec, trainer = load_codec(resource.spec.model.codec), load_trainer(resource.spec.model.trainer)
    frame = snapshot.frame().filter(pl.col("part") != "fresh")
    rows, labels = rows_and_labels(frame, resource, snapshot.record.service)
    weights, warm_from = _champion_weights(place, grant)
    print(f"training on {len(rows)} rows, from {warm_from or 'scratch'}", flush=True)
    fitted = fit(
        trainer,
        codec,
        rows,
        labels,
        seed=snapshot.record.seed,
        weights=weights,
        checkpoint=checkpoint,
        progress=lambda epoch: print(epoch, flush=True),
    )
    exported = export(fitted.module, encode(codec, rows[:_SAMPLE]))
    manifest = Manifest(
        version=grant.run,
        model=resource.id,
        codec=resource.spec.model.codec,
        prediction=PredictionShape(type=resource.spec.prediction.type, classes=resource.spec.prediction.classes),
        created_at=place.clock.now().isoformat(timespec="seconds"),
        run=grant.run,
        snapshot=snapshot.digest,
        warm_from=warm_from,
        inputs=exported.inputs,
        outputs=exported.outputs,
    )
    files = {"model.onnx": exported.model, "weights.safetensors": save_weights(fitted.module)}
    return write(folder, {**files, "reference.json": _reference(place, snapshot, files, manifest)}, manifest)


def evaluate(place: Place, grant: Grant, snapshot: Snapshot) -> Evaluation:
    """Candidate and champion on the snapshot's fresh rows, and what else the declared gates look at."""
    from tidemill.evaluation.answering import classes_of
    from tidemill.training.predictor import OnnxModel

    resource = place.resource
    models = [OnnxModel(place.version_folder(grant.run), threads=_THREADS)]
    if grant.champion_artifact:
        models.append(OnnxModel(local_folder(grant.champion_artifact), threads=_THREADS))
    fresh = snapshot.frame().filter(pl.col("part") == "fresh")
    found = _compared(place, "fresh", snapshot, fresh, models)
    against = f", champion {grant.champion}: {found.champion.mean:.4f}" if found.champion else ""
    print(f"error on {fresh.height} fresh rows: {found.candidate.mean:.4f}{against}", flush=True)
    classes, sizes = classes_of(resource), [model.manifest.files["model.onnx"].size for model in models]
    frozen, problem = _frozen(place, grant, models)
    timings = _timings(place, grant, fresh, models)
    return Evaluation(
        candidate=found.candidate,
        champion=found.champion,
        snapshot=snapshot.digest,
        kind=resource.spec.prediction.type,
        classes=classes.names if classes else (),
        rows=found.rows,
        frozen=frozen,
        frozen_problem=problem,
        size=sizes[0],
        champion_size=sizes[1] if len(sizes) > 1 else None,
        timing=timings[0] if timings else None,
        champion_timing=timings[1] if len(timings) > 1 else None,
        stresses=_stresses(place, snapshot, fresh, models),
    )


def _compared(
    place: Place, name: str, snapshot: Snapshot, frame: pl.DataFrame, models: "Sequence[OnnxModel]"
) -> Compared:
    """What candidate and champion, if there is one, make of rows of a snapshot."""
    from tidemill.evaluation.answering import rows_of, score

    resource = place.resource
    rows, labels = rows_and_labels(frame, resource, snapshot.record.service)
    candidate, *champion = [score(model, rows, labels, resource) for model in models]
    return Compared(
        name=name,
        digest=snapshot.digest,
        rows=rows_of(frame, labels, resource),
        candidate=candidate,
        champion=champion[0] if champion else None,
    )


def _frozen(place: Place, grant: Grant, models: "Sequence[OnnxModel]") -> tuple[Compared | None, str]:
    """The comparison on the frozen dataset that is declared, or why there is none."""
    gate = place.resource.spec.gates.frozen
    if gate is None:
        return None, ""
    try:
        dataset = open_frozen(frozen_folder(place.version_folder(grant.run)), gate.dataset)
    except NotFound as error:
        return None, f"{error.message}: {error.hint}"
    return _compared(place, gate.dataset, dataset, dataset.frame(), models), ""


def _stresses(
    place: Place, snapshot: Snapshot, fresh: pl.DataFrame, models: "Sequence[OnnxModel]"
) -> tuple[Stress, ...] | None:
    """The losses of candidate and champion on fresh rows that lack something; None unless the gate is declared."""
    from tidemill.evaluation.answering import score
    from tidemill.evaluation.robustness import stressed

    resource, service = place.resource, snapshot.record.service
    if resource.spec.gates.robustness is None:
        return None
    rows, labels = rows_and_labels(fresh, resource, service)
    found = []
    for name, changed in stressed(rows, resource, service):
        candidate, *champion = [score(model, changed, labels, resource).losses for model in models]
        found.append(Stress(name=name, candidate=candidate, champion=champion[0] if champion else None))
    return tuple(found)


def _timings(place: Place, grant: Grant, fresh: pl.DataFrame, models: "Sequence[OnnxModel]") -> list[Timing]:
    """How fast candidate and champion answer in the real server; none unless the gate is declared."""
    if place.resource.spec.gates.latency is None:
        return []
    from tidemill.retrain.timing import requests_of, time_server

    folders = [place.version_folder(grant.run)]
    if grant.champion_artifact:
        folders.append(local_folder(grant.champion_artifact))
    requests = requests_of(fresh, place.resource)
    return [time_server(place, model.version, folder, requests) for model, folder in zip(models, folders, strict=True)]


def _written(folder: Path, snapshot: Snapshot) -> Manifest | None:
    """The version, where an earlier try of this step got as far as writing it."""
    try:
        manifest = verify(folder)
    except NotFound:
        return None
    return manifest if manifest.snapshot == snapshot.digest else None


def _champion_weights(place: Place, grant: Grant) -> tuple[bytes | None, str]:
    """The weights that training starts from, and the version they are of."""
    if not (place.resource.spec.model.warm_start and grant.champion_artifact):
        return None, ""
    folder = local_folder(grant.champion_artifact)
    return read(folder, verify(folder), "weights.safetensors"), grant.champion


def _reference(place: Place, snapshot: Snapshot, files: Mapping[str, bytes], manifest: Manifest) -> bytes:
    """What drift from the version is measured against; its answers on the fresh rows are part of it."""
    from tidemill.evaluation.answering import answers_of
    from tidemill.training.predictor import OnnxModel
    from tidemill.watch.answers import Rows, reference_of
    from tidemill.watch.reference import encode_reference

    resource, frame = place.resource, snapshot.frame()
    fresh = frame.filter(pl.col("part") == "fresh")
    rows, labels = rows_and_labels(fresh, resource, snapshot.record.service)
    with TemporaryDirectory() as scratch:  # a version is answered from its folder, whose place is not filled yet
        write(Path(scratch) / "version", files, manifest)
        # Rows without an answer are the gate's to refuse, and not this step's.
        answers, _ = answers_of(OnnxModel(Path(scratch) / "version", threads=_THREADS), rows)
    losses = losses_of(answers, labels, prediction=resource.spec.prediction, fields=resource.spec.labels.fields)
    time = ["entity", "event_time"]
    said = (
        fresh.select(time)
        .with_columns(
            output=pl.Series([json.dumps(answer) for answer in answers], dtype=pl.String),
            error=pl.Series(losses, dtype=pl.Float64),
        )
        .filter(pl.Series([bool(answer) for answer in answers], dtype=pl.Boolean))
    )
    known = frame.filter(pl.col("part") != "replay").select(*time, value=pl.col("label"))
    if snapshot.record.since is not None:
        known = known.filter(pl.col("event_time") >= from_ms(snapshot.record.since))
    # Also without a drift trigger, so that one which is declared later has something to measure against.
    trigger = resource.spec.triggers.drift or DriftTrigger()
    reference = reference_of(Rows(snapshot.reference(), said, known), resource, trigger)
    for feature in reference.features:
        if feature.state != "ok":
            print(f"{_WHAT[feature.kind]} of {feature.said} will not be signalled: {feature.reason}", flush=True)
    return encode_reference(reference)
