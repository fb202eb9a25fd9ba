"""Reading a result: the one place that knows where its numbers are and what they are called.

Every file, page and table of this room goes through here. A run that stopped half way leaves a partial result,
so nothing is assumed to be there: what is absent reads as empty.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from v6_algorithm.learning.metrics import is_score, is_sensitivity
from v6_algorithm.researcher.report.shareable import without_password

PARTS = ("test", "validation")
# On the researcher's own table, after the run.
CENTRAL = "central"
# The status of what `evaluate` leaves: nothing was trained.
EVALUATED = "evaluated"
# The status of what `run --test` and `submit --test` leave: a model was measured at all sites.
TESTED = "tested"
RESULT_PARTS = (*PARTS, CENTRAL)


@dataclass(frozen=True)
class MetricName:
    """How one metric is shown: its label, whether more is better, and what it says in plain words."""

    label: str
    higher_is_better: bool
    meaning: str


METRICS = {
    "auroc": MetricName("AUROC", True, "chance that a positive case is ranked above a negative one; 0.5 is guessing"),
    "auprc": MetricName("AUPRC", True, "precision averaged over all recalls; guessing gives the share of positives"),
    "c_index": MetricName("C-index", True, "chance that of two patients the one at higher risk has the event first"),
    "c_index_within": MetricName("C-index within sites", True, "the same, of patients of one site only"),
    "accuracy": MetricName("Accuracy", True, "share of correct predictions"),
    "balanced_accuracy": MetricName("Balanced accuracy", True, "recall averaged over the classes"),
    "f1": MetricName("F1", True, "harmonic mean of precision and recall"),
    "precision": MetricName("Precision", True, "share of predicted positives that are positive"),
    "recall": MetricName("Recall", True, "share of positives that were found; sensitivity"),
    "specificity": MetricName("Specificity", True, "share of negatives that were found"),
    "npv": MetricName("NPV", True, "share of predicted negatives that are negative"),
    "r2": MetricName("R²", True, "share of the variance explained; 0 is predicting the mean"),
    "mae": MetricName("MAE", False, "mean absolute error, in units of the target"),
    "mse": MetricName("MSE", False, "mean squared error, in squared units of the target"),
    "huber": MetricName("Huber", False, "squared error for small residuals, absolute error for large ones"),
    "brier": MetricName("Brier", False, "mean squared error of the predicted probabilities"),
    "ece": MetricName("ECE", False, "calibration: how far predicted probabilities are from observed frequencies"),
    "fid": MetricName(
        "FID", False, "distance of made from real images by their features; of few images it is too high"
    ),
    "kid": MetricName("KID", False, "distance of made from real images by features; about 0 where they are alike"),
    "loss": MetricName("Loss", False, "what the training minimises"),
}
"""In the order of the columns. The first one that a run measured is its headline."""

RUNS = {
    "federated": "Federated",
    "centralised": "Centralised (all rows in one place)",
    "local": "Local (each site alone)",
    "personal": "Personal (a model each)",
}


SUMMARIES = {
    "pooled": "pooled",
    "mean_over_sites": "mean over sites",
    "mean_over_folds": "mean over folds",
    "sd_over_folds": "± sd over folds",
}
"""The scopes that are of all sites, and what a reader calls them."""


@dataclass(frozen=True)
class MetricRow:
    """The metrics of one run on one part, over one scope: one of `SUMMARIES`, site or fold."""

    run: str
    part: str
    scope: str
    name: str
    metrics: dict[str, float | None]


def mapping(value: object, *keys: str) -> dict[str, Any]:
    """Return the dictionary under `keys`; an empty one where the way there ends early."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def sequence(value: object, *keys: str) -> list[Any]:
    """Return the list under `keys`; an empty one where the way there ends early."""
    if keys:
        value = mapping(value, *keys[:-1]).get(keys[-1])
    return value if isinstance(value, list) else []


