"""What can be done with the states of `GenerationMetrics`: check one, add several up, compute and explain FID and KID.
Called by `states`, which picks the module by the state's kind.

The Fréchet distance of the normal distributions with the features' means m and covariances C of real (r) and made (g)
rows is [1]_

    FID = |m_r - m_g|^2 + tr C_r + tr C_g - 2 tr (C_r C_g)^(1/2).

The trace of the root is the sum of the roots of the eigenvalues of C_r^(1/2) C_g C_r^(1/2), which is symmetric, so that
they are real and found stably. KID is the unbiased estimate of the squared maximum mean discrepancy [2]_ with kernel

    k(x, y) = (x.y / d + 1)^2,

d the features' number. The paper takes the third power, which would need sums of all products of three features, and
those of few rows nearly describe them. With the second power the sums over all pairs of rows follow exactly from first
and second moments, for the sum of (x.y)^2 over all pairs of two sets is the scalar product of their sums of x x^T; the
pairs of a row with itself, which an unbiased estimate leaves out, need the sum of |x|^4 beside.

References
----------
.. [1] Heusel et al. (2017), GANs trained by a two time-scale update rule converge to a local Nash equilibrium.
.. [2] Bińkowski et al. (2018), Demystifying MMD GANs.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from functools import cached_property
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v6_algorithm.learning.metrics.checks import LARGEST_SUM, require_count, require_keys

SHAPE: tuple[str, ...] = ("dimensions",)
_COUNTS = ("n", "withheld", "non_finite")
_KINDS = ("real", "made")
_KEYS = frozenset(("kind", *SHAPE, *_COUNTS, *_KINDS))
# A state from elsewhere must not make this machine allocate whatever it says.
_MOST_DIMENSIONS = 4096
# By how much, of the largest, an eigenvalue may be below 0 by rounding: sums over rows of one value lose digits.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class _Moments:
    """Sums over n rows: of the features, (d,), of their products, (d, d), and of the fourth power of their norm."""

    n: int
    total: NDArray[np.float64]
    products: NDArray[np.float64]
    quartic: float

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        return self.total / self.n

    @cached_property
    def covariance(self) -> NDArray[np.float64]:
        return (self.products - np.outer(self.mean, self.total)) / max(self.n - 1, 1)


def pack(total: NDArray[np.float64], products: NDArray[np.float64], quartic: float) -> str:
    """Write sums as base64 of little-endian float64: d features, the d (d + 1) / 2 products above the diagonal, 1."""
    upper = products[np.triu_indices(len(total))]
    return pack_numbers(np.concatenate([total, upper, [quartic]]))


def pack_numbers(numbers: NDArray[np.float64]) -> str:
    """Write the numbers of `pack` in their order."""
    return base64.b64encode(numbers.astype("<f8").tobytes()).decode()


def check(state: dict[str, Any]) -> None:
    """Refuse a state no `GenerationMetrics` can have produced."""
    require_keys(state, _KEYS)
    require_count(state["dimensions"], "dimensions", least=1)
    if state["dimensions"] > _MOST_DIMENSIONS:
        raise ValueError(f"dimensions of the metric state must be at most {_MOST_DIMENSIONS}")
    for name in _COUNTS:
        require_count(state[name], name)
    if 0 < state["n"] < state["dimensions"]:
        raise ValueError("n of the metric state must be 0, or dimensions or more: sums over fewer rows are withheld")
    for name in _KINDS:
        _check_sums(unpack_numbers(state, name), state["n"], name)


def unpack_numbers(state: dict[str, Any], name: str) -> NDArray[np.float64]:
    """Read packed sums of a state whose dimensions are checked."""
    wanted = _length(state["dimensions"])
    text = state[name]
    # Base64 makes 4 letters of 3 bytes.
    if not isinstance(text, str) or len(text) != (8 * wanted + 2) // 3 * 4:
        raise ValueError(f"{name} of the metric state must be base64 of {wanted} float64 numbers")
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError(f"{name} of the metric state must be base64 of {wanted} float64 numbers") from None
    if len(content) != 8 * wanted:
        raise ValueError(f"{name} of the metric state must be base64 of {wanted} float64 numbers")
    return np.frombuffer(content, dtype="<f8").astype(np.float64)


def _length(dimensions: int) -> int:
    return dimensions + dimensions * (dimensions + 1) // 2 + 1


def _check_sums(numbers: NDArray[np.float64], n: int, name: str) -> None:
    if not (np.abs(numbers) <= LARGEST_SUM).all():
        raise ValueError(f"{name} of the metric state must hold finite numbers")
    if n == 0:
        if numbers.any():
            raise ValueError(f"{name} of the metric state must be 0, since n is 0")
        return
    moments = _moments(numbers, n)
    largest = float(np.trace(moments.products)) / n
    # Squares are not negative, their mean is not below the square of the mean, and so in every direction.
    spread = np.linalg.eigvalsh(moments.products / n - np.outer(moments.mean, moments.mean))
    if largest < 0 or spread[0] < -_ROUNDING * largest:
        raise ValueError(f"{name} of the metric state must be sums of squares: no spread can be negative")
    if moments.quartic / n < largest**2 * (1 - _ROUNDING):
        raise ValueError(f"{name} of the metric state contradicts itself: its last sum is below what the others imply")


def _moments(numbers: NDArray[np.float64], n: int) -> _Moments:
    """Take packed numbers apart."""
    dimensions = int((np.sqrt(8 * len(numbers) + 1) - 3) / 2)
    products = np.zeros((dimensions, dimensions))
    products[np.triu_indices(dimensions)] = numbers[dimensions:-1]
    products += np.triu(products, 1).T
    return _Moments(n, numbers[:dimensions], products, float(numbers[-1]))


def merge(states: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up checked states of one shape; integers exactly, floats rounded once."""
    merged: dict[str, Any] = {"kind": "generation", "dimensions": states[0]["dimensions"]}
    merged |= {name: sum(state[name] for state in states) for name in _COUNTS}
    for name in _KINDS:
        columns = np.stack([unpack_numbers(state, name) for state in states])
        total = columns[0] if len(states) == 1 else np.array([fsum(column) for column in columns.T.tolist()])
        merged[name] = base64.b64encode(total.astype("<f8").tobytes()).decode()
    return merged


