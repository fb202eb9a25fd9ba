"""Shamir's secret sharing: any `threshold` shares give a 32-byte secret back, fewer tell nothing of it.

Shamir, How to share a secret, Communications of the ACM 22(11), 1979. `protocol` shares the seeds of masks with it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

# A Mersenne prime, above every 32-byte number.
PRIME = 2**521 - 1
SHARE_BYTES = 66
SECRET_BYTES = 32


def split(secret: bytes, points: Iterable[int], threshold: int) -> dict[int, int]:
    """Return one share for each point, from 1: values of a random polynomial whose value at 0 is the secret."""
    polynomial = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    shares = {}
    for point in points:
        value = 0
        for coefficient in reversed(polynomial):
            value = (value * point + coefficient) % PRIME
        shares[point] = value
    return shares


def combine(shares: Mapping[int, int]) -> bytes:
    """Return the secret of as many shares as the threshold was: Lagrange's interpolation at 0.

    Raises
    ------
    ValueError
        When the shares cannot be of one 32-byte secret.
    """
    total = 0
    for point, value in shares.items():
        top = bottom = 1
        for other in shares:
            if other != point:
                top, bottom = top * other % PRIME, bottom * (other - point) % PRIME
        total += value * top * pow(bottom, -1, PRIME)
    try:
        return (total % PRIME).to_bytes(SECRET_BYTES, "big")
    except OverflowError:
        raise ValueError("the shares are not of one secret") from None
