"""The steps snapshot and validate: from the lake to a dataset that is fit to learn from."""

import hashlib
from pathlib import Path

import polars as pl

from tidemill.artifacts import local_folder, verify
from tidemill.core.clock import from_ms, to_ms
from tidemill.core.errors import InvalidInput, NotFound
from tidemill.events.lake import LakeTable, table_uri
from tidemill.ingest.tables import picture_store
from tidemill.retrain.classes import classes_of_run, needs_classes
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import Place
from tidemill.training.checks import enforce, judge_data
from tidemill.training.classes import fresh_rows, ready_from
from tidemill.training.dataset import KEY, Labelled, content, labelled, query_of, reference_rows, split, without
from tidemill.training.frozen import find_snapshot, frozen_folder, open_frozen
from tidemill.training.labels import label_class, parse_label
from tidemill.training.snapshot import (
    Snapshot,
    SnapshotRecord,
    TableRead,
    snapshots_folder,
    write_snapshot,
)
from tidemill.training.verdict import GateVerdict

__all__ = ["champion_snapshot", "open_from", "snapshot", "validate"]


def snapshot(place: Place, grant: Grant, wanted: str = "") -> Snapshot:
    """The dataset of a run: one that there is already, or what is labelled and mature now, split by time.

    Args:
        place: the run's surroundings.
        grant: the run.
        wanted: digest of a snapshot of the model, or name of a frozen dataset: the run learns from exactly these rows.
            Empty: a new snapshot is written. The same lake versions, resource, time and run give the same one.

    Raises:
        NotFound: there is no such snapshot.
        Corrupt: it is not what was written.
        InvalidInput: there is nothing in the lake yet.
    """
    if not wanted:
        return _taken(place, grant)
    found = find_snapshot(place.version_folder(grant.run), wanted)
    found.frame()  # a changed file is told now, and not when training has begun
    print(f"snapshot {found.digest}, as asked for by {wanted}: {found.record.rows}", flush=True)
    return found


def _taken(place: Place, grant: Grant) -> Snapshot:
    """Write what is labelled and mature now."""
    resource, as_of = place.resource, to_ms(place.clock.now())
    events, events_read = _read(place, "events")
    labels, labels_read = _read(place, "labels")
    predictions, predictions_read = _predictions(place)
    resource, adopted = classes_of_run(place, grant, events, labels, predictions, as_of=as_of)
    found = labelled(events, labels, resource, as_of=as_of, predictions=predictions)
    rows = ready_from(found.rows, resource, adopted, as_of)
    # Without a warm start the module knows nothing yet: it learns from everything.
    before = champion_snapshot(grant) if resource.spec.model.warm_start else None
    seed = int.from_bytes(hashlib.sha256(grant.run.encode()).digest()[:4])
    parts = split(
        rows,
        fresh_rows=fresh_rows(rows, resource, adopted),
        known=before.record.seen() if before else None,
        seed=seed,
        replay=resource.spec.model.replay,
        class_of=lambda label: label_class(parse_label(label, resource) or {}, resource),
    )
    folder = snapshots_folder(place.version_folder(grant.run))
    kept = _frozen(place, folder)
    chosen = parts if kept is None else without(parts, kept.frame())
    held_out, parts = parts.height - chosen.height, chosen
    pictures = picture_store(place.lake, resource)
    seen = content(events, parts, resource, pictures, labels=labels, predictions=predictions, as_of=as_of)
    frame, service = _with_service(place, seen, predictions, as_of)
    since = None if grant.since is None else from_ms(grant.since)
    record = SnapshotRecord(
        model=resource.id,
        as_of=as_of,
        query=query_of(resource),
        maturity_ms=to_ms(resource.spec.labels.maturity.after),
        events=events_read,
        labels=labels_read,
        predictions=predictions_read,
        known=before.digest if before else None,
        since=grant.since,
        seed=seed,
        rows={part: parts.filter(pl.col("part") == part).height for part in ("new", "replay", "fresh")},
        service=service,
        classes=resource.spec.prediction.classes,
        adopted=adopted,
        invalid_labels=found.invalid,
        disputed=found.disputed.height,
        frozen=kept.digest if kept else None,
        held_out=held_out,
    )
    reference = reference_rows(events, parts, resource, since=since)
    written = write_snapshot(folder, frame, reference, record, _words(found, parts))
    print(f"snapshot {written.digest}: {record.rows}, reference of {reference.height} events", flush=True)
    if found.disputed.height:
        print(f"{found.disputed.height} events are left out: their labellers differ", flush=True)
    if held_out:
        print(f"{held_out} rows are not trained on: they are in the frozen dataset that gates use", flush=True)
    return written


