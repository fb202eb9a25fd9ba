"""The metrics a researcher can monitor, by name. Read by early stopping and best-model selection,
which need to know which way is better."""

from v6_algorithm import plugins

METRIC_NAMES: dict[str, bool] = {
    "loss": False,
    "accuracy": True,
    "balanced_accuracy": True,
    "precision": True,
    "recall": True,
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
"""Metric name -> True if a greater value is better."""


def higher_is_better(name: str, problem: str) -> bool:
    """Say which way a metric is better: one of ours, of one task of several (`sex.auroc`), or of a plug-in."""
    own = name.rpartition(".")[2]
    if own in METRIC_NAMES:
        return METRIC_NAMES[own]
    metrics = plugins.problem(problem).Metrics
    return metrics is not None and metrics.higher_is_better.get(name, False)
