"""What made a thing, and what it went into: offset ↔ event ↔ snapshot ↔ run ↔ version ↔ prediction ↔ outcome. Pure.

A version's data is its snapshot's, and that of every version whose weights its training started from.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

__all__ = [
    "Fact",
    "Trace",
    "VersionKnown",
    "ancestors",
    "descendants",
    "of_event",
    "of_prediction",
    "of_snapshot",
    "of_version",
]

Kind = Literal["event", "label", "snapshot", "run", "version", "prediction", "outcome"]


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One thing on the way, and what is known of it."""

    kind: Kind
    id: str
    told: dict[str, Any] = {}


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Of one thing: itself, what made it, and what it went into; each nearest first."""

    subject: Fact
    back: tuple[Fact, ...] = ()
    forth: tuple[Fact, ...] = ()


class VersionKnown(msgspec.Struct, frozen=True, kw_only=True):
    """A version as registry and artifact show it."""

    version: str
    snapshot: str
    warm_from: str = ""
    run: dict[str, Any] = {}
    """Why its run was, and when."""
    told: dict[str, Any] = {}
    """Its alias, where it lies, its code."""


Versions = Mapping[str, VersionKnown]
Snapshots = Mapping[str, Mapping[str, Any]]
"""What is told of each snapshot, by digest."""


def ancestors(versions: Versions, version: str) -> list[str]:
    """The versions that a version was warm-started from, the nearest first. Each once, whatever is recorded."""
    found: list[str] = []
    at = versions[version].warm_from if version in versions else ""
    while at and at not in found and at != version:
        found.append(at)
        at = versions[at].warm_from if at in versions else ""
    return found


def descendants(versions: Versions, version: str) -> list[str]:
    """The versions that were trained from a version, through any number of warm starts, in the order of their names."""
    return sorted(one for one in versions if one != version and version in ancestors(versions, one))


def of_version(versions: Versions, snapshots: Snapshots, version: str, answers: Sequence[Fact] = ()) -> Trace:
    """Of a version: its run, its snapshot, those of its ancestors; the versions that started from it, its answers."""
    known = versions[version]
    back = [_run(known), *_snapshot(snapshots, known.snapshot)]
    for one in ancestors(versions, version):
        back += [_version(versions, one), *_snapshot(snapshots, versions[one].snapshot if one in versions else "")]
    forth = [*(_version(versions, one) for one in descendants(versions, version)), *answers]
    return Trace(subject=_version(versions, version), back=_once(back), forth=_once(forth))


def of_snapshot(versions: Versions, snapshots: Snapshots, digest: str) -> Trace:
    """Of a snapshot: what it was read from stands with it; the versions trained on it, and from these."""
    trained = sorted(one for one, known in versions.items() if known.snapshot == digest)
    subject = Fact(kind="snapshot", id=digest, told=dict(snapshots.get(digest, {})))
    return Trace(subject=subject, forth=_once(_with_descendants(versions, trained)))


def of_event(
    versions: Versions,
    event: Fact,
    labels: Iterable[Fact],
    held: Mapping[str, str],
    predictions: Iterable[Fact],
) -> Trace:
    """Of an event: its labels, the snapshots that hold it (`held`: part by digest), their versions, its predictions."""
    forth: list[Fact] = []
    for digest, part in held.items():
        forth.append(Fact(kind="snapshot", id=digest, told={"part": part}))
        if part != "fresh":  # fresh rows judge a version; it does not learn from them
            trained = sorted(one for one, known in versions.items() if known.snapshot == digest)
            forth += _with_descendants(versions, trained)
    return Trace(subject=event, back=tuple(labels), forth=_once([*forth, *predictions]))


def of_prediction(
    versions: Versions, snapshots: Snapshots, prediction: Fact, event: Sequence[Fact], after: Sequence[Fact]
) -> Trace:
    """Of a prediction: its version and all that made that, its event; and what came of it."""
    version = str(prediction.told.get("version") or "")
    made = of_version(versions, snapshots, version) if version in versions else None
    back = [*event, *([made.subject, *made.back] if made else [])]
    return Trace(subject=prediction, back=_once(back), forth=tuple(after))


def _with_descendants(versions: Versions, trained: Iterable[str]) -> list[Fact]:
    found: list[Fact] = []
    for one in trained:
        found += [_version(versions, one), *(_version(versions, later) for later in descendants(versions, one))]
    return found


def _version(versions: Versions, version: str) -> Fact:
    known = versions.get(version)
    if known is None:
        return Fact(kind="version", id=version, told={"gone": "neither the registry nor the artifacts have it"})
    return Fact(
        kind="version", id=version, told={**known.told, "snapshot": known.snapshot, "warm_from": known.warm_from}
    )


def _run(known: VersionKnown) -> Fact:
    return Fact(kind="run", id=known.version, told=dict(known.run))


def _snapshot(snapshots: Snapshots, digest: str) -> list[Fact]:
    if not digest:
        return []
    return [Fact(kind="snapshot", id=digest, told=dict(snapshots.get(digest, {"gone": "it is not there any more"})))]


def _once(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    found: dict[tuple[str, str], Fact] = {}
    for one in facts:
        found.setdefault((one.kind, one.id), one)
    return tuple(found.values())
