"""The same account by privacy loss random variables, which Opacus (extra `dp`) computes: tighter than Rényi bounds.

`site/guard/privacy_account.py` asks here where an experiment has `accountant: prv`. What is returned is Opacus' upper
bound: its discretisation is in it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec

from v6_algorithm.errors import SiteError
from v6_algorithm.learning.privacy import accountant
from v6_algorithm.learning.privacy.accountant import Steps

# What discretisation may add to epsilon, as a share of the Rényi bound and at least.
_SHARE, _LEAST = 0.005, 1e-3
# Above this Opacus' mesh grows to minutes and overflows; the Rényi bound, as sound, is returned, and means as little.
_LARGEST = 50.0


def check_available() -> None:
    """Raise SiteError where Opacus is not installed."""
    if find_spec("opacus") is None:
        raise SiteError(
            "privacy.differential_privacy.accountant: prv needs Opacus, which is not installed here "
            "(pip install 'v6-algorithm[dp]'); allowed without: rdp",
            "request",
        )


def epsilon(steps: Iterable[Steps], delta: float) -> float:
    """Return the epsilon that all the steps together cost at a delta: Opacus' upper bound, or the Rényi one if less.

    References
    ----------
    Gopi, Lee and Wutschitz, Numerical Composition of Differential Privacy, NeurIPS 2021.
    """
    taken: dict[tuple[float, float], int] = {}
    for item in steps:
        if item.count and item.rate:
            kind = (item.rate, item.noise_multiplier)
            taken[kind] = taken.get(kind, 0) + item.count
    return _epsilon(tuple(sorted((rate, noise, count) for (rate, noise), count in taken.items())), delta)


def noise_for(plan: Sequence[Steps], target: float, delta: float, *, tolerance: float = 2e-3) -> float:
    """Return a noise multiplier, the least to a relative tolerance, with which a plan costs at most `target`.

    Raises
    ------
    ValueError
        As `accountant.noise_for`, whose noise, which is enough, is where the search begins.
    """

    def cost(noise: float) -> float:
        return epsilon([replace(item, noise_multiplier=noise) for item in plan], delta)

    high = accountant.noise_for(plan, target, delta)
    low = high * 0.7
    while high - low > tolerance * low:
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) <= target else (middle, high)
    return high


@lru_cache(maxsize=4_096)
def _epsilon(taken: tuple[tuple[float, float, int], ...], delta: float) -> float:
    bound = accountant.epsilon([Steps(*item) for item in taken], delta)
    if not 0 < bound < float("inf"):
        return bound
    if bound > _LARGEST:
        return bound
    check_available()
    import numpy as np
    from opacus.accountants import PRVAccountant

    counted = PRVAccountant()
    counted.history = [(noise, rate, count) for rate, noise, count in taken]
    # Of a step that takes all units there are logarithms of nought.
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cost = float(counted.get_epsilon(delta, eps_error=max(_LEAST, _SHARE * bound)))
    return min(bound, max(0.0, cost)) if math.isfinite(cost) else bound
