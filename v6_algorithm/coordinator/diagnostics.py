"""Confusion matrices, calibration and ROC curves of a finished run, from the same sums as its metrics.

`results` and `central` put them into the result for each part, by target: `data.target`, or each of several targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from v6_algorithm.data.preparation import Setup
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.metrics import merge_states
from v6_algorithm.learning.metrics.calibration import CONFIDENCE_UNITS
from v6_algorithm.learning.metrics.classification_state import histograms
from v6_algorithm.learning.metrics.histogram import lower_edges

# Fewest rows between two points of a ROC curve: one of single steps would be the list of all scores.
_STEP_ROWS = 5


def diagnostics(states: Mapping[str, dict[str, Any]], experiment: Experiment, setup: Setup) -> dict[str, Any]:
    """Return what the states of one part show beyond numbers.

    Parameters
    ----------
    states
        Hospital to metric state.
    experiment, setup
        For the names of targets and classes.

    Returns
    -------
    dict
        `confusion`, `calibration` and `roc`, each by target; of problems without classes nothing. In a confusion
        matrix, `pooled` and by hospital, a row is a true class and a column a predicted one, in the order of
        `classes`. `calibration` has for each of 15 bins of the predicted probability its `rows`, their mean
        probability (`predicted`) and the share that is of the class (`observed`), None where it is empty; of class 1
        of two, of the predicted class of more. `roc`, of two classes, has `threshold`, `sensitivity` and
        `specificity` of points at least 5 rows apart.
    """
    tables: dict[str, Any] = {"confusion": {}, "calibration": {}, "roc": {}}
    labels = setup.labels_of(str(experiment.data.target))
    for target, by_site in by_target(states, str(experiment.data.target)).items():
        pooled = merge_states(by_site.values())
        tables["confusion"][target] = {
            "classes": labels[target],
            "pooled": pooled["confusion"],
            "sites": {name: state["confusion"] for name, state in by_site.items()},
        }
        tables["calibration"][target] = _calibration(*pooled["calibration"])
        places, positives, negatives = histograms(pooled)[0]
        if pooled["n_classes"] == 2 and positives.any() and negatives.any():
            edges = lower_edges(places, pooled["bins"]).tolist()
            tables["roc"][target] = _roc(positives.tolist(), negatives.tolist(), edges)
    return {name: content for name, content in tables.items() if content}


def by_target(states: Mapping[str, dict[str, Any]], target: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the states of classifications by target and hospital."""
    by_target: dict[str, dict[str, dict[str, Any]]] = {}
    for name, state in states.items():
        tasks = state["tasks"] if state["kind"] == "multitask" else {target: state}
        for task, task_state in tasks.items():
            if task_state["kind"] == "classification":
                by_target.setdefault(task, {})[name] = task_state
    return by_target


def _calibration(rows: list[int], confidence: list[int], hits: list[int]) -> dict[str, list[Any]]:
    return {
        "rows": rows,
        "predicted": [
            units / CONFIDENCE_UNITS / count if count else None for units, count in zip(confidence, rows, strict=True)
        ],
        "observed": [hit / count if count else None for hit, count in zip(hits, rows, strict=True)],
    }


def _roc(positives: list[int], negatives: list[int], edges: list[float]) -> dict[str, list[Any]]:
    """Walk down the thresholds, where bins begin, from one that no row reaches to one that all do."""
    steps = zip(reversed(edges), accumulate(reversed(positives)), accumulate(reversed(negatives)), strict=True)
    points: list[tuple[float | None, int, int]] = [(None, 0, 0)]
    end = (0.0, sum(positives), sum(negatives))
    for threshold, true_positives, wrong in steps:
        if true_positives + wrong - points[-1][1] - points[-1][2] >= _STEP_ROWS:
            points.append((threshold, true_positives, wrong))
    if sum(points[-1][1:]) < sum(end[1:]):
        # The last rows alone would be a step that is too small.
        points = [*points[: -1 if len(points) > 1 else None], end]
    return {
        "threshold": [threshold for threshold, _, _ in points],
        "sensitivity": [true_positives / end[1] for _, true_positives, _ in points],
        "specificity": [1 - wrong / end[2] for _, _, wrong in points],
    }
