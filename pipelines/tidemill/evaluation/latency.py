"""The gate `latency`: the 99th percentile of a request in the real server, bounded without a word on its distribution.

Of n requests the k-th fastest is at least as slow as the p-quantile with probability P(Bin(n, p) < k) (David &
Nagaraja, Order Statistics, 2003, section 7.1): the least k for which that is 95 % bounds it. Of fewer than 299 requests
no p99 is bounded. Requests are taken to be independent: a pause of the machine that slows several in a row counts as
many times.
"""

from collections.abc import Sequence

from tidemill.evaluation.bootstrap import CONFIDENCE
from tidemill.evaluation.scoring import Timing
from tidemill.spec.gates import LatencyGate
from tidemill.stats.student import beta_cdf
from tidemill.training.verdict import GateVerdict, Value

__all__ = ["latency", "quantile_upper"]

_P = 0.99
_MS = 1000


def quantile_upper(values: Sequence[float], share: float, confidence: float = CONFIDENCE) -> float | None:
    """Upper bound of the `share`-quantile of what the values are drawn from; None where they are too few for one."""
    ordered, count = sorted(values), len(values)
    for rank in range(int(count * share), count + 1):
        # P(Bin(n, p) < k), by its identity with a beta distribution.
        if rank and beta_cdf(1 - share, count - rank + 1, rank) >= confidence:
            return ordered[rank - 1]
    return None


def latency(gate: LatencyGate, timing: Timing, champion: Timing | None = None) -> GateVerdict:
    """Passed when the upper bound of the candidate's 99th percentile is at most the limit.

    A server that did not become ready, died, hung or answered with an error is refused, with what it said.
    """
    limit = gate.p99.total_seconds()
    figures: dict[str, Value] = {"limit_ms": limit * _MS, "requests": len(timing.seconds)}
    if timing.ready_after_s is not None:
        figures["ready_after_s"] = timing.ready_after_s
    against = ""
    if champion is not None and champion.seconds:
        figures["champion_p99_ms"] = _p99(champion) * _MS
        against = f" (the champion's {_p99(champion) * _MS:.1f} ms)"
    if timing.problem:
        return _refused(f"version {timing.version} could not be timed in its server: {timing.problem}", figures)
    upper = quantile_upper(timing.seconds, _P)
    if upper is None:
        return _refused(f"{len(timing.seconds)} requests are too few to bound a 99th percentile", figures)
    passed = upper <= limit
    figures |= {"p99_ms": _p99(timing) * _MS, "upper_95_ms": upper * _MS}
    reason = (
        f"99 % of {len(timing.seconds)} requests of one row were answered within {_p99(timing) * _MS:.1f} ms{against}, "
        f"at most {upper * _MS:.1f} ms with 95 % confidence: {'within' if passed else 'above'} the limit of "
        f"{limit * _MS:g} ms"
    )
    return GateVerdict(gate="latency", passed=passed, reason=reason, figures=figures)


def _p99(timing: Timing) -> float:
    return sorted(timing.seconds)[int(_P * (len(timing.seconds) - 1))]


def _refused(reason: str, figures: dict[str, Value]) -> GateVerdict:
    return GateVerdict(gate="latency", passed=False, reason=reason, figures=figures)
