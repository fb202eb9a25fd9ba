"""Numbers as integers that add up: weighted updates with a clip and a step, everything else exactly.

An update is rounded to the nearest multiple of `clip / (2^(bits - 1) - 1)`; not by chance, so that the same run gives
the same sums, bit for bit. Counts, losses and sums travel with 96 binary places and 95 before the point: doubles of
usual size are exact in it, and so are their sums, whatever the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from v6_algorithm.errors import ExperimentError, SiteError
from v6_algorithm.exchange.secure_aggregation.ring import SUM_WORDS, Words

# Binary places of an exact sum.
PLACES = 96
# A double holds whole numbers up to 2^53.
MOST_BITS = 52
Number = int | float | Fraction


def words_for(bits: int | None, sites: int) -> tuple[int, int]:
    """Return the bits of one site's number, and the 32-bit words in which the sum of all sites' has room.

    Parameters
    ----------
    bits
        As asked for; None: as many as one word has room for.
    sites
        How many numbers are added up.

    Raises
    ------
    ExperimentError
        When the sum would overflow two words.
    """
    room = (sites - 1).bit_length()
    if bits is None:
        return 32 - room, 1
    if bits + room <= 32:
        return bits, 1
    if bits <= MOST_BITS and bits + room <= 64:
        return bits, 2
    raise ExperimentError(
        f"privacy.secure_aggregation.bits: {bits} bits of {sites} sites overflow; allowed: up to "
        f"{min(MOST_BITS, 64 - room)}"
    )


def encode_updates(values: np.ndarray, clip: float, bits: int, words: int) -> tuple[Words, int]:
    """Write (n,) float64 as (n, words) uint32, in two's complement; return them and how many were clipped."""
    limit = 2 ** (bits - 1) - 1
    clipped = int(np.count_nonzero(np.abs(values) > clip))
    whole = np.rint(np.clip(values, -clip, clip) * (limit / clip))
    numbers = np.clip(whole, -limit, limit).astype("<i8")
    if words == 1:
        numbers = numbers.astype("<i4")
    return numbers.view("<u4").reshape(-1, words).copy(), clipped


def decode_updates(total: Words, clip: float, bits: int) -> np.ndarray:
    """Return (n,) float64 from a sum of numbers that `encode_updates` wrote."""
    signed = np.ascontiguousarray(total).view("<i4" if total.shape[1] == 1 else "<i8")[:, 0]
    return signed.astype(np.float64) * (clip / (2 ** (bits - 1) - 1))


def encode_sums(numbers: Sequence[Number], sites: int) -> Words:
    """Write numbers as (n, 6) uint32, in two's complement.

    Raises
    ------
    SiteError
        When one is not finite, or so large that the sum over `sites` might overflow.
    """
    most = (1 << (32 * SUM_WORDS - 1)) // max(sites, 1)
    written = []
    for number in numbers:
        try:
            whole = _scaled(number)
        except (OverflowError, ValueError):
            raise SiteError("a number to be added up is not finite", "diverged") from None
        if not -most < whole < most:
            raise SiteError("a number to be added up is beyond 10^28, and its sum would overflow", "diverged")
        written.append(whole.to_bytes(4 * SUM_WORDS, "little", signed=True))
    return np.frombuffer(b"".join(written), dtype="<u4").reshape(-1, SUM_WORDS).copy()


def decode_sums(total: Words) -> list[Fraction]:
    """Return the numbers that `encode_sums` wrote, or their sums, exactly."""
    content, width = total.tobytes(), 4 * SUM_WORDS
    return [
        Fraction(int.from_bytes(content[start : start + width], "little", signed=True), 1 << PLACES)
        for start in range(0, len(content), width)
    ]


def _scaled(number: Number) -> int:
    if isinstance(number, int):
        return number << PLACES
    top, bottom = number.as_integer_ratio()
    return (top << PLACES) // bottom
