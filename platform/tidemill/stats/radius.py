"""How far the mean of bounded values may be from what was observed of it, for a number of values fixed beforehand.

Two bounds, each missed with probability `risk`:

* of a whole distribution function, at all points at once: sqrt(ln(2/risk) / (2 n)) (Massart 1990, "The tight constant
  in the Dvoretzky-Kiefer-Wolfowitz inequality", Annals of Probability 18);
* of one mean of values in [0, 1]: the means m with n kl(observed, m) <= ln(2/risk), kl being the relative entropy of
  two coins (Hoeffding 1963, "Probability inequalities for sums of bounded random variables", JASA 58, theorem 1 in
  its form with the relative entropy). Near 0 and 1 it is far narrower: of 450 values that are all 0 the mean is
  below 0.02, where the other bound says 0.09.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["distribution_radius", "mean_radius", "values_needed"]

Floats = npt.NDArray[np.float64]

_HALVINGS = 50


def distribution_radius(values: float, risk: float) -> float:
    """The largest distance of an observed distribution function from the true one."""
    return float(np.sqrt(np.log(2 / risk) / (2 * values)))


def mean_radius(observed: Floats, values: float, risk: float) -> Floats:
    """The distance of each observed mean from the farther end of its interval, of the same shape."""
    bound = np.log(2 / risk) / values
    farthest = np.zeros_like(observed)
    for room, side in ((1 - observed, 1.0), (observed, -1.0)):
        low, high = np.zeros_like(observed), room.copy()
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            inside = _relative_entropy(observed, observed + side * middle) <= bound
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        farthest = np.maximum(farthest, high)
    return farthest


def values_needed(observed: Floats, within: float, risk: float) -> float:
    """How many values it takes until every one of these means is known to `within` (in (0, 0.5))."""
    least = np.inf
    for moved in (observed + within, observed - within):
        inside = (moved > 0) & (moved < 1)
        least = min(least, _relative_entropy(observed[inside], moved[inside]).min(initial=np.inf))
    return float(np.log(2 / risk) / least)


def _relative_entropy(observed: Floats, mean: Floats) -> Floats:
    """kl(observed, mean) of two coins; inf where the mean excludes what was observed."""
    with np.errstate(divide="ignore", invalid="ignore"):
        heads = np.where(observed > 0, observed * np.log(observed / mean), 0.0)
        tails = np.where(observed < 1, (1 - observed) * np.log((1 - observed) / (1 - mean)), 0.0)
    return heads + tails
