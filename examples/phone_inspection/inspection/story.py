"""What the report tells: the recording as plain data, its times in seconds after the start of the demo."""

import base64
from typing import Any

import msgspec

from .figures import Moments
from .inspector import Inspected
from .recording import Recording
from .result import Result

__all__ = ["story_of"]

_WINDOW_MS = 3000
_EVERY_MS = 500


def story_of(recording: Recording, moments: Moments, result: Result) -> dict[str, Any]:
    """The story as `report.render` takes it."""
    begin = moments.started
    live_since = moments.serving or begin

    def t(moment: int) -> float:
        return round((moment - begin) / 1000, 2)

    return {
        "result": msgspec.to_builtins(result),
        "accuracy": [
            {"t": t(at), "accuracy": round(share, 4)} for at, share in recording.moving_accuracy(_WINDOW_MS, _EVERY_MS)
        ],
        "statistics": {
            name: [{"t": t(at), "value": value} for at, value in recording.moving_statistic(name, live_since)]
            for name in recording.statistics
        },
        "traffic": [{"t": t(at), "shares": shares} for at, shares in recording.traffic],
        "signals": [
            {
                "t": t(at),
                "kind": one.kind,
                "feature": one.feature,
                "message": one.message,
                "evidence": one.evidence,
                "version": one.version,
            }
            for at, one in recording.signals
        ],
        "decisions": [
            {"t": t(one.time), "kind": one.kind, "subject": one.subject, "reason": one.reason}
            for one in recording.decisions
        ],
        "marks": [{"t": t(at), "name": name} for at, name in _marks(recording, moments)],
        "pictures": [_picture(when, one) for when, kept in recording.samples.items() for one in kept],
    }


def _marks(recording: Recording, moments: Moments) -> list[tuple[int, str]]:
    """The moments that explain the curves."""
    found: list[tuple[int, str]] = []
    if moments.light_changed is not None:
        found.append((moments.light_changed, "the light changes"))
        drift = [at for at, one in recording.signals if one.kind == "drift" and at >= moments.light_changed]
        found += [(drift[0], "drift")] if drift else []
        found += [(one.time, "rollout") for one in recording.decided("step-began", after=moments.light_changed)[:1]]
        found += [(one.time, "promoted") for one in recording.decided("promote", after=moments.light_changed)[:1]]
    if moments.returned_sent is not None:
        later = recording.decided("step-began", after=moments.returned_sent)
        found += [(one.time, "a bad candidate") for one in later[:1]]
        found += [(one.time, "rolled back") for one in recording.decided("rolled-back", after=moments.returned_sent)]
    return found


def _picture(when: str, one: Inspected) -> dict[str, Any]:
    picture = one.phone.picture
    return {
        "when": when,
        "jpeg": base64.b64encode(picture.jpeg).decode(),
        "truth": {"class": picture.defect, "box": picture.box},
        "answer": one.output,
        "right": one.right,
        "version": one.version,
        "station": picture.station,
    }
