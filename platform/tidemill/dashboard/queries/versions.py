"""Versions and the runs that made them: cause, data, gates with their reasons, and how two of them compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tidemill.artifacts import local_folder, manifest_of
from tidemill.control.state import LoopStatus
from tidemill.core.errors import TidemillError
from tidemill.dashboard.queries.quality import QualityPoint
from tidemill.events.records import Decision
from tidemill.registry import RegisteredVersion, Registry
from tidemill.registry.card import card_of
from tidemill.training.verdict import WORDS, GateVerdict

__all__ = ["Compared", "Gate", "RunView", "VersionRow", "compare", "runs_of", "versions_of"]

_MOST = 50


@dataclass(frozen=True, slots=True)
class Gate:
    """What one gate said."""

    name: str
    verdict: str
    """passed, refused, or not applicable."""
    reason: str


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version as the registry has it."""

    version: str
    place: str
    """champion, candidate, previous, or nothing."""
    created_at: int
    cause: str
    reason: str
    snapshot: str
    warm_from: str
    gates: tuple[Gate, ...]
    artifact: str
    card: str
    """Markdown."""


@dataclass(frozen=True, slots=True)
class RunView:
    """A run, by the decisions about it."""

    run: str
    began: int
    cause: str
    reason: str
    ended: str
    """What became of it: a version, or why it failed; empty while it goes on."""
    failed: bool


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of two versions."""

    name: str
    one: str
    other: str


def versions_of(registry: Registry, model: str, status: LoopStatus | None) -> tuple[VersionRow, ...]:
    """The newest first; gates with their reasons where a decision still has them. Raises `Unavailable`."""
    told = {one.subject: one.figures.get("gates") for one in status.decisions} if status else {}
    places = {version: str(alias) for alias, version in registry.aliases(model).items()}
    newest = list(reversed(registry.versions(model)))[:_MOST]
    return tuple(_row(one, places.get(one.version, ""), _verdicts(told.get(one.version))) for one in newest)


def _row(one: RegisteredVersion, place: str, verdicts: tuple[Gate, ...]) -> VersionRow:
    told = {name.removeprefix("tidemill."): text for name, text in one.tags.items()}
    tags = tuple(Gate(name.removeprefix("gate."), text, "") for name, text in told.items() if name.startswith("gate."))
    return VersionRow(
        version=one.version,
        place=place,
        created_at=one.created_at,
        cause=told.get("cause", ""),
        reason=told.get("reason", ""),
        snapshot=told.get("snapshot", ""),
        warm_from=_warm_from(one.artifact),
        gates=verdicts or tags,
        artifact=one.artifact,
        card=_card(one),
    )


def _verdicts(told: Any) -> tuple[Gate, ...]:
    """The gates as a `start-rollout` has them; none of anything else."""
    if not told:
        return ()
    try:
        found = msgspec.convert(told, tuple[GateVerdict, ...])
    except msgspec.ValidationError:
        return ()
    return tuple(Gate(one.gate, WORDS[one.passed], one.reason) for one in found)


def _warm_from(artifact: str) -> str:
    try:
        return manifest_of(local_folder(artifact)).warm_from
    except TidemillError:  # gone, damaged or elsewhere: who loads it is told
        return ""


def _card(one: RegisteredVersion) -> str:
    try:
        return card_of(one)
    except TidemillError:
        return one.description


def runs_of(status: LoopStatus | None) -> tuple[RunView, ...]:
    """The runs among the last decisions, the newest first."""
    if status is None:
        return ()
    found: dict[str, RunView] = {}
    for one in status.decisions:
        if one.kind == "start-run":
            cause = str(one.figures.get("cause") or "")
            found[one.subject] = RunView(one.subject, one.time, cause, one.reason, "", False)
        elif one.subject in found and (ended := _end(one)):
            begun = found[one.subject]
            found[one.subject] = RunView(
                begun.run, begun.began, begun.cause, begun.reason, ended, one.kind == "run-failed"
            )
    return tuple(reversed(found.values()))


def _end(one: Decision) -> str:
    words: Mapping[str, str] = {
        "run-failed": one.reason,
        "start-rollout": "a candidate: its rollout began",
        "rolled-back": f"rolled back: {one.reason}",
        "promote": "promoted: all requests go to it",
    }
    return words.get(one.kind, "")


def compare(one: VersionRow, other: VersionRow, points: Sequence[QualityPoint]) -> tuple[Compared, ...]:
    """What differs between two versions, and how right each was of the outcomes that the page shows."""
    rows = [
        Compared("cause", one.cause, other.cause),
        Compared("why", one.reason, other.reason),
        Compared("data", one.snapshot[:12], other.snapshot[:12]),
        Compared("weights from", one.warm_from or "scratch", other.warm_from or "scratch"),
        *(
            Compared(f"{name} of the newest outcomes", *(f(version.version, points) for version in (one, other)))
            for name, f in (("error", _error), ("number", _count))
        ),
    ]
    gates = dict.fromkeys(gate.name for version in (one, other) for gate in version.gates)
    first, second = (
        {gate.name: ": ".join(filter(None, (gate.verdict, gate.reason))) for gate in version.gates}
        for version in (one, other)
    )
    rows += [Compared(f"gate {name}", first.get(name, "—"), second.get(name, "—")) for name in gates]
    return tuple(rows)


def _error(version: str, points: Sequence[QualityPoint]) -> str:
    mine = [one for one in points if one.version == version and one.error is not None and one.labelled]
    labelled = sum(one.labelled for one in mine)
    if not labelled:
        return "—"
    return f"{sum((one.error or 0) * one.labelled for one in mine) / labelled:.4f}"


def _count(version: str, points: Sequence[QualityPoint]) -> str:
    return f"{sum(one.outcomes for one in points if one.version == version):,}"
