"""The calls that find where quantiles lie: cells of the sites' training values, in ever narrower windows.

Fill values and scales (`harmonise`) and the knots of curves (`knots`) come from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from v6_algorithm.coordinator.preparation.questions import Gather
from v6_algorithm.data.preparation.setup import Setup, pack_arrays, unpack_arrays
from v6_algorithm.data.quantiles import CALLS, Cells


def gather_cells(
    gather: Gather,
    sites: Sequence[str],
    setup: Setup,
    columns: int,
    next_windows: Callable[[list[Cells]], tuple[np.ndarray, bool]],
) -> list[Cells]:
    """Ask the sites for cells of their training values, and again where quantiles lie, until these are close enough.

    Parameters
    ----------
    gather, sites
        Asks them; see `questions.gather`.
    setup
        What the sites prepare their rows by.
    columns
        Numbers of columns times folds that each site tells cells of.
    next_windows
        From all sites' cells so far to the windows of the next call, and whether there is to be one.
    """
    cells: dict[str, Cells] = {}
    windows: np.ndarray | None = None
    for _ in range(CALLS):
        step = {"windows": None if windows is None else pack_arrays({"windows": windows})}
        # A site that is lost on the way keeps what it told before.
        cells |= gather(
            sites,
            {"step": "quantiles", "setup": setup.to_json(), **step},
            lambda reply: Cells.check(unpack_arrays(reply["cells"]), columns),
        )
        windows, wanted = next_windows(list(cells.values()))
        if not wanted:
            break
    return list(cells.values())