def finite(value: object) -> float | None:
    """Return `value` as a float, or None when it is absent, not a number or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer that no float holds
        return None


def run_name(result: dict[str, Any]) -> str:
    """Return what the main run is called beside its baselines: its mode."""
    return str(mapping(result, "experiment").get("mode") or "federated")


def title(result: dict[str, Any]) -> str:
    """Return the name the researcher gave to the run."""
    return str(result.get("name") or mapping(result, "experiment").get("name") or "experiment")


def folds(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return each fold of a cross-validation with its name; empty for a single split.

    A fold is called by its number, or by the site that it leaves out; where each site trains alone, also by that site.
    """
    named = []
    for index, fold in enumerate(sequence(result, "folds")):
        if isinstance(fold, dict):
            name = str(fold.get("test_site", fold.get("fold", index)))
            named.append((f"{fold['site']} {name}" if "site" in fold else name, fold))
    return named


def site_names(result: dict[str, Any]) -> list[str]:
    """Return the sites in the order of the result, then any that only the metrics name."""
    measured = (mapping(result, "metrics", part, "sites") for part in PARTS)
    return list(dict.fromkeys(str(name) for sites in (mapping(result, "sites"), *measured) for name in sites))


def site_count(result: dict[str, Any]) -> int:
    """Return how many sites took part; under secure aggregation the one that has numbers is all of them."""
    return len(mapping(result, "secure_aggregation", "sites")) or len(site_names(result))


def count(result: dict[str, Any], site: str, part: str) -> int | None:
    """Return the number of rows of one part at one site; `part` "rows" counts all of them."""
    sizes = mapping(result, "sites", site, "n")
    if part == "rows" and finite(sizes.get("rows")) is None:
        parts = [finite(sizes.get(name)) for name in ("train", "validation", "test")]
        return int(sum(size or 0 for size in parts)) if any(size is not None for size in parts) else None
    size = finite(sizes.get(part))
    return None if size is None else int(size)


def total(result: dict[str, Any], part: str) -> int | None:
    """Return the number of rows of one part over all sites; None when no site told."""
    sizes = [count(result, site, part) for site in site_names(result)]
    return sum(size or 0 for size in sizes) if any(size is not None for size in sizes) else None


def evaluated(result: dict[str, Any], row: MetricRow) -> int | None:
    """Return how many rows a set of metrics is about; None for a mean, which is about sites or folds."""
    if row.scope in SUMMARIES and row.scope != "pooled":
        return None
    if (n := finite(row.metrics.get("n"))) is not None:
        return int(n)
    return total(result, row.part) if row.scope == "pooled" else count(result, row.name, row.part)


