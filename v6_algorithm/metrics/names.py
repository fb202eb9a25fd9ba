"""The metrics a researcher can monitor, by name. Read by early stopping and best-model selection,
which need to know which way is better."""

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
}
"""Metric name -> True if a greater value is better."""
