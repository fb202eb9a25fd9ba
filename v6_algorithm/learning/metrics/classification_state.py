"""What can be done with the states of `ClassificationMetrics`: check one, add several up, compute the
metrics and explain them. Called by `states`, which picks the module by the state's kind."""

import itertools
from collections.abc import Mapping, Sequence
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v6_algorithm.experiment.metric_names import sensitivity_names, threshold_name
from v6_algorithm.learning.metrics import intervals, joined, sparse
from v6_algorithm.learning.metrics.calibration import CALIBRATION_BINS, CONFIDENCE_UNITS, expected_calibration_error
from v6_algorithm.learning.metrics.checks import (
    require_count,
    require_counts,
    require_keys,
    require_nothing_without_rows,
    require_number,
)
from v6_algorithm.learning.metrics.classification import scored_classes
from v6_algorithm.learning.metrics.histogram import (
    COARSE_BINS,
    auroc,
    auroc_error,
    auroc_resolution,
    average_precision,
    average_precision_bounds,
    average_precision_resolution,
    lower_edges,
    middles,
    rankings,
    sensitivity_at,
)

# Bins, in rising order, with the positives and the negatives in each.
Pair = tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]
SHAPE: tuple[str, ...] = ("n_classes", "bins", "specificities")
_COUNTS = ("n", "non_finite", "joined")
_SUMS = ("loss", "brier")
_TABLES = ("confusion", "calibration")
_HISTOGRAMS = ("positives", "negatives")
_KEYS = frozenset(("kind", *SHAPE, *_COUNTS, *_SUMS, *_TABLES, *_HISTOGRAMS))

_METRICS = ("loss", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "auroc", "auprc", "brier", "ece")
_OF_TWO = ("specificity", "npv", "auroc_se")
_RESOLUTIONS = ("auroc_resolution", "auprc_resolution")
_WITH_INTERVAL = ("accuracy", "balanced_accuracy")
_OF_TWO_WITH_INTERVAL = ("precision", "recall", "specificity", "npv", "f1", "auroc", "auprc", "brier")
# Bins of all classes together are numbered in int64.
_MOST_BINS = 2**40
# Where the AUROC's second digit is in doubt, a reader should be told.
_COARSE = 0.005
# Of fewer joined bins of all sites, an interval has the worst case in it: coverage of 0.84 to 0.9 without at 20 rows.
_FEWEST_JOINED = 8
# The AUPRC of a few positives moves by more with any one of them.
_COARSE_PRECISION = 0.05


def check(state: dict[str, Any]) -> None:
    """Refuse a state no `ClassificationMetrics` can have produced."""
    # What masks added up says where the rows of joined bins may be, which is known no more from their sum.
    require_keys(state, _KEYS | ({"ends"} & state.keys()))
    require_count(state["n_classes"], "n_classes", least=2)
    require_count(state["bins"], "bins", least=2)
    if state["n_classes"] * state["bins"] > _MOST_BINS:
        raise ValueError(f"bins of the metric state, of all classes together, must be at most {_MOST_BINS}")
    _check_specificities(state["specificities"], state["n_classes"])
    for name in _COUNTS:
        require_count(state[name], name)
    require_number(state["loss"], "loss")
    require_number(state["brier"], "brier", least=0.0)
    n_classes, scored = state["n_classes"], scored_classes(state["n_classes"])
    require_counts(state["confusion"], n_classes, n_classes, "confusion")
    positives, negatives = (
        _rows_of(sparse.check(state[name], len(scored), state["bins"], name), len(scored), state["bins"])
        for name in _HISTOGRAMS
    )
    require_counts(state["calibration"], 3, CALIBRATION_BINS, "calibration")
    require_nothing_without_rows(state, _SUMS)
    if sum(map(sum, state["confusion"])) != state["n"]:
        raise ValueError("confusion of the metric state must add up to n")
    for scored_class, of_class, of_others in zip(scored, positives, negatives, strict=True):
        if of_class != sum(state["confusion"][scored_class]) or of_class + of_others != state["n"]:
            raise ValueError("histograms of the metric state must count the same rows as its confusion")
    if "ends" in state:
        joined.check_ends(state["ends"], list(zip(positives, negatives, strict=True)), state["bins"])
    _check_calibration(state)


