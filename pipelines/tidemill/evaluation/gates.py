"""Gates: what a candidate must pass before any traffic, each verdict with its reason and figures.

A verdict is passed, refused or not applicable; never a bare bool. Gates that a person chose to skip are judged and
shown all the same, and only not enforced.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from tidemill.core.errors import Corrupt
from tidemill.evaluation.bootstrap import mean_bounds, paired_difference
from tidemill.evaluation.scoring import Evaluation, Scores
from tidemill.spec.model import FreshGate, Gates

__all__ = ["GateVerdict", "decode_verdicts", "encode_verdicts", "judge", "may_pass"]


class GateVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one gate says of one candidate."""

    gate: str
    passed: bool | None
    """None: not applicable."""
    enforced: bool = True
    """False: shown only, because the gates were skipped by force."""
    reason: str
    figures: dict[str, float | int | str | None] = {}


def judge(gates: Gates, evaluation: Evaluation, *, skip: bool = False) -> tuple[GateVerdict, ...]:
    """The verdict of each gate that the spec declares, in a fixed order.

    Args:
        gates: `spec.gates`.
        evaluation: candidate and champion on the same fresh rows.
        skip: the gates are not enforced.
    """
    verdicts = [_fresh(gates.fresh, evaluation)]
    if gates.fresh.at_most is not None:
        verdicts.append(_at_most(gates.fresh.at_most, evaluation.candidate))
    return tuple(_skipped(verdict) if skip else verdict for verdict in verdicts)


def may_pass(verdicts: Sequence[GateVerdict]) -> bool:
    """Whether no enforced gate refuses."""
    return not any(verdict.enforced and verdict.passed is False for verdict in verdicts)


def encode_verdicts(verdicts: Sequence[GateVerdict]) -> str:
    """The verdicts as one line of JSON, as requests and the registry carry them."""
    return msgspec.json.encode(list(verdicts)).decode()


def decode_verdicts(text: str) -> tuple[GateVerdict, ...]:
    """The verdicts that `encode_verdicts` wrote; raises `Corrupt` on anything else."""
    try:
        return msgspec.json.decode(text, type=tuple[GateVerdict, ...])
    except msgspec.DecodeError as error:
        raise Corrupt(f"these are no gate verdicts: {error}") from error


def _fresh(gate: FreshGate, evaluation: Evaluation) -> GateVerdict:
    """Passed when the lower 95 % bound of (champion's error - candidate's error) is at least -margin."""
    candidate, champion = evaluation.candidate, evaluation.champion
    if champion is None:
        figures: dict[str, Any] = {"candidate_error": candidate.mean, "rows": len(candidate.losses)}
        return GateVerdict(gate="fresh", passed=None, reason="no champion: not applicable", figures=figures)
    bounds = paired_difference(champion.losses, candidate.losses)
    passed = bounds.lower >= -gate.margin
    figures = {
        "candidate_error": candidate.mean,
        "champion_error": champion.mean,
        "difference": bounds.mean,
        "lower_95": bounds.lower,
        "margin": gate.margin,
        "rows": bounds.rows,
        "champion": champion.version,
    }
    reason = (
        f"error {candidate.mean:.3f} against the champion's {champion.mean:.3f} on the {bounds.rows} newest rows: "
        f"better by {bounds.mean:+.3f}, at least {bounds.lower:+.3f} with 95 % confidence; "
        f"{'not' if passed else 'that may be'} worse by more than the margin of {gate.margin:g}"
    )
    return GateVerdict(gate="fresh", passed=passed, reason=reason, figures=figures)


def _at_most(limit: float, candidate: Scores) -> GateVerdict:
    """Passed when the upper 95 % bound of the candidate's error is at most the limit."""
    bounds = mean_bounds(candidate.losses)
    passed = bounds.upper <= limit
    figures: dict[str, Any] = {
        "candidate_error": bounds.mean,
        "upper_95": bounds.upper,
        "at_most": limit,
        "rows": bounds.rows,
    }
    reason = (
        f"error {bounds.mean:.3f} on the {bounds.rows} newest rows, at most {bounds.upper:.3f} with 95 % confidence: "
        f"{'within' if passed else 'above'} the limit of {limit:g}"
    )
    return GateVerdict(gate="fresh.atMost", passed=passed, reason=reason, figures=figures)


def _skipped(verdict: GateVerdict) -> GateVerdict:
    return msgspec.structs.replace(verdict, enforced=False, reason=f"{verdict.reason} (skipped by force)")