def history_columns(history: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the series of a history, `round` first and of equal length, so that rows can be cut from them."""
    series = {str(name): values for name, values in history.items() if isinstance(values, list)}
    length = max((len(values) for values in series.values()), default=0)
    rounds = series.pop("round", None) or []
    columns = {"round": rounds + list(range(len(rounds) + 1, length + 1))}
    return columns | {name: values + [None] * (length - len(values)) for name, values in series.items()}


def metric_rows(result: dict[str, Any]) -> list[MetricRow]:
    """Return every set of metrics in the result: the main run, its folds, then the baselines."""
    run = run_name(result)
    rows = _rows_of_run(run, mapping(result, "metrics"))
    for name, fold in folds(result):
        for part in RESULT_PARTS:
            pooled = mapping(fold, "metrics", part, "pooled")
            rows += [MetricRow(run, part, "fold", name, pooled)] if pooled else []
    for name, baseline in mapping(result, "baselines").items():
        rows += _rows_of_run(str(name), mapping(baseline, "metrics"))
    return rows


def _rows_of_run(run: str, metrics: dict[str, Any]) -> list[MetricRow]:
    rows = []
    for part in RESULT_PARTS:
        for scope in SUMMARIES:
            if values := mapping(metrics, part, scope):
                rows.append(MetricRow(run, part, scope, "", values))
        for site in mapping(metrics, part, "sites"):
            rows.append(MetricRow(run, part, "site", str(site), mapping(metrics, part, "sites", site)))
    return rows


def columns(rows: Iterable[MetricRow]) -> list[str]:
    """Return the metrics that at least one row knows, the familiar ones first."""
    known = {name: None for row in rows for name, value in row.metrics.items() if finite(value) is not None}
    groups: dict[str, list[str]] = {}
    for name in known:
        task, _, metric = name.rpartition(".")
        if is_score(metric):
            groups.setdefault(task, []).append(name)
    # Of several tasks the first of each, then the second of each; what is over all of them, the loss, comes last.
    places = list(METRICS)
    order: dict[str, tuple[bool, int, int]] = {}
    for number, task in enumerate(groups):
        ranked = sorted(groups[task], key=lambda name: _place(name, places))
        order |= {name: (task == "", place, number) for place, name in enumerate(ranked)}
    return sorted(order, key=lambda name: order[name])


def _place(name: str, places: list[str]) -> int:
    metric = name.rpartition(".")[2]
    if is_sensitivity(metric):
        return places.index("npv")
    return places.index(metric) if metric in places else len(places)


def central_rows(result: dict[str, Any]) -> list[tuple[str, MetricRow]]:
    """Return what was measured on the researcher's own table, with a name for each run's, or site's, model."""
    listed = []
    rows = [row for row in metric_rows(result) if row.part == CENTRAL and row.scope != "fold"]
    runs = list(dict.fromkeys(row.run for row in rows))
    for row in rows:
        if row.scope == "site" and row.name == CENTRAL:
            continue  # the same as pooled
        name = row.name if row.scope == "site" else SUMMARIES[row.scope]
        if row.scope == "pooled":
            several = any(
                other.run == row.run and other.scope in ("mean_over_folds", "mean_over_sites") for other in rows
            )
            name = "mean over models" if several else "" if len(runs) > 1 else RUNS.get(row.run, row.run)
        listed.append((": ".join(filter(None, [row.run, name])) if len(runs) > 1 else name, row))
    return [(name, row) for name, row in listed if row.scope not in ("mean_over_sites", "mean_over_folds")]


def central_name(result: dict[str, Any]) -> str:
    """Return the name of the researcher's own table, without its folder."""
    uri = str(mapping(result, "experiment", "central").get("uri") or CENTRAL)
    return without_password(uri) if "://" in uri else uri.rstrip("/").rpartition("/")[2]


def part_title(part: str) -> str:
    """Return what a part's rows are called in a heading."""
    return "Central table" if part == "central" else f"{part.capitalize()} rows"


def main_part(rows: Sequence[MetricRow]) -> str:
    """Return the part a run is judged by: test, or validation where nothing was tested."""
    tested = columns(row for row in rows if row.part == "test")
    return "test" if tested else "validation"


def monitored(result: dict[str, Any]) -> str:
    """Return the metric that early stopping watched; loss where the experiment does not say."""
    monitor = str(mapping(result, "experiment", "stopping").get("monitor") or "loss")
    return monitor.removeprefix("validation_")


def best_round(result: dict[str, Any]) -> float | None:
    """Return the round that was best by what was monitored; None where none could be judged, or another model was kept.

    `best_round` in a result is the round whose model is kept, which is the last where nothing was known of any: a
    generator's FID, say, of hospitals with too few images.
    """
    judged = any(
        finite(value) is not None for value in sequence(mapping(result, "history"), f"validation_{monitored(result)}")
    )
    return finite(result.get("best_round")) if judged and keeps_best(result) else None


def keeps_best(result: dict[str, Any]) -> bool:
    """Say whether the model of the best round was asked for, and not the last one or an average over rounds."""
    return mapping(result, "experiment", "output").get("model") in (None, "best")


# Metrics of one class of two.
_OF_ONE_CLASS = {"precision", "recall", "specificity", "npv", "f1", "auroc", "auprc", "brier"}
_BOUND = re.compile(r"_(low|high|se|resolution)$")


def positive_class(result: dict[str, Any], metrics: Iterable[str]) -> str:
    """Return what the metrics of one class are of: "positive: ill", or the condition; empty where none is shown."""
    named = class_of_one(result) if any(is_of_one_class(name) for name in metrics) else ""
    return f"positive: {named}" if named else ""


def event_of(result: dict[str, Any]) -> str:
    """Return which rows have survival's event, such as "event: died == 1"; empty of other problems."""
    data = mapping(result, "experiment", "data")
    target = data.get("target")
    column = target.get("event") if isinstance(target, dict) else None
    return f"event: {column} {data.get('positive') or '== 1'}" if column else ""


def class_of_one(result: Mapping[str, Any]) -> str:
    """Return the class of two that metrics of one class are of, or the condition on the target; else an empty text."""
    classes = sequence(mapping(result, "preparation"), "classes")
    if len(classes) != 2:
        return ""
    data = mapping(result, "experiment", "data")
    condition = data.get("positive")
    return f"{classes[1]}" if condition is None else f"{data.get('target')} {condition}"


def is_of_one_class(metric: str) -> bool:
    """Say whether a metric, or a bound or error of one, is of one class of two."""
    return metric.startswith("sensitivity") or _BOUND.sub("", metric) in _OF_ONE_CLASS


# What stands beside a metric under its name.
_BESIDE = {"_resolution": "resolution", "_se": "standard error"}


def label(metric: str) -> str:
    """Return how a metric is written for a reader."""
    task, _, base_name = metric.rpartition(".")
    known = described(base_name)
    if known is None:
        for ending, meaning in _BESIDE.items():
            of = metric.removesuffix(ending)
            if of != metric and described(of.rpartition(".")[2]) is not None:
                return f"{label(of)} {meaning}"
        if base_name.startswith("threshold_at_"):
            return label(metric.replace("threshold_at_", "sensitivity_at_")).replace("Sens.", "Threshold")
        return metric.replace("_", " ").strip().capitalize()
    return f"{task}: {known.label}" if task else known.label


def interval(metrics: dict[str, Any], metric: str) -> tuple[float, float] | None:
    """Return a metric's 95 % confidence interval, where the result has one."""
    value, error = finite(metrics.get(metric)), finite(metrics.get(f"{metric}_se"))
    low, high = finite(metrics.get(f"{metric}_low")), finite(metrics.get(f"{metric}_high"))
    if value is None:
        return None
    if low is not None and high is not None:
        return low, high
    # A result of an earlier version has the standard error of the AUROC alone.
    if error is None or f"{metric}_low" in metrics:
        return None
    return max(0.0, value - 1.96 * error), min(1.0, value + 1.96 * error)


def interval_text(metrics: dict[str, Any], metric: str) -> str:
    """Write an interval for a reader, ``0.78–0.88``; empty where there is none."""
    ends = interval(metrics, metric)
    return "" if ends is None else f"{ends[0]:.2f}–{ends[1]:.2f}"


def described(metric: str) -> MetricName | None:
    """Return how a metric of ours is shown; None of a plug-in's."""
    if not is_sensitivity(metric):
        return METRICS.get(metric)
    percent = metric.removeprefix("sensitivity_at_").replace("_", ".")
    meaning = f"share of positives found by the lowest threshold that clears {percent} % of the negatives"
    # Unbreakable spaces, so that a narrow column's head has two lines of it and not five.
    return MetricName(f"Sens.\xa0at {percent}\xa0%\xa0spec.", True, meaning)


def missing_sites(result: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return for each site that failed to answer the number of rounds lost to each reason."""
    reasons: dict[str, dict[str, int]] = {}
    for entry in sequence(result, "participation"):
        for site, reason in mapping(entry, "missing").items():
            tally = reasons.setdefault(str(site), {})
            tally[str(reason)] = tally.get(str(reason), 0) + 1
    return reasons


def sites_not_in(result: dict[str, Any]) -> list[str]:
    """Return the sites that failed to answer and are in no part of the result, as when they refused a later call."""
    return sorted(missing_sites(result).keys() - {str(site) for site in mapping(result, "sites")})
