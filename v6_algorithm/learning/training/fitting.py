"""Batches that do not fit a device's memory: they are cut in halves until they do.

A step is that of the same mean over the same rows however it is cut, but for BatchNorm, which sees each piece by
itself, and for what is drawn at random inside a batch (dropout, augmentation), which is drawn anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from v6_algorithm.errors import SiteError

# What CUDA's libraries say where memory that torch does not manage is wanted, and there is none.
_NO_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "`cublasCreate")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error tells that a device's memory did not do; not all that do are torch's OutOfMemoryError."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def pieces_of(order: Tensor, size: int, at_least: int) -> list[Tensor]:
    """Cut row numbers into pieces; a last one of fewer than `at_least` rows joins the one before."""
    pieces = list(torch.split(order, size))
    if len(pieces) > 1 and len(pieces[-1]) < at_least:
        pieces[-2:] = [torch.cat(pieces[-2:])]
    return pieces


class Fitting:
    """How many rows a device takes at once, as far as is known; one for all that a request trains.

    Parameters
    ----------
    rows
        What an earlier round came to; None: whatever is asked for.
    asked
        The largest batch that did not fit; 0 where all did.
    """

    def __init__(self, rows: int | None = None, asked: int = 0) -> None:
        self.rows = rows
        self.asked = asked

    def to_json(self) -> dict[str, int]:
        """Return what a reply tells of it: nothing where every batch fitted."""
        return {} if self.rows is None else {"batch": self.asked, "pieces": self.rows}

    def attempt(
        self, batches: Sequence[Tensor], work: Callable[[list[Tensor]], Tensor], *, least: int, whole: bool
    ) -> Tensor:
        """Return what `work` makes of batches, cut smaller and tried again where memory runs out.

        Parameters
        ----------
        batches
            Row numbers of the batches of one step.
        work
            Computes the gradients of a step from its pieces, and begins by clearing those of an attempt before.
        least
            Fewest rows of a piece.
        whole
            Whether a batch's loss is of all its rows together, so that it cannot be cut.

        Raises
        ------
        SiteError
            Of kind ``request`` when not even the smallest piece fits.
        """
        while True:
            cut = [piece for batch in batches for piece in self._cut(batch, least, whole)]
            try:
                return work(cut)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                largest = max(map(len, cut))
            # Out of the clause above, for the exception holds on to what the attempt had in memory.
            self._halve(max(map(len, batches)), largest, least, whole)

    def _cut(self, batch: Tensor, least: int, whole: bool) -> list[Tensor]:
        return [batch] if whole or self.rows is None else pieces_of(batch, self.rows, least)

    def _halve(self, batch: int, largest: int, least: int, whole: bool) -> None:
        smaller = max(largest // 2, least)
        if whole or smaller >= (self.rows or largest):
            raise _too_large(largest)
        self.rows, self.asked = smaller, max(self.asked, batch)
        empty_cache()


def in_chunks(part: Tensor, size: int, work: Callable[[Tensor], None], *, whole: bool) -> None:
    """Call `work` with so many row numbers at a time, and fewer where memory runs out.

    `work` must change nothing before all that takes memory is done. Raises as `Fitting.attempt` does.
    """
    done = 0
    while done < len(part):
        chunk = part[done : done + size]
        try:
            work(chunk)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            fits = False
        else:
            fits, done = True, done + len(chunk)
        if fits:
            continue
        if whole or len(chunk) == 1:
            raise _too_large(len(chunk))
        size = len(chunk) // 2
        empty_cache()


def empty_cache() -> None:
    """Give back the memory of this process's GPU that nothing uses any more; without a GPU in use, do nothing."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _too_large(rows: int) -> SiteError:
    return SiteError(
        f"the memory of this site's device does not hold {rows} row{'' if rows == 1 else 's'} at once, and fewer "
        "cannot be; take a smaller model or smaller images, training.precision mixed, or training.device cpu",
        "request",
    )
