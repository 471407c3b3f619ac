"""What a run asks of control: the right to run, and what came of it."""

from collections.abc import Mapping

import msgspec

from tidemill.core.clock import to_ms
from tidemill.core.errors import Conflict, Corrupt
from tidemill.evaluation.gates import GateVerdict, encode_verdicts
from tidemill.events.records import Decision, Request
from tidemill.retrain.place import Place

__all__ = ["Grant", "claim", "propose", "tell_failed", "tell_refused"]

CLAIM_WITHIN_S = 60.0
ANSWER_WITHIN_S = 30.0
WORD_WITHIN_S = 5.0
"""How long the end of a failed run waits for control: the grant ends without it, too, only later."""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """The right of one run to propose a version, and what control knows that the run needs."""

    run: str
    token: str
    expires_at: int
    champion: str = ""
    """Version that serves; empty: none."""
    champion_artifact: str = ""
    since: int | None = None
    """Event time (ms) from which the drift grew that caused the run."""
    cause: str = ""
    reason: str = ""
    skip_gates: bool = False


def claim(
    place: Place, run: str, *, reason: str, force: bool, skip_gates: bool, by: str = "pipeline", uid: str = ""
) -> Grant | None:
    """Ask for the right to run; None where control refuses it, which is no failure.

    `uid` tells pipeline runs of one name apart.

    Raises:
        DeadlineExceeded: control is not answering.
    """
    arguments = {"run": run, "reason": reason, "force": force, "skip_gates": skip_gates, "requested_by": by}
    request = _request(place, run, "claim", arguments)
    if uid:
        request = msgspec.structs.replace(request, request_id=f"{request.request_id}-{uid}")
    decision = place.ask(request, CLAIM_WITHIN_S)
    if decision.kind == "refuse":
        print(f"{run} is not granted: {decision.reason}", flush=True)
        return None
    # Control's word on the gates stands where it started the run itself.
    figures = {"reason": reason, "skip_gates": skip_gates, **decision.figures, "run": decision.subject}
    try:
        grant = msgspec.convert(figures, Grant)
    except msgspec.ValidationError as error:
        raise Corrupt(f"the grant of {run} ({decision.decision_id}) cannot be read: {error}") from error
    print(f"{run} is granted: {decision.reason}; champion {grant.champion or 'none'}", flush=True)
    return grant


def propose(place: Place, grant: Grant, artifact: str, verdicts: tuple[GateVerdict, ...]) -> Decision:
    """Hand the version to control, which starts its rollout. Raises `Conflict` where the grant is no longer good."""
    gates = encode_verdicts(verdicts)
    arguments = {"version": grant.run, "artifact": artifact, "gates": gates}
    return _tell(place, grant, "propose", arguments)


def tell_refused(place: Place, grant: Grant, verdicts: tuple[GateVerdict, ...]) -> Decision:
    """Tell control that the gates refused the version, so that the run is over without a proposal."""
    return _tell(place, grant, "finished", {"passed": False, "gates": encode_verdicts(verdicts)})


def tell_failed(place: Place, grant: Grant, step: str, error: str) -> Decision:
    """Tell control that the run failed, which frees the grant. The same word twice is one request."""
    arguments = {"run": grant.run, "token": grant.token, "step": step, "error": error}
    return place.ask(_request(place, grant.run, "failed", arguments), WORD_WITHIN_S)


def _tell(place: Place, grant: Grant, kind: str, arguments: Mapping[str, object]) -> Decision:
    owned = {"run": grant.run, "token": grant.token, **arguments}
    decision = place.ask(_request(place, grant.run, kind, owned), ANSWER_WITHIN_S)
    if decision.kind == "refuse":
        raise Conflict(f"control refused the {kind} of {grant.run}: {decision.reason}")
    print(f"control: {decision.kind}: {decision.reason}", flush=True)
    return decision


def _request(place: Place, run: str, kind: str, arguments: Mapping[str, object]) -> Request:
    return msgspec.convert(
        {
            "request_id": f"{run}-{kind}",
            "kind": kind,
            "model": place.resource.id,
            "time": to_ms(place.clock.now()),
            "by": f"run {run}",
            "arguments": arguments,
        },
        Request,
    )
