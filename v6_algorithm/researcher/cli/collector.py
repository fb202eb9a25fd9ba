"""Python's search for cycles of objects, kept away from the libraries; called by commands that train here.

Importing torch and pandas makes half a million objects that stay. Left to itself, Python walks through all of them
again and again while they are made, which is half a second of a start, and then once more whenever a round has made
enough objects of its own, which is several rounds' time. Cycles in what is made afterwards are found as ever.
"""

from __future__ import annotations

import gc


def import_libraries() -> None:
    """Import what training needs, and leave it out of every later search."""
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
