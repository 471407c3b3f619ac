"""What made a version and what it went into, in words: the facts of `tidemill lineage`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tidemill.core.clock import to_ms
from tidemill.events.sources import Source
from tidemill.registry.trace import Fact, Trace

__all__ = ["Step", "Way", "steps_of"]

Way = Literal["made from", "went into"]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing on the way."""

    way: Way
    kind: str
    id: str
    told: str
    """What is known of it, in words."""
    since: int | None = None
    """Time of the first of several, or of the one; milliseconds since the epoch."""


def steps_of(trace: Trace) -> tuple[Step, ...]:
    """Both ways of a version, the nearest first."""
    return (*(_step("made from", one) for one in trace.back), *(_step("went into", one) for one in trace.forth))


def _step(way: Way, fact: Fact) -> Step:
    told = fact.told
    if "gone" in told:
        return Step(way, fact.kind, fact.id, told["gone"])
    words, since = _WORDS[fact.kind](way, told), told.get("at") or told.get("first")
    at = datetime.fromisoformat(since) if isinstance(since, str) else since
    return Step(way, _SEVERAL.get(fact.kind, fact.kind), fact.id, words, None if at is None else to_ms(at))


def _run(_: Way, told: Mapping[str, Any]) -> str:
    return ": ".join(str(told[name]) for name in ("cause", "reason") if told.get(name)) or "why is not known"


def _version(way: Way, told: Mapping[str, Any]) -> str:
    words = "its weights were the beginning" if way == "made from" else "it began with these weights"
    gone = f"its files are gone since {told['files gone']}" if "files gone" in told else ""
    return ", ".join(one for one in (told.get("alias"), words, gone) if one)


def _snapshot(_: Way, told: Mapping[str, Any]) -> str:
    if "rows" not in told:
        return str(told["problem"])
    rows = ", ".join(f"{count:,} rows {part}" for part, count in told["rows"].items())
    return f"{rows}; events {_offsets(told['events'])}; labels {_offsets(told['labels'])}"


def _offsets(offsets: Mapping[str, Any]) -> str:
    parts = [f"{Source.parse(source).partition} up to {offset:,}" for source, offset in offsets.items()]
    return f"of partition {', '.join(parts)}" if parts else "none"


def _predictions(_: Way, told: Mapping[str, Any]) -> str:
    return f"{told['count']:,} within {(told['last'] - told['first']).total_seconds() / 3600:,.1f} hours"


def _outcomes(_: Way, told: Mapping[str, Any]) -> str:
    loss = told["mean_loss"]
    how = "none is labelled yet" if loss is None else f"mean loss {loss:.4f} of those with a label"
    return f"{told['count']:,}: {how}"


_SEVERAL = {"prediction": "predictions", "outcome": "outcomes"}
"""Of a version they are counted."""
_WORDS: Mapping[str, Callable[[Way, Mapping[str, Any]], str]] = {
    "run": _run,
    "version": _version,
    "snapshot": _snapshot,
    "prediction": _predictions,
    "outcome": _outcomes,
}
