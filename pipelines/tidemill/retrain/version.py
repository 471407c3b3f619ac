"""The steps train and evaluate: from a snapshot to a version, and what it and the champion make of the fresh rows."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from tidemill.artifacts import Manifest, PredictionShape, local_folder, read, verify, write
from tidemill.core.clock import from_ms
from tidemill.core.errors import NotFound, UserCodeError
from tidemill.evaluation.scoring import Compared, Evaluation, Stress, Timing, losses_of
from tidemill.retrain.drifts import earlier_drifts
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import Place
from tidemill.spec.model import ContinualModel, DriftTrigger
from tidemill.training.frozen import frozen_folder, open_frozen
from tidemill.training.progress import CHECKPOINT_S, Telling
from tidemill.training.protocols import Codec, Row
from tidemill.training.snapshot import Snapshot, row_columns, rows_and_labels

if TYPE_CHECKING:
    from tidemill.training.learn import Learnt
    from tidemill.training.predictor import OnnxModel

__all__ = ["evaluate", "train"]

_THREADS = 2
_SAMPLE = 8
_CHECKPOINT = ".checkpoint.safetensors"
_WHAT = {"number": "drift", "category": "drift", "loss": "a rise"}


def train(
    place: Place,
    grant: Grant,
    snapshot: Snapshot,
    *,
    tell: Callable[[str], None] = lambda words: None,
    checkpoint_s: float = CHECKPOINT_S,
) -> Manifest:
    """Train on the snapshot and write the version's artifact. A version that is there already is taken as it is.

    A training that was killed goes on from its checkpoint, which lies beside the artifact until that is written: so a
    retry finds it, on one machine and, where versions are kept in a shared folder, on another machine.

    Args:
        place: the surroundings.
        grant: of the run, whose version it is.
        snapshot: what to learn from.
        tell: how far it is, in words, at most once a second.
        checkpoint_s: seconds between two checkpoints.
    """
    from tidemill.training.user_code import load_codec

    resource, folder = snapshot.record.resource(place.resource), place.version_folder(grant.run)
    checkpoint = _checkpoint(folder)
    known = _written(folder, snapshot)
    if known is not None:
        checkpoint.unlink(missing_ok=True)
        return known
    frame = snapshot.frame().filter(pl.col("part") != "fresh")
    rows, labels = rows_and_labels(frame, resource, snapshot.record.service)
    classes = resource.spec.prediction.classes
    weights, champion = _champion_weights(place, grant)
    warm_from = champion.version if champion else ""
    beginning = _Beginning(snapshot, weights, champion, checkpoint, checkpoint_s, Telling(tell, place.clock))
    learnt = _learnt(resource, load_codec(resource.spec.model.codec, classes), rows, labels, beginning)
    manifest = Manifest(
        version=grant.run,
        model=resource.id,
        codec=resource.spec.model.codec,
        prediction=PredictionShape(type=resource.spec.prediction.type, classes=classes),
        created_at=place.clock.now().isoformat(timespec="seconds"),
        run=grant.run,
        snapshot=snapshot.digest,
        warm_from=warm_from,
        inputs=learnt.exported.inputs,
        outputs=learnt.exported.outputs,
    )
    files = {"model.onnx": learnt.exported.model, "weights.safetensors": learnt.weights}
    written = write(folder, {**files, "reference.json": _reference(place, snapshot, files, manifest)}, manifest)
    checkpoint.unlink(missing_ok=True)
    return written


def evaluate(place: Place, grant: Grant, snapshot: Snapshot) -> Evaluation:
    """Candidate and champion on the snapshot's fresh rows, and what else the declared gates look at."""
    from tidemill.evaluation.answering import classes_of
    from tidemill.training.predictor import OnnxModel

    resource = snapshot.record.resource(place.resource)
    models = [OnnxModel(place.version_folder(grant.run), threads=_THREADS)]
    if grant.champion_artifact:
        models.append(OnnxModel(local_folder(grant.champion_artifact), threads=_THREADS))
    fresh = snapshot.frame().filter(pl.col("part") == "fresh")
    found = _compared(resource, "fresh", snapshot, fresh, models)
    against = f", champion {grant.champion}: {found.champion.mean:.4f}" if found.champion else ""
    print(f"error on {fresh.height} fresh rows: {found.candidate.mean:.4f}{against}", flush=True)
    classes, sizes = classes_of(resource), [model.manifest.files["model.onnx"].size for model in models]
    frozen, problem = _frozen(place, grant, resource, models)
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
        stresses=_stresses(resource, snapshot, fresh, models),
        drifts=_drifts(resource, snapshot, models),
    )


class _Beginning(NamedTuple):
    """Where a training begins, and how it is told and kept."""

    snapshot: Snapshot
    weights: bytes | None
    champion: Manifest | None
    checkpoint: Path
    checkpoint_s: float
    telling: Telling


