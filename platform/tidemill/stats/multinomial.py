"""Counts against fixed probabilities, watched continuously: the sample ratio of a rollout.

Lindon & Malek 2022, "Anytime-valid inference for multinomial count data" (their eq. 5): with counts n and the
probabilities θ0 that the assignment was to have, the Bayes factor of a Dirichlet(α) alternative,

    B(n) = Γ(Σα) / Γ(Σα + Σn) · Π Γ(α_i + n_i) / Γ(α_i) · Π θ0_i^(−n_i),

is a test martingale while the assignment keeps θ0, so that P(B ever >= 1/α) <= α. The factors of steps with
different θ0 multiply, because each is a martingale from where the one before it stopped.
"""

import math
from collections.abc import Sequence

__all__ = ["log_ratio_evidence"]

CONCENTRATION = 100.0
"""Sum of the Dirichlet's parameters: how near to θ0 the alternative is looked for. 100 finds 6 % in place of 5 %
within some 10,000 units, and is not slow on gross faults: 60 units without one where half were due."""


def log_ratio_evidence(counts: Sequence[int], probabilities: Sequence[float]) -> float:
    """Log of the e-value against "each unit was assigned with these probabilities".

    Args:
        counts: units seen per arm.
        probabilities: what each arm was to get; positive, adding up to 1.
    """
    alphas = [CONCENTRATION * probability for probability in probabilities]
    total, prior = sum(counts), sum(alphas)
    evidence = math.lgamma(prior) - math.lgamma(prior + total)
    for count, alpha, probability in zip(counts, alphas, probabilities, strict=True):
        evidence += math.lgamma(alpha + count) - math.lgamma(alpha) - count * math.log(probability)
    return evidence
