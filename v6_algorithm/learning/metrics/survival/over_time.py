"""The AUROC of risks at a time: how well they tell who has had the event by then from who is still without.

From the counts in bins of time and score that the C-index of all sites comes from; `result.diagnostics` calls it, and
no site is asked for anything more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from v6_algorithm.learning.metrics.survival.collector import counts_of_cells


def auroc_over_time(state: dict[str, Any]) -> list[dict[str, float]]:
    """Return the cumulative/dynamic AUROC [1]_ at the edges of the state's bins of time.

    Cases at a time are the rows with the event by then, each weighted by 1 / G, with G the chance not to be censored
    until its event [2]_; controls are the rows watched longer. G is from a life table over the bins, in which those who
    are censored leave halfway; equal bins of scores count half. Where a time has no case, no control, or G is 0, it is
    left out.

    Parameters
    ----------
    state
        A checked state of `SurvivalMetrics`, of one site or several added up.

    Returns
    -------
    list of dict
        `time`, `auroc`, and how many `cases` and `controls` there are.

    References
    ----------
    .. [1] Heagerty, Lumley and Pepe (2000), Time-dependent ROC curves, Biometrics 56(2), 337-344.
    .. [2] Uno, Cai, Tian and Wei (2007), Evaluating prediction rules for t-year survivors, JASA 102(478), 527-537.
    """
    edges = state["edges"]
    cells = np.asarray(state["cells"], dtype=np.int64).reshape(-1, 4)
    events, censored = counts_of_cells(cells, len(edges))
    died, left = events.sum(axis=1), censored.sum(axis=1)
    at_risk = (died + left)[::-1].cumsum()[::-1]
    # Censored rows leave among those that are there until the middle of the bin.
    exposed = at_risk - died / 2
    stay = 1 - np.divide(left, exposed, out=np.zeros(len(left)), where=exposed > 0)
    until = np.cumprod(stay)
    halfway = np.sqrt(np.concatenate([[1.0], until[:-1]]) * until)
    curve = []
    for place, time in enumerate(edges):
        controls = (events + censored)[place + 1 :].sum(axis=0)
        known = events[: place + 1]
        # The chance not to be censored is 0 only after the last row.
        if not known.any() or not controls.any():
            continue
        cases = (1 / halfway[: place + 1]) @ known
        below = np.concatenate([[0.0], np.cumsum(controls)[:-1]])
        area = float(cases @ (below + controls / 2) / (cases.sum() * controls.sum()))
        curve.append({"time": float(time), "auroc": area, "cases": int(known.sum()), "controls": int(controls.sum())})
    return curve
