"""Tails of the distributions that tests and intervals need: normal, chi-square, t and F, without scipy.

Press et al., Numerical Recipes, 3rd ed., 2007, section 6.4 (the incomplete beta function as a continued fraction).
"""

from __future__ import annotations

import math
from functools import lru_cache

_TINY = 1e-300
_STEPS = 500


def normal_p(z: float) -> float:
    """Return the chance of a standard normal number to be farther from 0."""
    return math.erfc(abs(z) / math.sqrt(2))


def chi_square_p(statistic: float, freedom: int) -> float:
    """Return the chance of a chi-square of so many degrees of freedom to be larger."""
    import torch

    half = torch.tensor([freedom / 2, max(statistic, 0.0) / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def t_p(statistic: float, freedom: float) -> float:
    """Return the two-sided p value of a t statistic."""
    return _beta(freedom / 2, 0.5, freedom / (freedom + statistic * statistic))


def f_p(statistic: float, above: float, below: float) -> float:
    """Return the chance of an F with these degrees of freedom to be larger."""
    return _beta(below / 2, above / 2, below / (below + above * max(statistic, 0.0)))


# A report asks for the same few, once for each of its intervals.
@lru_cache(maxsize=1024)
def t_quantile(p: float, freedom: float) -> float:
    """Return the value above 0 that a t stays below with chance `p`, from 0.5 on."""
    low, high = 0.0, 1.0
    while 1 - t_p(high, freedom) / 2 < p:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - t_p(middle, freedom) / 2 < p else (low, middle)
    return (low + high) / 2


def _beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    value = d
    for step in range(1, _STEPS):
        even = step * (b - step) * x / ((a + 2 * step - 1) * (a + 2 * step))
        d, c = 1 / _away(1 + even * d), _away(1 + even / c)
        value *= d * c
        odd = -(a + step) * (a + b + step) * x / ((a + 2 * step) * (a + 2 * step + 1))
        d, c = 1 / _away(1 + odd * d), _away(1 + odd / c)
        value *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return value


def _away(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