def _learnt(
    resource: ContinualModel,
    codec: Codec,
    rows: Sequence[Row],
    labels: Sequence[Mapping[str, Any]],
    at: _Beginning,
) -> "Learnt":
    """What the user's Trainer or Learner makes of the rows."""
    from tidemill.training.classes import new_classes
    from tidemill.training.export import export
    from tidemill.training.learn import Learnt, learn
    from tidemill.training.tensors import encode
    from tidemill.training.user_code import load_learner, load_trainer, takes_classes

    path, classes, seed = resource.spec.model.trainer, resource.spec.prediction.classes, at.snapshot.record.seed
    learner = load_learner(path, classes)
    trainer = learner or load_trainer(path, classes)
    if at.snapshot.record.adopted and not takes_classes(trainer):
        raise UserCodeError(f"{path} has no classes: it cannot learn {', '.join(at.snapshot.record.adopted)}")
    new = new_classes(classes, at.champion.prediction.classes) if at.champion and takes_classes(trainer) else ()
    told = f", with the new classes {', '.join(new)}" if new else ""
    print(f"training on {len(rows)} rows, from {at.champion.version if at.champion else 'scratch'}{told}", flush=True)
    if learner is not None:
        return learn(learner, codec, rows, labels, seed=seed, weights=at.weights)
    # After that, because torch's import takes seconds.
    from tidemill.training.fit import fit
    from tidemill.training.weights import save_weights

    fitted = fit(
        load_trainer(path, classes),
        codec,
        rows,
        labels,
        seed=seed,
        weights=at.weights,
        new_classes=len(new),
        checkpoint=at.checkpoint,
        checkpoint_s=at.checkpoint_s,
        data=at.snapshot.digest,
        progress=at.telling,
    )
    return Learnt(export(fitted.module, encode(codec, rows[:_SAMPLE])), save_weights(fitted.module))


def _checkpoint(folder: Path) -> Path:
    """The place of a version's checkpoint. Those of other runs are removed: only one trains at a time, by its grant."""
    own = folder.with_name(f".{folder.name}{_CHECKPOINT}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for other in folder.parent.glob(f".*{_CHECKPOINT}"):
        if other != own:
            other.unlink(missing_ok=True)
    return own


def _compared(
    resource: ContinualModel,
    name: str,
    snapshot: Snapshot,
    frame: pl.DataFrame,
    models: "Sequence[OnnxModel]",
    service: Sequence[str] | None = None,
) -> Compared:
    """What candidate and champion, if there is one, make of rows of a snapshot, or of another with these features."""
    from tidemill.evaluation.answering import rows_of, score

    rows, labels = rows_and_labels(frame, resource, snapshot.record.service if service is None else service)
    candidate, *champion = [score(model, rows, labels, resource) for model in models]
    return Compared(
        name=name,
        digest=snapshot.digest,
        rows=rows_of(frame, labels, resource),
        candidate=candidate,
        champion=champion[0] if champion else None,
    )


def _frozen(
    place: Place, grant: Grant, resource: ContinualModel, models: "Sequence[OnnxModel]"
) -> tuple[Compared | None, str]:
    """The comparison on the frozen dataset that is declared, or why there is none."""
    gate = place.resource.spec.gates.frozen
    if gate is None:
        return None, ""
    try:
        dataset = open_frozen(frozen_folder(place.version_folder(grant.run)), gate.dataset)
    except NotFound as error:
        return None, f"{error.message}: {error.hint}"
    return _compared(resource, gate.dataset, dataset, dataset.frame(), models), ""


def _stresses(
    resource: ContinualModel, snapshot: Snapshot, fresh: pl.DataFrame, models: "Sequence[OnnxModel]"
) -> tuple[Stress, ...] | None:
    """The losses of candidate and champion on fresh rows that lack something; None unless the gate is declared."""
    from tidemill.evaluation.answering import score
    from tidemill.evaluation.robustness import stressed

    service = snapshot.record.service
    if resource.spec.gates.robustness is None:
        return None
    rows, labels = rows_and_labels(fresh, resource, service)
    found = []
    for name, changed in stressed(rows, resource, service):
        candidate, *champion = [score(model, changed, labels, resource).losses for model in models]
        found.append(Stress(name=name, candidate=candidate, champion=champion[0] if champion else None))
    return tuple(found)


def _drifts(resource: ContinualModel, snapshot: Snapshot, models: "Sequence[OnnxModel]") -> tuple[Compared, ...] | None:
    """The comparisons on what came with earlier drifts; None unless the gate is declared."""
    gate, service = resource.spec.gates.robustness, snapshot.record.service
    if gate is None:
        return None
    found = earlier_drifts(snapshot.folder.parent, snapshot, row_columns(resource, service))
    return tuple(
        _compared(resource, one.name, one.snapshot, one.rows, models, service) for one in islice(found, gate.drifts)
    )


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


def _champion_weights(place: Place, grant: Grant) -> tuple[bytes | None, Manifest | None]:
    """The weights that training starts from, and the version they are of."""
    if not (place.resource.spec.model.warm_start and grant.champion_artifact):
        return None, None
    folder = local_folder(grant.champion_artifact)
    manifest = verify(folder)
    return read(folder, manifest, "weights.safetensors"), manifest


def _reference(place: Place, snapshot: Snapshot, files: Mapping[str, bytes], manifest: Manifest) -> bytes:
    """What drift from the version is measured against; its answers on the fresh rows are part of it."""
    from tidemill.evaluation.answering import answers_of
    from tidemill.training.predictor import OnnxModel
    from tidemill.watch.answers import Rows, reference_of
    from tidemill.watch.reference import encode_reference

    resource, frame = snapshot.record.resource(place.resource), snapshot.frame()
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
