"""Decisions as Kubernetes Events, so that `kubectl describe` tells a model's story. Pure.

An Event's name follows from the decision's id: telling it twice is one Event. Kubernetes forgets them after an hour;
the decisions themselves stay in the log.
"""

import hashlib

from tidemill.cluster import Kind, Manifest
from tidemill.control.cluster_kinds import MODEL
from tidemill.core.clock import from_ms
from tidemill.events.records import Decision

__all__ = ["EVENT", "event_of"]

EVENT = Kind("v1", "Event", "events")

_WARNINGS = frozenset({"refuse", "run-failed", "roll-back", "rolled-back", "hold", "lost"})
_LONGEST = 1000


def event_of(decision: Decision, model: Manifest) -> Manifest:
    """The Event that tells a decision about a ContinualModel."""
    meta = model["metadata"]
    digest = hashlib.sha256(decision.decision_id.encode()).hexdigest()[:16]
    at = from_ms(decision.time).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"name": f"{meta['name']}.{digest}", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": MODEL.api_version,
            "kind": MODEL.kind,
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
        "type": "Warning" if decision.kind in _WARNINGS else "Normal",
        "reason": "".join(word.capitalize() for word in decision.kind.split("-")),
        "message": f"{decision.subject}: {decision.reason}"[:_LONGEST],
        "source": {"component": "tidemill"},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
