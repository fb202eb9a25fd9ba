"""Vectors of whole numbers modulo a power of two, and the masks that hide them; for `protocol` and `fixed_point`.

A number is one row of little-endian 32-bit words: one or two of them for an update, six for an exact sum. Additions
wrap, so that a mask that is added at one site and subtracted at another is gone from the sum, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pybase64
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire

SUM_WORDS = 6
Words = np.ndarray


@dataclass(frozen=True)
class Shape:
    """How many numbers a masked vector has.

    Attributes
    ----------
    updates
        Numbers of the weighted updates.
    words
        32-bit words of each of them: 1 or 2.
    sums
        Exact sums, of `SUM_WORDS` words each.
    """

    updates: int
    words: int
    sums: int

    @property
    def bytes(self) -> int:
        """Bytes of such a vector, and of its mask."""
        return 4 * (self.updates * self.words + self.sums * SUM_WORDS)


@dataclass
class Vector:
    """One vector: `updates` is (n, words) and `sums` (m, 6) uint32."""

    updates: Words
    sums: Words

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return Shape(len(self.updates), self.updates.shape[1], len(self.sums))

    @classmethod
    def zeros(cls, shape: Shape) -> Vector:
        """Return a vector of zeros."""
        return cls.from_bytes(bytes(shape.bytes), shape)

    @classmethod
    def from_bytes(cls, content: bytes | bytearray, shape: Shape) -> Vector:
        """Read a vector; the bytes must be as many as the shape has."""
        words = np.frombuffer(content, dtype="<u4")
        cut = shape.updates * shape.words
        return cls(words[:cut].reshape(-1, shape.words).copy(), words[cut:].reshape(-1, SUM_WORDS).copy())

    def add(self, other: Vector) -> None:
        """Add another vector in place."""
        _add(self.updates, other.updates)
        _add(self.sums, other.sums)

    def subtract(self, other: Vector) -> None:
        """Subtract another vector in place."""
        _subtract(self.updates, other.updates)
        _subtract(self.sums, other.sums)

    def to_text(self) -> wire.Packed:
        """Return base64 of its bytes."""
        return wire.Packed(pybase64.b64encode_as_string(self.updates.tobytes() + self.sums.tobytes()))

    @classmethod
    def from_text(cls, text: Any, shape: Shape) -> Vector:
        """Read what `to_text` wrote; raises WireError unless it has this shape."""
        try:
            content = pybase64.b64decode(text, validate=True)
        except (ValueError, TypeError):
            raise WireError("its masked numbers are not base64 text") from None
        if len(content) != shape.bytes:
            raise WireError(f"its masked numbers are {len(content)} bytes, expected {shape.bytes}")
        return cls.from_bytes(content, shape)


def mask(seed: bytes, shape: Shape) -> Vector:
    """Return pseudo-random numbers: the AES-256-CTR keystream of a 32-byte seed, which must serve once."""
    encryptor = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    return Vector.from_bytes(encryptor.update(bytes(shape.bytes)), shape)


def _add(total: Words, other: Words) -> None:
    width = total.shape[1]
    if width <= 2:
        native = "<u4" if width == 1 else "<u8"
        total.view(native)[...] += other.view(native)
        return
    carry = np.zeros(len(total), dtype=np.uint64)
    for place in range(width):
        carry += total[:, place].astype(np.uint64) + other[:, place]
        total[:, place] = carry & np.uint64(0xFFFFFFFF)
        carry >>= np.uint64(32)


def _subtract(total: Words, other: Words) -> None:
    width = total.shape[1]
    if width <= 2:
        native = "<u4" if width == 1 else "<u8"
        total.view(native)[...] -= other.view(native)
        return
    borrow = np.zeros(len(total), dtype=np.int64)
    for place in range(width):
        borrow += total[:, place].astype(np.int64) - other[:, place].astype(np.int64)
        total[:, place] = (borrow & 0xFFFFFFFF).astype(np.uint32)
        borrow >>= 32
