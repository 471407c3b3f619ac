"""Ask the operator for something by annotation, and wait for its answer in the status.

Whoever may annotate a model may ask; no broker needs to be reached from where a person sits.
"""

import json
from typing import get_args

from tidemill.cluster import Cluster, Manifest
from tidemill.control.cluster_kinds import MODEL
from tidemill.control.cluster_provision import bare
from tidemill.control.cluster_requests import Asked, Kind, annotation, request_of
from tidemill.control.state import decode_status
from tidemill.core.clock import Clock
from tidemill.core.errors import DeadlineExceeded, InvalidInput, NotFound
from tidemill.events.records import Decision, Request
from tidemill.spec.model import ContinualModel

__all__ = ["ask"]

_POLL_S = 0.5


def ask(cluster: Cluster, resource: ContinualModel, request: Request, *, clock: Clock, deadline_s: float) -> Decision:
    """Annotate the model with `request`, and return the decision that answers it.

    Args:
        cluster: the API server, spoken to by a field manager for this kind of request: what one states anew takes
            the place of its last.
        resource: the model.
        request: what is asked; its id becomes the annotation's.
        clock: for the deadline.
        deadline_s: seconds within which the answer must be there.

    Raises:
        DeadlineExceeded: the operator did not answer in time; the annotation stays and may be answered later.
        InvalidInput: this cannot be asked by annotation.
        NotFound: the model is gone.
    """
    kind = next((one for one in get_args(Kind) if one == request.kind), None)
    if kind is None:
        raise InvalidInput(f"{request.kind} cannot be asked by annotation")
    arguments: dict[str, str | bool] = {
        name: value
        for name, value in request.arguments.items()
        if name != "reason" and isinstance(value, str | bool) and value
    }
    reason = str(request.arguments.get("reason") or "")
    asked = Asked(kind=kind, id=request.request_id, reason=reason, by=request.by, arguments=arguments)
    name, text = annotation(asked)
    manifest = _object(cluster, resource)
    cluster.apply(bare(manifest, annotations={name: text}), MODEL, force=True)
    known_as = request_of(asked, manifest, model=resource.id, now_ms=request.time).request_id
    until = clock.monotonic() + deadline_s
    while clock.monotonic() < until:
        loop = _object(cluster, resource).get("status", {}).get("loop")
        for decision in () if loop is None else decode_status(json.dumps(loop).encode()).decisions:
            if decision.answers == known_as:
                return decision
        clock.sleep(_POLL_S)
    raise DeadlineExceeded(
        f"the operator is not answering: no decision on {request.kind} of {resource.id} within {deadline_s:g} s",
        hint="see `kubectl describe ctm`: the operator must run; the annotation stays",
    )


def _object(cluster: Cluster, resource: ContinualModel) -> Manifest:
    found = cluster.get(MODEL, resource.metadata.namespace, resource.metadata.name)
    if found is None:
        raise NotFound(f"there is no model {resource.id}")
    return found
