"""The model card: what a version is, on what data, how good, what it cannot promise, and how it came about.

Markdown, for people; every figure in it stands in the version's manifest, snapshot, evaluation or gates, too. The form
follows Mitchell et al., Model Cards for Model Reporting (2019), without the parts that only people can write.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tidemill.artifacts import Manifest
from tidemill.core.clock import from_ms
from tidemill.evaluation.gates import GateVerdict
from tidemill.evaluation.scoring import Evaluation
from tidemill.retrain.grant import Grant
from tidemill.spec.model import ContinualModel
from tidemill.training.code_digest import Code
from tidemill.training.labels import label_class, parse_label
from tidemill.training.snapshot import SnapshotRecord
from tidemill.training.verdict import WORDS
from tidemill.watch.reference import Reference

__all__ = ["FILE", "Made", "card_of"]

FILE = "card.md"
"""Its name in an artifact."""
_THIN = 30
"""Rows below which a group's error is said to be thin: half of its 95 % interval may be as wide as 0.18."""
_GROUPS = 20
_OPTIONAL = ("frozen", "slices", "calibration", "latency", "size", "robustness")


@dataclass(frozen=True)
class Made:
    """What a card tells of."""

    resource: ContinualModel
    grant: Grant
    manifest: Manifest
    record: SnapshotRecord
    frame: pl.DataFrame
    """The snapshot's rows."""
    evaluation: Evaluation
    verdicts: Sequence[GateVerdict]
    reference: Reference
    code: Code


def card_of(made: Made) -> str:
    """The card in Markdown; the same facts give the same card."""
    sections = (_what(made), _data(made), _quality(made), _limits(made), _origin(made))
    return "\n".join(line for section in sections for line in (*section, ""))


def _what(made: Made) -> Iterator[str]:
    manifest, prediction = made.manifest, made.resource.spec.prediction
    yield f"# {manifest.model} {manifest.version}"
    yield ""
    classes = f" of {_listed(prediction.classes)}" if prediction.classes else ""
    yield f"A {prediction.type}{classes}, made {_text(manifest.created_at)} by run {_code(manifest.run)}."
    yield ""
    sizes = ", ".join(f"{_code(name)} {entry.size:,} bytes" for name, entry in sorted(manifest.files.items()))
    yield f"- Codec: {_code(manifest.codec)}; trainer: {_code(made.resource.spec.model.trainer)}"
    yield f"- Files: {sizes}"


def _data(made: Made) -> Iterator[str]:
    record, frame = made.record, made.frame
    yield "## Data"
    yield ""
    yield f"Snapshot {_code(made.evaluation.snapshot)}: {_text(record.query)}, as of {_time(record.as_of)}."
    if frame.height:
        times = frame["event_time"].dt.strftime("%Y-%m-%d %H:%M").sort()
        yield f"Its events are of {times[0]} to {times[-1]} UTC."
    if record.invalid_labels:
        yield f"{record.invalid_labels:,} labels did not fit the resource and were left out."
    yield ""
    classes = _classes(made, frame)
    counts = frame.select("part").with_columns(of=classes).group_by("of", "part").len()
    known = {(of, part): count for of, part, count in counts.iter_rows()}
    parts = [part for part in ("new", "replay", "fresh") if record.rows.get(part)]
    rows = [
        (of, *(known.get((of, part), 0) for part in parts)) for of in sorted({of for of, _ in known}, key=str)[:_GROUPS]
    ]
    yield from _table(("label", *parts), [*rows, ("all", *(record.rows[part] for part in parts))])
    yield ""
    yield "`new` and `replay` were trained on; `fresh`, the newest rows, judged it and were not."


def _quality(made: Made) -> Iterator[str]:
    yield "## How good"
    yield ""
    candidate, champion = made.evaluation.candidate, made.evaluation.champion
    against = f"; the champion {_code(champion.version)} had {champion.mean:.4f}" if champion else ""
    yield f"Error on the {len(candidate.losses):,} fresh rows: {candidate.mean:.4f}{against}."
    yield ""
    for by, groups in _groupings(made):
        columns = ("rows", "error") + (("champion's error",) if champion else ())
        yield from _table((by, *columns), [_group_row(group) for group in groups[:_GROUPS]])
        if len(groups) > _GROUPS:
            yield f"and {len(groups) - _GROUPS:,} smaller groups"
        yield ""
    rows = [(one.gate, _verdict(one), one.reason) for one in made.verdicts]
    yield from _table(("gate", "verdict", "reason"), rows)


