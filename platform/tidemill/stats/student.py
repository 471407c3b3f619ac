"""Student's t and the beta distribution, as far as tests and intervals need them.

Both are the regularised incomplete beta function I_x(a, b), computed by its continued fraction (DLMF 8.17.22) with
Lentz's method; where x is beyond the mean, by I_x(a, b) = 1 - I_{1-x}(b, a) (8.17.4), so that it converges quickly.
P(T > t) = I_{v/(v+t²)}(v/2, 1/2) / 2 for t >= 0 and v degrees of freedom. Quantiles are found by bisection.
"""

import math

__all__ = ["beta_cdf", "beta_quantile", "student_quantile", "student_tail"]

_TINY = 1e-300
_ENOUGH = 1e-14
_STEPS = 100_000
"""More than any a and b below 10⁹ need: about the root of the larger one."""
_HALVINGS = 60


def beta_cdf(x: float, a: float, b: float) -> float:
    """P(X <= x) of a beta distribution with parameters a, b > 0."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - beta_cdf(1.0 - x, b, a)
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(log_front) / (a * _fraction(x, a, b))


def beta_quantile(p: float, a: float, b: float) -> float:
    """The x with P(X <= x) = p, to 10⁻¹⁸."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_cdf(middle, a, b) < p else (low, middle)
    return (low + high) / 2


def student_tail(t: float, degrees: float) -> float:
    """P(T > t) of Student's t with so many degrees of freedom (> 0)."""
    share = t * t / (degrees + t * t)
    # Near 0 and near 1 of its own variable the function is exact: near t = 0 the complement is taken.
    near = share < 1e-3
    tail = (1 - beta_cdf(share, 0.5, degrees / 2)) / 2 if near else beta_cdf(1 - share, degrees / 2, 0.5) / 2
    return tail if t >= 0 else 1.0 - tail


def student_quantile(tail: float, degrees: float) -> float:
    """The t with P(T > t) = tail, for a tail in (0, 0.5)."""
    high = 1.0
    while student_tail(high, degrees) > tail:
        high *= 2
    low = 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if student_tail(middle, degrees) > tail else (low, middle)
    return (low + high) / 2


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction 1 + d1/(1 + d2/(1 + …)) of DLMF 8.17.22, whose reciprocal I_x has as a factor."""
    value, numerator, denominator = 1.0, 1.0, 0.0
    for step in range(1, _STEPS):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1.0 / _apart(1.0 + term * denominator)
        numerator = _apart(1.0 + term / numerator)
        change = numerator * denominator
        value *= change
        if abs(change - 1.0) < _ENOUGH:
            break
    return value


def _apart(value: float) -> float:
    """Not 0, by which would be divided."""
    return value if abs(value) > _TINY else _TINY