def validate(place: Place, taken: Snapshot, *, skip: bool = False) -> tuple[GateVerdict, ...]:
    """The verdict of each data gate; with `skip` they are shown and, but for a few, not enforced.

    Raises `InvalidInput` with every reason why this is no dataset to learn from.
    """
    if place.resource.spec.triggers.new_class is not None:
        needs_classes(place.resource)
    kept = _frozen(place, taken.folder.parent)
    frozen = None if kept is None else kept.frame().select(KEY)
    verdicts = judge_data(taken, taken.record.resource(place.resource), frozen=frozen, skip=skip)
    for verdict in verdicts:
        print(verdict, flush=True)
    enforce(verdicts)
    return verdicts


def open_from(place: Place, grant: Grant, digest: str) -> Snapshot:
    """The run's snapshot, by its digest."""
    return find_snapshot(place.version_folder(grant.run), digest)


def champion_snapshot(grant: Grant) -> Snapshot | None:
    """What the champion was trained on; None without a champion, or where its snapshot is gone."""
    if not grant.champion_artifact:
        return None
    folder = local_folder(grant.champion_artifact)
    digest = verify(folder).snapshot
    try:
        return find_snapshot(folder, digest)
    except NotFound:
        print(f"the snapshot {digest} of champion {grant.champion} is gone: all rows count as new", flush=True)
        return None


def _frozen(place: Place, snapshots: Path) -> Snapshot | None:
    """The frozen dataset that versions are judged on; None where the resource names none, or it is not made yet.

    It lies beside the model's snapshots.
    """
    gate = place.resource.spec.gates.frozen
    if gate is None:
        return None
    try:
        return open_frozen(frozen_folder(snapshots), gate.dataset)
    except NotFound as error:
        print(f"{error.message}: no row is kept from training for it", flush=True)
        return None


def _words(found: Labelled, parts: pl.DataFrame) -> pl.DataFrame:
    """What was said of the rows, and of disputed events of the time that is new to the run."""
    newest = parts.filter(pl.col("part") != "replay")["event_time"]
    disputed = found.disputed
    if not newest.is_empty():
        disputed = disputed.filter(pl.col("event_time") >= newest.min())
    events = pl.concat([parts.select(KEY), disputed.select(KEY)])
    return found.words.join(events, on=KEY, how="semi", maintain_order="left")


def _read(place: Place, name: str) -> tuple[pl.LazyFrame, TableRead]:
    """One version of a table, and what it holds of each source."""
    table = LakeTable(table_uri(place.lake, place.resource.id, name))
    try:
        version = table.delta_version
    except NotFound as error:
        raise InvalidInput(
            f"there are no {name} of {place.resource.id} in the lake yet: nothing to learn from",
            hint="send labelled events first",
        ) from error
    frame = table.scan(version)
    offsets = frame.group_by("source").agg(pl.col("offset").max()).sort("source").collect()
    return frame, TableRead(uri=table.uri, delta_version=version, offsets=dict(offsets.iter_rows()))


def _with_service(
    place: Place, frame: pl.DataFrame, predictions: pl.LazyFrame | None, as_of: int
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The rows with the features of the user's FeatureService, and their names; only with one is Feast imported."""
    name, entity = place.resource.spec.features.service, place.resource.spec.events.entity.name
    if name is None:
        return frame, ()
    from tidemill.features.service import open_service
    from tidemill.training.service_values import with_service

    service = open_service(place.resource, place.feast_repo)
    frame, logged = with_service(frame, service, predictions, entity=entity, as_of=as_of)
    print(f"features of {name}: {logged} of {frame.height} rows as served", flush=True)
    return frame, service.names


def _predictions(place: Place) -> tuple[pl.LazyFrame | None, TableRead | None]:
    """The predictions: labels by prediction id find their event through them, and they have the features served."""
    if not LakeTable(table_uri(place.lake, place.resource.id, "predictions")).exists:
        return None, None
    return _read(place, "predictions")
