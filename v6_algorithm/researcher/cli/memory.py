"""What Python and the C library do about memory by themselves, kept out of a round; called by commands that train here.

Importing torch and pandas makes half a million objects that stay. Left to itself, Python walks through all of them
again and again while they are made, which is half a second of a start, and then once more whenever a round has made
enough objects of its own, which is several rounds' time. Cycles in what is made afterwards are found as ever.

Linux's C library gives what a round's tensors took back to the system, or not, as it happens to lie; where it does,
each page is asked for and cleared again in the next round, which made rounds of 100 small sites take 21 ms or 13.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

# Of malloc.h: free bytes at the heap's end that are given back, and from which size on a block is by itself.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def import_libraries() -> None:
    """Import what training needs, and leave it out of every later search."""
    keep_memory()
    searches = gc.isenabled()
    gc.disable()
    try:
        import pandas  # noqa: F401
        import torch  # noqa: F401

        from v6_algorithm.coordinator import master  # noqa: F401
        from v6_algorithm.engines import simulate  # noqa: F401
    finally:
        gc.freeze()
        if searches:
            gc.enable()


def keep_memory() -> None:
    """Let blocks of up to 32 MB (the most that may be said) come from memory that stays, 256 MB of it while free."""
    # Other C libraries have no such function.
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 32 << 20)
        library.mallopt(_TRIM_THRESHOLD, 256 << 20)
