"""What noised steps cost in privacy, by Rényi differential privacy; and the noise that a wanted cost needs.

A site's ledger keeps `Steps` and asks `epsilon` what they come to. Neighbours differ by one unit (row, patient or site)
more or less, and each step draws each unit by itself with probability `rate` (Poisson): other batches have no such
bound. `prv` counts the same steps with Opacus.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

# Orders at which the divergence is bounded; any choice is sound, a finer one is tighter. None is below 2: the series
# of such an order falls like k^-(order + 2), hundreds of thousands of terms, and they matter for a large epsilon only.
ORDERS = (*(2 + tenth / 10 for tenth in range(90)), *map(float, range(12, 64)), 80.0, 128.0, 256.0, 512.0)
# The series ends where its terms (as logarithms) are below this; their sum is at least 1.
_SMALLEST = -30.0
# Beyond this, math.erfc underflows and its asymptotic series is exact to double precision.
_FAR = 25.0
_LEAST_NOISE, _LARGEST_NOISE = 1e-2, 1e6
_FEW = 6


@dataclass(frozen=True)
class Steps:
    """Optimiser steps of one kind.

    Attributes
    ----------
    rate
        Probability with which a unit is in a step's batch, 0 to 1.
    noise_multiplier
        Standard deviation of the noise on the summed gradients, as a multiple of the clipping norm.
    count
        Number of steps.
    """

    rate: float
    noise_multiplier: float
    count: int


def epsilon(steps: Iterable[Steps], delta: float, orders: Sequence[float] = ORDERS) -> float:
    """Return the epsilon that all the steps together cost at a delta.

    References
    ----------
    Mironov, Rényi Differential Privacy, CSF 2017 (costs add up at each order); from an order a to (epsilon, delta):
    epsilon = rdp + log((a - 1) / a) - (log delta + log a) / (a - 1), Balle et al., AISTATS 2020, theorem 21.
    """
    total = [0.0] * len(orders)
    for item in steps:
        if item.count:
            for place, order in enumerate(orders):
                total[place] += item.count * step_cost(item.rate, item.noise_multiplier, order)
    if not any(total):
        return 0.0
    bounds = (
        cost + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
        for cost, order in zip(total, orders, strict=True)
    )
    return max(0.0, min(bounds))


def noise_for(plan: Sequence[Steps], target: float, delta: float, *, tolerance: float = 1e-4) -> float:
    """Return the least noise multiplier, to a relative tolerance and rounded up, with which a plan costs `target`.

    The plan's noise multipliers are not looked at: all of its steps get the same.

    Raises
    ------
    ValueError
        When no noise up to a million clipping norms is enough.
    """

    def cost(noise: float, orders: Sequence[float]) -> float:
        return epsilon([replace(item, noise_multiplier=noise) for item in plan], delta, orders)

    def least(low: float, high: float, orders: Sequence[float], tolerance: float) -> float:
        while high - low > tolerance * low:
            middle = (low + high) / 2
            low, high = (low, middle) if cost(middle, orders) <= target else (middle, high)
        return high

    # Few orders first, then those around the best of them: any choice is a bound, and all at once take seconds.
    low, high = _LEAST_NOISE, 1.0
    while cost(high, ORDERS[::_FEW]) > target:
        low, high = high, high * 2
        if high > _LARGEST_NOISE:
            raise ValueError(f"no noise keeps epsilon at {target:g} with delta {delta:g}")
    if cost(low, ORDERS[::_FEW]) <= target:
        return low
    high = least(low, high, ORDERS[::_FEW], 10 * tolerance)
    best = min(range(0, len(ORDERS), _FEW), key=lambda place: cost(high, ORDERS[place : place + 1]))
    near = ORDERS[max(0, best - _FEW) : best + _FEW + 1]
    low = high
    while low > _LEAST_NOISE and cost(low, near) <= target:
        low *= 0.99
    return least(low, high, near, tolerance)


@lru_cache(maxsize=50_000)
def step_cost(rate: float, noise_multiplier: float, order: float) -> float:
    """Return the Rényi divergence, at an order above 1, of one step of the subsampled Gaussian mechanism.

    References
    ----------
    Mironov, Talwar and Zhang, Rényi Differential Privacy of the Sampled Gaussian Mechanism, 2019: section 3.3, the
    finite sum for whole orders and the two series for others.
    """
    if rate == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    if rate == 1:
        return order / (2 * noise_multiplier**2)
    moment = _whole if float(order).is_integer() else _fractional
    return max(0.0, moment(rate, noise_multiplier, order) / (order - 1))


def _whole(rate: float, noise: float, order: float) -> float:
    """Return log sum over k of C(order, k) (1 - rate)^(order - k) rate^k exp((k^2 - k) / (2 noise^2))."""
    whole = int(order)
    terms = [
        math.lgamma(whole + 1) - math.lgamma(k + 1) - math.lgamma(whole - k + 1)
        + k * math.log(rate) + (whole - k) * math.log1p(-rate) + (k * k - k) / (2 * noise**2)
        for k in range(whole + 1)
    ]  # fmt: skip
    most = max(terms)
    return most + math.log(math.fsum(math.exp(term - most) for term in terms))


def _fractional(rate: float, noise: float, order: float) -> float:
    """Return the logarithm of the moment for an order that is not whole: both halves of the integral, cut at z."""
    z = noise**2 * math.log(1 / rate - 1) + 0.5
    positive, negative = -math.inf, -math.inf
    coefficient, sign, k = 0.0, 1, 0
    while True:
        rest = order - k
        lower = _log_half_erfc((k - z) / (math.sqrt(2) * noise))
        upper = _log_half_erfc((z - rest) / (math.sqrt(2) * noise))
        first = coefficient + k * math.log(rate) + rest * math.log1p(-rate) + (k * k - k) / (2 * noise**2) + lower
        second = (
            coefficient + rest * math.log(rate) + k * math.log1p(-rate) + (rest * rest - rest) / (2 * noise**2) + upper
        )
        if sign > 0:
            positive = _log_add(positive, _log_add(first, second))
        else:
            negative = _log_add(negative, _log_add(first, second))
        if k > order and max(first, second) < _SMALLEST:
            break
        # C(order, k + 1) = C(order, k) (order - k) / (k + 1), with its sign.
        factor = rest / (k + 1)
        coefficient, sign, k = coefficient + math.log(abs(factor)), sign if factor > 0 else -sign, k + 1
    return positive + math.log1p(-math.exp(negative - positive)) if negative > -math.inf else positive


def _log_half_erfc(x: float) -> float:
    """Return log(erfc(x) / 2)."""
    if x < _FAR:
        return math.log(math.erfc(x) / 2)
    inverse = 1 / (2 * x * x)
    series = math.log1p(-inverse + 3 * inverse**2 - 15 * inverse**3)
    return -x * x - math.log(x * math.sqrt(math.pi)) + series - math.log(2)


def _log_add(first: float, second: float) -> float:
    most, least = max(first, second), min(first, second)
    return most if least == -math.inf else most + math.log1p(math.exp(least - most))
