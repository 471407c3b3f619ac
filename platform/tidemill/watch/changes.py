"""What an alarm says in figures and words, whatever kind of quantity it is of.

a number        brightness fell from 0.62 to 0.41, stations B and C
a category      material: share of 'steel' rose from 0.2 to 0.6, station B
new values      material: 7 new values, such as 'x', hold 0.3
what is missing exposure_ms: missing in 0.45 of rows, was 0.01
a loss          error rose from 0.05 to 0.21, station B
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidemill.stats.drift import MISSING, Alarm
from tidemill.watch.hits import EVERYONE, MOST_NEW, level, new_values
from tidemill.watch.quantity import FeatureReference
from tidemill.watch.words import drift_message, movers, with_entities

__all__ = ["Change", "change"]

LONGEST_VALUE = 32
"""Characters of a value in a sentence."""


@dataclass(frozen=True)
class Change:
    """How the feature that made an alarm moved."""

    before: float
    now: float
    entities: Sequence[str]
    """Those that moved."""
    message: str


def change(
    feature: FeatureReference,
    alarm: Alarm,
    recent: Mapping[str, Mapping[str, float]],
    *,
    entity: str,
    also: Sequence[str],
) -> Change:
    """How `feature` moved.

    Args:
        feature: what it was measured against, the first that the alarm names.
        alarm: what the detectors said.
        recent: the moving means (`tidemill.watch.hits`).
        entity: the entity's name in the resource.
        also: other features that the alarm names.
    """
    means = recent.get(level(feature, alarm.row), {})
    before, by_entity = _before(feature, alarm.row)
    now = means.get(EVERYONE, before)
    rises = alarm.rises if feature.kind == "number" and alarm.row != MISSING else alarm.more
    moved = movers(by_entity, before, means, rises)
    if feature.kind == "number" and alarm.row != MISSING:
        message = drift_message(feature, alarm, now, moved, entity=entity, also=also)
    else:
        text = _text(feature, alarm.row, before, now, recent.get(new_values(feature), {}), rises)
        known = len(feature.entities or feature.entity_shares)
        message = with_entities(text, moved, known, entity=entity, also=also)
    return Change(before=before, now=now, entities=moved, message=message)


def _before(feature: FeatureReference, row: int) -> tuple[float, Mapping[str, float]]:
    """What is shown of a row in the reference, over all and by entity."""
    if row == MISSING:
        return (feature.missing.share if feature.missing is not None else 0.0), {}
    if feature.kind != "category":
        return feature.mean or 0.0, feature.entities
    return feature.shares[row], {entity: shares[row] for entity, shares in feature.entity_shares.items()}


def _text(feature: FeatureReference, row: int, before: float, now: float, new: Mapping[str, float], rises: bool) -> str:
    was, is_now = _shares(before, now)
    if row == MISSING:
        return f"{feature.name}: missing in {is_now} of rows, was {was}"
    verb = "rose" if rises else "fell"
    if feature.kind == "loss":
        return f"{feature.name} {verb} from {was} to {is_now}"
    if row < len(feature.labels):
        return f"{feature.name}: share of {_value(feature.labels[row])} {verb} from {was} to {is_now}"
    such = f", such as {_value(next(iter(new)))}," if new else ""
    if feature.others or not rises or not new:
        return f"{feature.name}: share of other values{such} {verb} from {was} to {is_now}"
    many = f"more than {MOST_NEW}" if len(new) >= MOST_NEW else f"{len(new)}"
    return f"{feature.name}: {many} new value{'s' * (len(new) > 1)}{such} hold{'s' * (len(new) == 1)} {is_now}"


def _shares(before: float, now: float) -> tuple[str, str]:
    """Both with as few decimals as tell them apart, at least two and at most four."""
    for decimals in (2, 3, 4):
        pair = tuple(f"{share:.{decimals}f}".rstrip("0").rstrip(".") for share in (before, now))
        if pair[0] != pair[1]:
            break
    return pair[0], pair[1]


def _value(value: str) -> str:
    return repr(value if len(value) <= LONGEST_VALUE else f"{value[: LONGEST_VALUE - 1]}…")