def _rows_of(flat: sparse.Flat, classes: int, bins: int) -> list[int]:
    """Add up each class's histogram; in Python's integers, for a wrong state may count any number of rows."""
    ends = np.searchsorted(flat[0], np.arange(classes + 1) * bins).tolist()
    return [sum(flat[1][start:end].tolist()) for start, end in itertools.pairwise(ends)]


def _check_specificities(given: Any, n_classes: int) -> None:
    if not isinstance(given, list) or (given and n_classes > 2):
        raise ValueError("specificities of the metric state must be a list, empty with more than two classes")
    for specificity in given:
        require_number(specificity, "each of specificities", least=0.0, most=1.0)


def _check_calibration(state: dict[str, Any]) -> None:
    rows, confidence, hits = state["calibration"]
    confusion = state["confusion"]
    hits_expected = sum(confusion[1]) if len(confusion) == 2 else sum(row[k] for k, row in enumerate(confusion))
    if sum(rows) != state["n"] or sum(hits) != hits_expected:
        raise ValueError("calibration of the metric state must count the same rows as its confusion")
    for place, (row_count, units, hit_count) in enumerate(zip(rows, confidence, hits, strict=True)):
        # In integers: each row's confidence is in its bin, rounded by at most half a unit.
        low, high = place * CONFIDENCE_UNITS, (place + 1) * CONFIDENCE_UNITS
        slack = row_count * CALIBRATION_BINS
        inside = 2 * row_count * low - slack <= 2 * units * CALIBRATION_BINS <= 2 * row_count * high + slack
        if hit_count > row_count or not inside:
            raise ValueError("calibration of the metric state contradicts itself")


