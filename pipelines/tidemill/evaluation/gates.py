"""Gates: what a candidate must pass before any traffic, each verdict with its reason and figures.

Gates that a person chose to skip are judged and shown all the same, and only not enforced; that a candidate answers at
all is no choice.
"""

from collections.abc import Iterator

import msgspec

from tidemill.evaluation import comparisons
from tidemill.evaluation.scoring import Evaluation
from tidemill.evaluation.verdict import GateVerdict, decode_verdicts, encode_verdicts, may_pass
from tidemill.spec.gates import Gates

__all__ = ["GateVerdict", "decode_verdicts", "encode_verdicts", "judge", "may_pass"]


def judge(gates: Gates, evaluation: Evaluation, *, skip: bool = False) -> tuple[GateVerdict, ...]:
    """The verdict of each gate that the spec declares, in a fixed order.

    Args:
        gates: `spec.gates`.
        evaluation: what candidate and champion made of the same rows.
        skip: all gates but `answers` are not enforced.
    """
    first, *others = _verdicts(gates, evaluation)
    return (first, *(_skipped(verdict) if skip else verdict for verdict in others))


def _verdicts(gates: Gates, evaluation: Evaluation) -> Iterator[GateVerdict]:
    yield comparisons.answers(evaluation)
    yield from comparisons.fresh(gates.fresh, evaluation)
    if gates.frozen is not None:
        yield from comparisons.frozen(gates.frozen, evaluation)


def _skipped(verdict: GateVerdict) -> GateVerdict:
    return msgspec.structs.replace(verdict, enforced=False, reason=f"{verdict.reason} (skipped by force)")
