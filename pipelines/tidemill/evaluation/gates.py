"""Gates: what a candidate must pass before any traffic, each verdict with its reason and figures.

Gates that a person chose to skip are judged and shown all the same, and only not enforced; that a candidate answers at
all is no choice.
"""

from collections.abc import Iterator

from tidemill.evaluation import comparisons
from tidemill.evaluation.calibration import calibration
from tidemill.evaluation.latency import latency
from tidemill.evaluation.robustness import robustness
from tidemill.evaluation.scoring import Evaluation
from tidemill.evaluation.slices import slices
from tidemill.spec.gates import Gates, SizeGate
from tidemill.training.verdict import GateVerdict, Value, decode_verdicts, encode_verdicts, may_pass, skipped

__all__ = ["GateVerdict", "decode_verdicts", "encode_verdicts", "judge", "may_pass"]

_MIB = 1 << 20


def judge(gates: Gates, evaluation: Evaluation, *, skip: bool = False) -> tuple[GateVerdict, ...]:
    """The verdict of each gate that the spec declares, in a fixed order.

    Args:
        gates: `spec.gates`.
        evaluation: what candidate and champion made of the same rows.
        skip: all gates but `answers` are not enforced.
    """
    first, *others = _verdicts(gates, evaluation)
    return (first, *(skipped(verdict) if skip else verdict for verdict in others))


def _verdicts(gates: Gates, evaluation: Evaluation) -> Iterator[GateVerdict]:
    yield comparisons.answers(evaluation)
    yield from comparisons.fresh(gates.fresh, evaluation)
    if gates.frozen is not None:
        yield from comparisons.frozen(gates.frozen, evaluation)
    for gate in gates.slices:
        yield slices(gate, evaluation)
    if gates.calibration is not None:
        yield calibration(gates.calibration, evaluation)
    if gates.latency is not None:
        timing = evaluation.timing
        yield _not_measured("latency") if timing is None else latency(gates.latency, timing, evaluation.champion_timing)
    if gates.size is not None:
        yield _size(gates.size, evaluation)
    if gates.robustness is not None:
        stresses = evaluation.stresses
        yield (_not_measured("robustness") if stresses is None else robustness(gates.robustness, evaluation, stresses))
        yield from comparisons.drifts(gates.robustness, evaluation)


def _size(gate: SizeGate, evaluation: Evaluation) -> GateVerdict:
    """Passed when the candidate's ONNX model is at most as large as the limit."""
    if evaluation.size is None:
        return _not_measured("size")
    mib = evaluation.size / _MIB
    passed = mib <= gate.at_most_mib
    reason = f"the model has {mib:.2f} MiB: {'within' if passed else 'above'} the limit of {gate.at_most_mib:g} MiB"
    figures: dict[str, Value] = {"mib": mib, "at_most_mib": gate.at_most_mib}
    if evaluation.champion_size is not None:
        figures["champion_mib"] = evaluation.champion_size / _MIB
    return GateVerdict(gate="size", passed=passed, reason=reason, figures=figures)


def _not_measured(gate: str) -> GateVerdict:
    """A gate that is declared and was not measured refuses: what nobody looked at has not passed."""
    reason = f"gates.{gate} is declared, and nothing was measured for it: remove it, or skip the gates"
    return GateVerdict(gate=gate, passed=False, reason=reason)