def _limits(made: Made) -> Iterator[str]:
    """What was not judged and why, what is not watched, and which groups were too thin."""
    yield "## Limits"
    yield ""
    gates = made.resource.spec.gates
    missing = [name for name in _OPTIONAL if not getattr(gates, name)]
    if missing:
        yield f"- Not judged, because `spec.gates` does not ask for it: {', '.join(missing)}."
    for verdict in made.verdicts:
        if verdict.passed is None:
            yield f"- {_text(verdict.gate)} was not judged: {_text(verdict.reason)}."
        elif not verdict.enforced:
            yield f"- {_text(verdict.gate)} was judged and not enforced: the gates were skipped by force."
    for by, groups in _groupings(made):
        if thin := [name for name, rows, *_ in groups if rows < _THIN]:
            yield f"- Of {_text(by)} {_listed(thin)} there were fewer than {_THIN} fresh rows: their error says little."
    for feature in made.reference.features:
        if feature.state != "ok":
            what = "a rise" if feature.kind == "loss" else "drift"
            yield f"- {what} of {_text(feature.name)} will not be signalled: {_text(feature.reason)}."
    yield "- It knows what its rows show; what has changed since is the watch's to find."


def _origin(made: Made) -> Iterator[str]:
    grant, code = made.grant, made.code
    yield "## How it came about"
    yield ""
    yield f"- Cause: {_text(grant.cause or 'not told')}: {_text(grant.reason or 'no reason was given')}"
    if grant.since is not None:
        yield f"- The drift behind it grew from {_time(grant.since)}"
    warm_from = made.manifest.warm_from
    yield f"- Training began from {f'the weights of {_code(warm_from)}' if warm_from else 'scratch'}"
    yield f"- Seed of its samples: {made.record.seed}"
    if made.record.known:
        yield f"- `new` is what snapshot {_code(made.record.known)} could not see"
    commit = f", commit {_code(code.commit)}" if code.commit else ""
    by = _text(code.tidemill or "of no known version")
    yield f"- Code: {_code(code.digest or 'not found')}{commit}, Tidemill {by}"


_Group = tuple[str, int, float, float | None]
"""Name, rows, error, the champion's error."""


def _groupings(made: Made) -> list[tuple[str, list[_Group]]]:
    """By what the label states, and by each of `gates.slices`: the groups of the fresh rows, largest first."""
    fresh = made.frame.filter(pl.col("part") == "fresh")
    candidate, champion = made.evaluation.candidate, made.evaluation.champion
    if not fresh.height or len(candidate.losses) != fresh.height:
        return []
    entity = made.resource.spec.events.entity.name
    keys: dict[str, pl.Series] = {}
    if made.resource.spec.prediction.type != "regression":
        keys["label"] = _classes(made, fresh)
    for gate in made.resource.spec.gates.slices:
        keys[gate.by] = fresh["entity" if gate.by == entity else gate.by].cast(pl.String).fill_null("(none)")
    theirs = champion.losses if champion else [None] * fresh.height
    losses = pl.DataFrame({"mine": candidate.losses, "theirs": theirs}, schema_overrides={"theirs": pl.Float64()})
    return [(by, _grouped(losses.with_columns(of=of))) for by, of in keys.items()]


def _grouped(losses: pl.DataFrame) -> list[_Group]:
    found = losses.group_by("of").agg(pl.len(), pl.col("mine").mean(), pl.col("theirs").mean())
    return list(found.sort(["len", "of"], descending=[True, False]).iter_rows())


def _group_row(group: _Group) -> tuple[object, ...]:
    name, rows, mine, theirs = group
    return (name, f"{rows:,}", f"{mine:.4f}", *([] if theirs is None else [f"{theirs:.4f}"]))


def _classes(made: Made, frame: pl.DataFrame) -> pl.Series:
    """What each row's label states; `number` for a regression."""
    resource = made.resource
    if resource.spec.prediction.type == "regression":
        return pl.Series(["number"] * frame.height, dtype=pl.String)
    said = [label_class(parse_label(text, resource) or {}, resource) or "(none)" for text in frame["label"]]
    return pl.Series(said, dtype=pl.String)


def _verdict(verdict: GateVerdict) -> str:
    return WORDS[verdict.passed] + ("" if verdict.enforced else ", not enforced")


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield "| " + " | ".join(_text(column) for column in columns) + " |"
    yield "|" + " --- |" * len(columns)
    for row in rows:
        yield "| " + " | ".join(_text(cell) for cell in row) + " |"


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    shown = list(names)[:_GROUPS]
    more = f" and {len(names) - _GROUPS} more" if len(names) > _GROUPS else ""
    return ", ".join(_code(name) for name in shown) + more


def _text(value: object) -> str:
    """Text from anywhere as text: on one line, and neither markup nor a table's edge."""
    return re.sub(r"([\\|<>*_`\[\]])", r"\\\1", " ".join(str(value).split()))


def _code(value: object) -> str:
    return "`" + " ".join(str(value).split()).replace("`", "'").replace("|", "/") + "`"


def _time(milliseconds: int) -> str:
    return f"{from_ms(milliseconds):%Y-%m-%d %H:%M:%S} UTC"
