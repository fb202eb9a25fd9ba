"""Matrices as products of two thin ones: PowerSGD and rankDAD.

A tensor of two or more dimensions is a matrix with its first dimension as rows, so a convolution is compressed like a
layer. Biases and other vectors are sent whole, and so are matrices for which two factors would be no smaller.

PowerSGD was made for a ring of workers, which can only add up: they agree on the left factors in one trip and on the
right ones in a second. Here `master` sees each site's reply, so each site sends both factors of its own update at
once. That is the same number of bytes and one call less a round, and the mean of the sites' products is of higher rank
than one common product. The price is that what is sent cannot be added up unread.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.compression.stage import Draw, State, take

_LEFT, _RIGHT = "left", "right"
# Columns that a power iteration has beyond those that are kept, without which the last ones are slow to come.
_SPARE = 4


class LowRank:
    """What both have in common: which tensors are factorised, and decoding."""

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def encode(self, tensors: Mapping[str, Tensor], memory: State, draw: Draw) -> State:
        """Factorise the matrices that become smaller by it."""
        payload: State = {}
        for name, tensor in tensors.items():
            if self._is_smaller(tuple(tensor.shape)):
                left, right = self.factors(name, tensor.reshape(len(tensor), -1), memory, draw)
                payload |= {f"{name}:{_LEFT}": left, f"{name}:{_RIGHT}": right}
            else:
                payload[name] = tensor
        return payload

    def decode(self, payload: Mapping[str, Tensor], spec: wire.StateSpec) -> State:
        """Multiply the factors out."""
        rest = dict(payload)
        for name, item in spec.items():
            if not self._is_smaller(item.shape):
                continue
            left, right = take(rest, name, _LEFT), take(rest, name, _RIGHT)
            rows, columns = _matrix(item.shape)
            rank = left.shape[-1] if left.dim() == 2 else -1
            if (*left.shape, *right.shape) != (rows, rank, columns, rank) or rank > self._rank:
                raise WireError(f"tensor '{name}' has factors that do not fit its shape and rank {self._rank}")
            rest[name] = (left.double() @ right.double().T).reshape(item.shape)
        return rest

    def factors(self, name: str, matrix: Tensor, memory: State, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return (rows, k) and (columns, k), whose product stands for the matrix."""
        raise NotImplementedError

    def _is_smaller(self, shape: tuple[int, ...]) -> bool:
        if len(shape) < 2:
            return False
        rows, columns = _matrix(shape)
        return self._rank * (rows + columns) < rows * columns


class PowerSGD(LowRank):
    """One step of power iteration: P = orth(MQ), M ≈ P(MᵀP)ᵀ, and MᵀP is the next round's Q.

    Updates change slowly from round to round, so the steps of many rounds together find the leading directions, and
    with error feedback what is left out of one round arrives in a later one.

    Parameters
    ----------
    rank
        Columns of a factor.
    warm
        Begin with the last round's Q, rather than with one drawn anew.

    References
    ----------
    Vogels, Karimireddy, Jaggi, PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization,
    NeurIPS 2019.
    """

    def __init__(self, rank: int, *, warm: bool = True) -> None:
        super().__init__(rank)
        self._warm = warm

    def factors(self, name: str, matrix: Tensor, memory: State, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return P and MᵀP."""
        right = _start(matrix, self._rank, draw(name))
        last = memory.get(f"powersgd/{name}")
        if self._warm and last is not None and last.shape == right.shape:
            # A direction that an update did not have at all is drawn anew; zero would stay zero.
            right = torch.where(last.norm(dim=0) > 0, last, right)
        left = torch.linalg.qr(matrix @ right).Q
        right = matrix.T @ left
        memory[f"powersgd/{name}"] = right
        return left, right


class RankDAD(LowRank):
    """The largest singular triples of each matrix, left factors times singular values, by power iteration.

    dinunet finds them from a layer's inputs X and output gradients D, whose product DᵀX is the gradient; training forms
    that product anyway, and of a round of several steps only the sum over them is an update. So the triples are those
    of the update itself, of any kind of layer; with strategy ``fedsgd`` it is the gradient, and this is rankDAD. A
    vector such as a bias is sent whole, sites are averaged rather than added up, and the start is from the seed.

    Parameters
    ----------
    rank
        Largest number of triples.
    tolerance
        Those of a singular value below this share of the largest are left out.
    iterations
        Of the power iteration, over all triples at once.

    References
    ----------
    Baker et al., Peering Beyond the Gradient Veil with Distributed Auto Differentiation, 2021 (rank-dAD).
    """

    def __init__(self, rank: int, tolerance: float = 0.001, iterations: int = 5) -> None:
        super().__init__(rank)
        self._tolerance = tolerance
        self._iterations = iterations

    def factors(self, name: str, matrix: Tensor, memory: State, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return U S and V."""
        right = _start(matrix, min(self._rank + _SPARE, *matrix.shape), draw(name))
        left = torch.linalg.qr(matrix @ right).Q
        for _ in range(self._iterations):
            left = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ left).Q).Q
        inner, values, right = torch.linalg.svd(left.T @ matrix, full_matrices=False)
        kept = min(int((values > self._tolerance * values[0]).sum()), self._rank)
        return (left @ inner[:, :kept]) * values[:kept], right[:kept].T


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    columns = 1
    for length in shape[1:]:
        columns *= length
    return shape[0], columns


def _start(matrix: Tensor, columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(matrix.shape[1], columns, generator=generator, dtype=matrix.dtype)