def merge(states: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up checked states of one shape; integers exactly, floats rounded once."""
    merged = {"kind": "classification"} | {name: states[0][name] for name in SHAPE}
    merged |= {name: sum(state[name] for state in states) for name in _COUNTS}
    merged |= {name: fsum(state[name] for state in states) for name in _SUMS}
    if len(states) == 1 and not merged["joined"]:
        # Of thousands of sites that have one fold each.
        return merged | {name: states[0][name] for name in (*_TABLES, *_HISTOGRAMS)}
    merged |= {name: _add_tables([state[name] for state in states]) for name in _TABLES}
    classes, bins = len(scored_classes(merged["n_classes"])), merged["bins"]
    for name in _HISTOGRAMS:
        flat = sparse.summed([sparse.flat(state[name], bins) for state in states], merged["n"])
        merged[name] = sparse.from_flat(flat, classes, bins)
    if merged["joined"]:
        # Where a site's rows may be is known from that site's joined bins only, not from their sum.
        merged["parts"] = [part for state in states for part in _parts(state)]
    return merged


def _parts(state: dict[str, Any]) -> list[joined.Part]:
    return _told(state) or [(state["positives"], state["negatives"], bool(state["joined"]))]


def _told(state: Mapping[str, Any]) -> list[joined.Part]:
    """Return what is known of where rows are that joined bins stand for; nothing of one site, and where none joins."""
    return state.get("parts") or ([state["ends"]] if "ends" in state else [])


def histograms(state: Mapping[str, Any]) -> list[Pair]:
    """Return for each scored class of a checked state the bins that hold rows, with their positives and negatives."""
    positives, negatives = (state[name] for name in _HISTOGRAMS)
    if state["n"] >= sparse.SMALL:
        return [sparse.paired(*pair) for pair in zip(positives, negatives, strict=True)]
    return sparse.all_paired(positives, negatives, state["bins"])


def scores(state: dict[str, Any]) -> dict[str, float | int | None]:
    """Metrics of a checked state without what goes with them: resolutions, standard errors and intervals."""
    return compute(state, alone=True)


def scores_of_all(
    states: Sequence[Mapping[str, Any]], pairs: Sequence[Sequence[Pair]]
) -> list[dict[str, float | int | None]]:
    """`scores` of several states from one pass over all their bins; `pairs` are what `_rankable` finds in each."""
    ranked = list(zip(*rankings([(above, below) for of_state in pairs for _, above, below in of_state]), strict=True))
    ends = list(itertools.accumulate(map(len, pairs)))
    return [
        _values(state, of_state, ranked[end - len(of_state) : end], alone=True)
        for state, of_state, end in zip(states, pairs, ends, strict=True)
    ]


def compute(state: dict[str, Any], *, alone: bool = False) -> dict[str, float | int | None]:
    """Metrics of a checked state; see `states.compute`. With `alone`, what goes with the scores may be None."""
    pairs = _rankable(state) if state["n"] else []
    ranked = list(zip(*rankings([(above, below) for _, above, below in pairs]), strict=True))
    return _values(state, pairs, ranked, alone=alone)


def _values(
    state: Mapping[str, Any], pairs: Sequence[Pair], ranked: Sequence[tuple[float, float]], *, alone: bool
) -> dict[str, float | int | None]:
    """Metrics of a checked state, whose rankable histograms and their AUROC and average precision are known."""
    n = state["n"]
    values: dict[str, float | int | None] = {"n": n, **dict.fromkeys(_METRICS), **dict.fromkeys(_RESOLUTIONS)}
    sensitivities = sensitivity_names(state["specificities"])
    if state["n_classes"] == 2:
        values |= dict.fromkeys([*_OF_TWO, *(metric for name in sensitivities for metric in _with_sensitivity(name))])
    for name in (*_WITH_INTERVAL, *(_OF_TWO_WITH_INTERVAL if state["n_classes"] == 2 else ())):
        values |= intervals.ends(name, None)
    if n == 0:
        return values
    hits, actual, predicted = _margins(state)
    precision, recall = _share(hits, predicted), _share(hits, actual)
    f1 = _share(2 * hits, actual + predicted)
    averaged = np.arange(2) == 1 if state["n_classes"] == 2 else actual + predicted > 0
    values |= {
        "loss": state["loss"] / n,
        "accuracy": int(hits.sum()) / n,
        "balanced_accuracy": float(recall[actual > 0].mean()),
        "precision": float(precision[averaged].mean()),
        "recall": float(recall[averaged].mean()),
        "f1": float(f1[averaged].mean()),
        "brier": state["brier"] / n,
        "ece": expected_calibration_error(*state["calibration"]),
    }
    if state["n_classes"] == 2:
        right = hits[0].item()
        values |= {"specificity": _ratio(right, actual[0].item()), "npv": _ratio(right, predicted[0].item())}
    if pairs:
        values |= {"auroc": _mean([area for area, _ in ranked]), "auprc": _mean([area for _, area in ranked])}
    if pairs and state["n_classes"] == 2:
        places, above, below = pairs[0]
        edges = lower_edges(places, state["bins"])
        for name, specificity in zip(sensitivities, state["specificities"], strict=True):
            values |= dict(zip(_with_sensitivity(name), sensitivity_at(specificity, above, below, edges), strict=True))
    if alone:
        return values
    if pairs:
        values |= {
            "auroc_resolution": _mean([auroc_resolution(*pair) for _, *pair in pairs]),
            "auprc_resolution": _mean([average_precision_resolution(*pair) for _, *pair in pairs]),
        }
    if pairs and state["n_classes"] == 2:
        values["auroc_se"] = auroc_error(pairs[0][1], pairs[0][2])
    # An interval has what ties leave open. That all rows of joined bins lie as badly as may be is no chance to allow
    # for: with it intervals are two to four times as wide. Only of a handful of bins the order says too little itself.
    parts = _told(state)
    moved = _moved(state, values, parts) if pairs and parts else {}
    few = bool(parts) and joined.listed(parts) < _FEWEST_JOINED
    return values | _intervals(state, values | moved if few else values) | moved


def _moved(state: Mapping[str, Any], values: dict[str, Any], parts: list[joined.Part]) -> dict[str, float]:
    """Return the resolutions of the sum of sites of which some join bins: to the furthest that its rows may come to."""
    aurocs, precisions = [], []
    for number, (_, above, below) in enumerate(histograms(state)):
        if not (above.any() and below.any()):
            continue
        extents = joined.Extents(parts, number, state["bins"])
        least, most = extents.auroc()
        area, precision = auroc(above, below), average_precision(above, below)
        aurocs.append(max(most - area, area - least, 0.0))
        highest = average_precision_bounds(*extents.best()[1:])[1]
        lowest = average_precision_bounds(*extents.worst()[1:])[0]
        precisions.append(max(highest - precision, precision - lowest, 0.0))
    moved = {"auroc_resolution": _mean(aurocs), "auprc_resolution": _mean(precisions)}
    for name, specificity in zip(sensitivity_names(state["specificities"]), state["specificities"], strict=True):
        # Of two classes, so of the extents above.
        best, worst = (
            sensitivity_at(specificity, above, below, lower_edges(places, state["bins"]))
            for places, above, below in (extents.best(), extents.worst())
        )
        moved[f"{name}_resolution"] = max(best[0] + best[2] - values[name], values[name] - worst[0])
    return moved


def _intervals(state: Mapping[str, Any], values: dict[str, Any]) -> dict[str, float | None]:
    """Return the ends of the 95 % confidence intervals of a checked state with rows; see `intervals`."""
    hits, actual, predicted = (counts.tolist() for counts in _margins(state))
    by_metric: dict[str, intervals.Interval | None] = {
        "accuracy": intervals.wilson(sum(hits), state["n"]),
        "balanced_accuracy": intervals.mean_of_shares(hits, actual) if all(actual) else None,
    }
    if state["n_classes"] == 2:
        by_metric |= {
            "precision": intervals.wilson(hits[1], predicted[1]),
            "recall": intervals.wilson(hits[1], actual[1]),
            "specificity": intervals.wilson(hits[0], actual[0]),
            "npv": intervals.wilson(hits[0], predicted[0]),
            "f1": intervals.f1_interval(hits[1], actual[1] + predicted[1] - 2 * hits[1]),
        }
    if state["n_classes"] == 2 and values["auroc"] is not None:
        rows = actual[1], actual[0]
        places, positives, negatives = histograms(state)[0]
        middle = middles(places, state["bins"])
        by_metric |= {
            "auroc": intervals.auroc_interval(values["auroc"], values["auroc_se"], *rows, values["auroc_resolution"]),
            "auprc": intervals.auprc_interval(values["auprc"], *rows, values["auprc_resolution"]),
            "brier": intervals.brier_interval(values["brier"], positives, negatives, middle),
        }
    return {
        name: end for metric, interval in by_metric.items() for name, end in intervals.ends(metric, interval).items()
    }


def explain(state: dict[str, Any]) -> list[str]:
    """Sentences about what a checked state could not give; see `states.explain`."""
    notes = []
    if state["non_finite"]:
        notes.append(f"{state['non_finite']} rows had a non-finite prediction or loss and are left out")
    if state["n"] == 0:
        return [*notes, "no rows"]
    _, actual, predicted = _margins(state)
    absent = int((actual == 0).sum())
    values = compute(state)
    if values["auroc"] is None:
        notes.append("auroc and auprc: only one class present")
    elif absent:
        notes.append(
            f"balanced_accuracy, auroc and auprc: {absent} of {state['n_classes']} classes "
            "do not occur in the target and are left out"
        )
    if state["n_classes"] == 2:
        if predicted[1] == 0:
            notes.append("precision: no row was predicted as the positive class, so it is set to 0")
        if actual[1] == 0:
            notes.append("recall: no row is of the positive class, so it is set to 0")
    else:
        never = int(((predicted == 0) & (actual > 0)).sum())
        if never:
            notes.append(f"precision: {never} of {state['n_classes']} classes were never predicted and count as 0")
    resolution = values["auroc_resolution"]
    if resolution is not None and resolution > _COARSE:
        notes.append(f"auroc: binned, within {resolution:.3f} of the exact value")
    resolution = values["auprc_resolution"]
    if resolution is not None and resolution > _COARSE_PRECISION:
        notes.append(f"auprc: binned, within {resolution:.3f} of the exact value")
    if state["joined"] and state["bins"] == COARSE_BINS:
        notes.append(
            f"auroc, auprc and thresholds: {state['joined']} sites joined score bins before secure aggregation added "
            "them up; their resolutions contain what that may have moved"
        )
    return notes


def _add_tables(tables: list[list[list[int]]]) -> list[list[int]]:
    # Python integers: counts near 2**53 from many sites would overflow int64.
    return [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*tables, strict=True)]


def _margins(state: Mapping[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows per class that were predicted right, that are of the class, that were predicted as it."""
    confusion = np.array(state["confusion"], dtype=np.int64)
    return np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """Division with 0 where undefined, as scikit-learn's `zero_division=0`."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _with_sensitivity(name: str) -> tuple[str, str, str]:
    """Name a sensitivity and what goes with it, in the order of `sensitivity_at`."""
    return name, threshold_name(name), f"{name}_resolution"


def _rankable(state: dict[str, Any]) -> list[Pair]:
    """Histogram pairs of the classes with both positives and negatives."""
    return [pair for pair in histograms(state) if pair[1].any() and pair[2].any()]


def _mean(values: list[float]) -> float:
    return fsum(values) / len(values)
