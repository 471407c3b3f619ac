"""A drift alarm in words and figures: "brightness fell from 0.62 to 0.41, stations B and C"."""

from collections.abc import Mapping, Sequence

from tidemill.stats.drift import Alarm
from tidemill.watch.reference import FeatureReference

__all__ = ["drift_message", "movers", "with_entities"]

MOVED = 0.5
"""Entities are named whose mean moved at least half as far as that of the one that moved farthest."""


def movers(before: Mapping[str, float], mean: float, recent: Mapping[str, float], rises: bool) -> list[str]:
    """The entities that moved up (or else down) from what they were `before`, the `mean` where that is not known."""
    sign = 1.0 if rises else -1.0
    shifts = {entity: sign * (now - before.get(entity, mean)) for entity, now in recent.items() if entity}
    farthest = max(shifts.values(), default=0.0)
    return sorted(entity for entity, shift in shifts.items() if shift > 0 and shift >= MOVED * farthest)


def drift_message(
    feature: FeatureReference, alarm: Alarm, now: float, moved: Sequence[str], *, entity: str, also: Sequence[str]
) -> str:
    """The sentence of a drift signal.

    Args:
        feature: what it was measured against.
        alarm: what the detectors said.
        now: the recent mean.
        moved: names of the entities that moved.
        entity: the entity's name in the resource.
        also: other features that the alarm names.
    """
    before = feature.mean or 0.0
    was, is_now = _figures(before, now)
    if was != is_now and (now > before) == alarm.rises:
        text = f"{feature.name} {'rose' if alarm.rises else 'fell'} from {was} to {is_now}"
    else:
        side = "above" if alarm.rises else "below"
        text = f"more of {feature.name} lies {side} {alarm.edge:.3g} than before (mean {was}, now {is_now})"
    return with_entities(text, moved, len(feature.entities), entity=entity, also=also)


def with_entities(text: str, moved: Sequence[str], known: int, *, entity: str, also: Sequence[str]) -> str:
    """A sentence with the entities that moved, of so many that are known, and the other features of the alarm."""
    if moved:
        text += f", {_entities(entity, moved, known)}"
    return f"{text}; also {_list(also)}" if also else text


def _entities(entity: str, moved: Sequence[str], known: int) -> str:
    noun = entity.removesuffix("_id")
    if len(moved) == 1:
        return f"{noun} {moved[0]}"
    plural = noun if noun.endswith("s") else f"{noun}s"
    return f"all {known} {plural}" if len(moved) == known else f"{plural} {_list(moved)}"


def _list(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _figures(before: float, now: float) -> tuple[str, str]:
    """Both with as few digits as tell them apart, at least two and at most four."""
    for digits in (2, 3, 4):
        pair = f"{before:.{digits}g}", f"{now:.{digits}g}"
        if pair[0] != pair[1]:
            break
    return pair