def compute(state: dict[str, Any]) -> dict[str, float | int | None]:
    """FID and KID of a checked state; see `states.compute`."""
    n = state["n"]
    if n < 2:
        return {"n": n, "fid": None, "kid": None}
    real, made = (_moments(unpack_numbers(state, name), n) for name in _KINDS)
    return {"n": n, "fid": frechet_distance(real, made), "kid": kernel_distance(real, made)}


def explain(state: dict[str, Any]) -> list[str]:
    """Sentences about what a checked state could not give; see `states.explain`."""
    n, dimensions, notes = state["n"], state["dimensions"], []
    if state["non_finite"]:
        notes.append(f"{state['non_finite']} rows were compared with an image that is not finite and are left out")
    if state["withheld"]:
        notes.append(
            f"fid and kid: {state['withheld']} rows are withheld; sums over fewer than {dimensions} rows of a "
            "hospital, or than its node asks for, are not told"
        )
    return notes if n or state["withheld"] else [*notes, "no rows"]


def frechet_distance(real: _Moments, made: _Moments) -> float:
    """Return the squared Fréchet distance of two normal distributions, 0 or more."""
    values, vectors = np.linalg.eigh(real.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    product = root @ made.covariance @ root
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0.0)).sum()
    distance = float(((real.mean - made.mean) ** 2).sum())
    spread = float(np.trace(real.covariance) + np.trace(made.covariance) - 2 * shared)
    return distance + max(spread, 0.0)


def kernel_distance(real: _Moments, made: _Moments) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy, which may be below 0."""
    dimensions = len(real.total)

    def over_pairs(first: _Moments, other: _Moments) -> float:
        """Sum the kernel over all pairs of a row of one and a row of the other."""
        square, linear = (first.products * other.products).sum(), first.total @ other.total
        return float(square / dimensions**2 + 2 * linear / dimensions + first.n * other.n)

    def within(moments: _Moments) -> float:
        """Average the kernel over all pairs of two rows."""
        themselves = moments.quartic / dimensions**2 + 2 * float(np.trace(moments.products)) / dimensions + moments.n
        return (over_pairs(moments, moments) - themselves) / (moments.n * (moments.n - 1))

    return within(real) + within(made) - 2 * over_pairs(real, made) / (real.n * made.n)
