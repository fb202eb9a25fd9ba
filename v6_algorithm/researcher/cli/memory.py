"""What Python and the C library do about memory by themselves, kept out of a round; called by commands that train here.

Importing torch and pandas makes half a million objects that stay. Left to itself, Python walks through all of them
again and again while they are made, which is half a second of a start, and then once more whenever a round has made
enough objects of its own, which is several rounds' time. Cycles in what is made afterwards are found as ever.

Linux's C library gives what a round's tensors took back to the system, or not, as it happens to lie; where it does,
each page is asked for and cleared again in the next round, which made rounds of 100 small sites take 21 ms or 13. Of
tensors that are larger than what it keeps, pages of 2 MB instead of 4 kB make that a third of the time.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

# Of malloc.h: free bytes at the heap's end that are given back, and from which size on a block is by itself.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Of torch, for tensors from 2 MB on.
_LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"
# Rounds that make what lasts: tables beside each other, stacks, what is kept of each site.
_FIRST_ROUNDS = 2


def import_libraries() -> None:
    """Import what training needs, and leave it out of every later search."""
    keep_memory()
    searches = gc.isenabled()
    gc.disable()
    try:
        import pandas  # noqa: F401
        import torch  # noqa: F401

        from v6_algorithm.coordinator import master  # noqa: F401
        from v6_algorithm.engines.simulation import simulate  # noqa: F401
    finally:
        gc.freeze()
        if searches:
            gc.enable()


def leave_out_of_searches(event: Mapping[str, Any]) -> None:
    """Leave what a run has made by now out of later searches: after the preparation, its first rounds, and the test.

    With thousands of sites that is millions of objects which stay, and a search through all of them made a round up to
    2.7 times as long as one without. `event` is one of `master`'s.
    """
    if event["event"] in ("prepared", "tested") or (event["event"] == "round" and event["round"] <= _FIRST_ROUNDS):
        # What is new and in a circle would stay for good.
        gc.collect(1)
        gc.freeze()


def keep_memory() -> None:
    """Let blocks of up to 32 MB (the most that may be said) come from memory that stays, 256 MB of it while free.

    And let torch ask Linux for large pages, where nobody has said otherwise; it looks when it makes its first tensor.
    """
    os.environ.setdefault(_LARGE_PAGES, "1")
    # Other C libraries have no such function.
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 32 << 20)
        library.mallopt(_TRIM_THRESHOLD, 256 << 20)
