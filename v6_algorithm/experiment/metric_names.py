"""The metrics a researcher can monitor, by name. Read by early stopping and best-model selection,
which need to know which way is better."""

from collections.abc import Sequence

from v6_algorithm.experiment import plugins

METRIC_NAMES: dict[str, bool] = {
    "loss": False,
    "accuracy": True,
    "balanced_accuracy": True,
    "precision": True,
    "recall": True,
    "specificity": True,
    "npv": True,
    "f1": True,
    "auroc": True,
    "auprc": True,
    "brier": False,
    "ece": False,
    "mse": False,
    "mae": False,
    "r2": True,
    "huber": False,
    "c_index": True,
    "c_index_within": True,
    "fid": False,
    "kid": False,
}
"""Metric name -> True if a greater value is better; `sensitivity_at` names more."""
_SENSITIVITY, _THRESHOLD = "sensitivity_at_", "threshold_at_"


def sensitivity_names(specificities: Sequence[float]) -> list[str]:
    """Name the sensitivities at these specificities: 0.9 is `sensitivity_at_90`, 0.975 `sensitivity_at_97_5`."""
    return [f"{_SENSITIVITY}{_percent(specificity)}" for specificity in specificities]


def threshold_name(sensitivity: str) -> str:
    """Name the threshold that goes with a sensitivity, by the name of that."""
    return sensitivity.replace(_SENSITIVITY, _THRESHOLD, 1)


def is_sensitivity(name: str) -> bool:
    """Say whether a metric, or that of one task of several, is a sensitivity at some specificity."""
    return name.rpartition(".")[2].startswith(_SENSITIVITY) and not name.endswith("_resolution")


def is_score(name: str) -> bool:
    """Say whether a computed value tells how good a model is; others go with one: rows, resolutions, intervals."""
    base_name = name.rpartition(".")[2]
    return (
        base_name != "n"
        and not base_name.endswith(("_resolution", "_se", "_low", "_high"))
        and not base_name.startswith(_THRESHOLD)
    )


def _percent(share: float) -> str:
    # Not a point: that is between a task and its metric.
    return f"{100 * share:g}".replace(".", "_")


def higher_is_better(name: str, problem: str) -> bool:
    """Say which way a metric is better: one of ours, of one task of several (`sex.auroc`), or of a plug-in."""
    base_name = name.rpartition(".")[2]
    if base_name in METRIC_NAMES:
        return METRIC_NAMES[base_name]
    if is_sensitivity(base_name):
        return True
    metrics = plugins.problem(problem).Metrics
    return metrics is not None and metrics.higher_is_better.get(name, False)
