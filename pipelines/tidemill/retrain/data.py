"""The steps snapshot and validate: from the lake to a dataset that is fit to learn from."""

import hashlib

import polars as pl

from tidemill.artifacts import local_folder, verify
from tidemill.core.clock import from_ms, to_ms
from tidemill.core.errors import InvalidInput, NotFound
from tidemill.events.lake import LakeTable, table_uri
from tidemill.ingest.tables import picture_store
from tidemill.retrain.grant import Grant
from tidemill.retrain.place import Place
from tidemill.training.checks import check
from tidemill.training.dataset import QUERY, WINDOWS_QUERY, content, labelled, reference_rows, split
from tidemill.training.labels import label_class, parse_label
from tidemill.training.snapshot import (
    Snapshot,
    SnapshotRecord,
    TableRead,
    open_snapshot,
    snapshots_folder,
    write_snapshot,
)

__all__ = ["champion_snapshot", "open_from", "snapshot", "validate"]


def snapshot(place: Place, grant: Grant) -> Snapshot:
    """Write the dataset of a run: what is labelled and mature now, split by time."""
    resource, as_of = place.resource, to_ms(place.clock.now())
    events, events_read = _read(place, "events")
    labels, labels_read = _read(place, "labels")
    predictions, predictions_read = _predictions(place)
    rows, invalid = labelled(events, labels, resource, as_of=as_of, predictions=predictions)
    # Without a warm start the module knows nothing yet: it learns from everything.
    before = champion_snapshot(grant) if resource.spec.model.warm_start else None
    seed = int.from_bytes(hashlib.sha256(grant.run.encode()).digest()[:4])
    parts = split(
        rows,
        fresh_rows=resource.spec.gates.fresh.rows,
        known=before.record.seen() if before else None,
        seed=seed,
        replay=resource.spec.model.replay,
        class_of=lambda label: label_class(parse_label(label, resource) or {}, resource),
    )
    pictures = picture_store(place.lake, resource)
    seen = content(events, parts, resource, pictures, labels=labels, predictions=predictions, as_of=as_of)
    frame, service = _with_service(place, seen, predictions, as_of)
    since = None if grant.since is None else from_ms(grant.since)
    record = SnapshotRecord(
        model=resource.id,
        as_of=as_of,
        query=QUERY + (WINDOWS_QUERY if resource.spec.features.windows else ""),
        maturity_ms=round(resource.spec.labels.maturity.after.total_seconds() * 1000),
        events=events_read,
        labels=labels_read,
        predictions=predictions_read,
        known=before.digest if before else None,
        since=grant.since,
        seed=seed,
        rows={part: parts.filter(pl.col("part") == part).height for part in ("new", "replay", "fresh")},
        service=service,
        invalid_labels=invalid,
    )
    folder = snapshots_folder(place.version_folder(grant.run))
    reference = reference_rows(events, parts, resource, since=since)
    written = write_snapshot(folder, frame, reference, record)
    print(f"snapshot {written.digest}: {record.rows}, reference of {reference.height} events", flush=True)
    return written


def validate(place: Place, taken: Snapshot) -> None:
    """Raise `InvalidInput` with every reason why this is no dataset to learn from."""
    check(taken.frame(), taken.record, place.resource)


def open_from(place: Place, grant: Grant, digest: str) -> Snapshot:
    """The run's snapshot, by its digest."""
    return open_snapshot(snapshots_folder(place.version_folder(grant.run)), digest)


def champion_snapshot(grant: Grant) -> Snapshot | None:
    """What the champion was trained on; None without a champion, or where its snapshot is gone."""
    if not grant.champion_artifact:
        return None
    folder = local_folder(grant.champion_artifact)
    digest = verify(folder).snapshot
    try:
        return open_snapshot(snapshots_folder(folder), digest)
    except NotFound:
        print(f"the snapshot {digest} of champion {grant.champion} is gone: all rows count as new", flush=True)
        return None


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
