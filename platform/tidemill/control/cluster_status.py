"""A model's status as Kubernetes shows it: what people read, made from what the loop knows. Pure.

The loop's own record stands beside it, under `status.loop`; control decides from that alone.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from tidemill.control.state import LoopStatus, Version
from tidemill.control.words import in_order

__all__ = ["Condition", "condition_list", "invalid_status", "status_of"]


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One condition, before it is known since when it holds."""

    type: Literal["Valid", "Operating", "Ready", "Progressing", "Provisioned", "TrafficAsAsked", "Withdrawn"]
    status: bool | None
    """None: unknown."""
    reason: str
    """One word in CamelCase, for programs."""
    message: str = ""


def status_of(
    status: LoopStatus, *, generation: int, conditions: Sequence[Condition], before: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """The whole status.

    Args:
        status: the loop's.
        generation: of the resource that it was decided from.
        conditions: those that others know of (whether it is valid, and provided for).
        before: the status as it stands, whose conditions keep their times where nothing changed.
        now: the time.
    """
    found: dict[str, Any] = {
        "observedGeneration": generation,
        "phase": status.phase,
        "message": _message(status),
        "conditions": condition_list([*conditions, *_of_loop(status)], generation, before, now),
        "loop": json.loads(msgspec.json.encode(status)),
    }
    told = {
        "champion": _name(status.champion),
        "candidate": _name(status.candidate),
        "previous": _name(status.previous),
        "traffic": _shares_seen(status),
        "drift": ", ".join(signal.feature for signal in status.drift.alarms) or ("none" if status.champion else ""),
        "quality": _quality(status),
    }
    return found | {name: text for name, text in told.items() if text}


def invalid_status(
    problems: Sequence[str], *, generation: int, before: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """The status of a resource that cannot be acted on; where the loop stood is kept."""
    kept = {
        name: value for name, value in before.items() if name not in {"observedGeneration", "message", "conditions"}
    }
    wrong = Condition(type="Valid", status=False, reason="Refused", message="; ".join(problems)[:4000])
    others = [one for one in before.get("conditions", []) if one["type"] != "Valid"]
    return kept | {
        "observedGeneration": generation,
        "message": f"the resource is not valid: {problems[0][:500]}",
        "conditions": [*condition_list([wrong], generation, before, now), *others],
    }


def condition_list(
    conditions: Sequence[Condition], generation: int, before: Mapping[str, Any], now: datetime
) -> list[dict[str, Any]]:
    """Conditions as Kubernetes writes them; the time changes only with the status."""
    known = {one["type"]: one for one in before.get("conditions", [])}
    found = []
    for one in conditions:
        word = {True: "True", False: "False", None: "Unknown"}[one.status]
        old = known.get(one.type)
        since = old["lastTransitionTime"] if old is not None and old["status"] == word else _instant(now)
        found.append(
            {
                "type": one.type,
                "status": word,
                "observedGeneration": generation,
                "lastTransitionTime": since,
                "reason": one.reason,
                "message": one.message,
            }
        )
    return found


def _shares_seen(status: LoopStatus) -> str:
    """`v1 100 %`, or champion's and candidate's: `v1 75 %, v2 25 %`."""
    named = {found.version for found in (status.champion, status.candidate) if found}
    return ", ".join(f"{one.version} {one.share} %" for one in in_order(status) if one.share or one.version in named)


def _of_loop(status: LoopStatus) -> list[Condition]:
    champion = status.champion
    seen = status.seen.traffic.revision(champion.version) if champion else None
    if champion is None:
        ready = Condition(type="Ready", status=False, reason="NoVersion", message="no version has been registered yet")
    elif seen is None or not seen.ready:
        why = seen.failed if seen is not None and seen.failed else f"version {champion.version} is not ready"
        ready = Condition(type="Ready", status=False, reason="NotServing", message=why)
    else:
        ready = Condition(type="Ready", status=True, reason="Serving", message=f"version {champion.version} answers")
    wanted = {one.version: one.share for one in status.traffic.revisions if one.share}
    found = {one.version: one.share for one in status.seen.traffic.revisions if one.share}
    moved = Condition(
        type="TrafficAsAsked",
        status=wanted == found,
        reason="Observed" if wanted == found else "NotObserved",
        message="" if wanted == found else f"asked {_shares(wanted)}, seen {_shares(found)}",
    )
    going = status.run is not None or status.rollout is not None
    progressing = Condition(
        type="Progressing", status=going, reason=status.phase if going else "Idle", message=_message(status)
    )
    return [ready, progressing, moved]


def _message(status: LoopStatus) -> str:
    if status.seen.troubles:
        return "; ".join(status.seen.troubles)[:1000]
    if status.rollout is not None:
        return f"rollout of {status.rollout.plan.candidate.name} at {status.rollout.weight} %: {status.rollout.reason}"
    if status.run is not None:
        step = f", at {status.run.step}" if status.run.step else ""
        return f"run {status.run.run}{step}: {status.run.reason}"
    last = status.decisions[-1] if status.decisions else None
    return f"{last.kind}: {last.reason}"[:1000] if last is not None else "nothing has happened yet"


def _quality(status: LoopStatus) -> str:
    seen = status.seen.history
    return f"{seen.error:.1%} wrong of {seen.outcomes:,} outcomes" if seen.error is not None else ""


def _shares(shares: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {share} %" for name, share in sorted(shares.items())) or "nothing"


def _name(version: Version | None) -> str:
    return version.version if version else ""


def _instant(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
